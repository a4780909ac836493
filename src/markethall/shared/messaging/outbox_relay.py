"""The outbox relay: sends the events of one context to its subscribers."""

from collections.abc import Sequence

from markethall.shared.kernel.clock import Clock
from markethall.shared.messaging.outbox import LeaderSession, Outbox
from markethall.shared.messaging.transports import (
    EventTransport,
    InProcessTransport,
    LossyTransport,
)
from markethall.shared.observability.metrics import EVENTS_RELAYED


class OutboxRelay:
    """Sends the events of one context that are not relayed yet, in order, over every transport."""

    def __init__(
        self,
        context: str,
        transports: Sequence[EventTransport],
        clock: Clock,
        lossy_transports: Sequence[LossyTransport] = (),
        *,
        outbox: Outbox | None = None,
    ) -> None:
        """`outbox` is the outbox of the context: it tells which inboxes are beside it."""
        self.context = context
        self._transports = transports
        self._lossy_transports = lossy_transports
        self._clock = clock
        direct = [
            transport
            for transport in transports
            if isinstance(transport, InProcessTransport)
            and outbox is not None
            and outbox.is_beside(transport.route.inbox)
        ]
        all_direct = direct and len(direct) == len(transports) and not lossy_transports
        # None if some events need another transport, or if the context has no subscriber; each
        # batch is then read, delivered and marked in separate steps
        self._direct_transports = direct if all_direct else None

    def reset_transports(self) -> None:
        """Reset the lossy transports. Call this when the process becomes the leader."""
        for transport in self._lossy_transports:
            transport.reset()

    async def relay_batch(self, leader: LeaderSession, limit: int) -> int:
        """Relay at most `limit` events; return how many.

        After a failure the next call sends the whole batch again; inboxes ignore duplicates.
        """
        if self._direct_transports is not None:
            return await self._relay_directly(leader, self._direct_transports, limit)
        envelopes = await leader.get_unrelayed(limit)
        if envelopes:
            for transport in (*self._transports, *self._lossy_transports):
                await transport.deliver(envelopes)
            awaiting_confirmation = {
                envelope.event_id
                for transport in self._lossy_transports
                for envelope in envelopes
                if transport.accepts(envelope)
            }
            await leader.mark_relayed(envelopes, self._clock(), awaiting_confirmation)
            EVENTS_RELAYED.labels(self.context).inc(len(envelopes))
        return len(envelopes)

    async def _relay_directly(
        self, leader: LeaderSession, transports: Sequence[InProcessTransport], limit: int
    ) -> int:
        routes = [transport.route for transport in transports]
        event_types = await leader.relay_to_inboxes(routes, self._clock(), limit)
        if event_types:
            for transport in transports:
                transport.notify(event_types)
            EVENTS_RELAYED.labels(self.context).inc(len(event_types))
        return len(event_types)

    async def reconcile(self, leader: LeaderSession) -> None:
        for transport in self._lossy_transports:
            await transport.reconcile(leader)
