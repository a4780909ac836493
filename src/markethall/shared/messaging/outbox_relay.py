"""The outbox relay: sends the events of one context to its subscribers."""

from collections.abc import Sequence

from markethall.shared.kernel.clock import Clock
from markethall.shared.messaging.outbox import LeaderSession
from markethall.shared.messaging.transports import EventTransport, LossyTransport
from markethall.shared.observability.metrics import EVENTS_RELAYED


class OutboxRelay:
    """Sends the events of one context that are not relayed yet, in order, over every transport."""

    def __init__(
        self,
        context: str,
        transports: Sequence[EventTransport],
        clock: Clock,
        lossy_transports: Sequence[LossyTransport] = (),
    ) -> None:
        self.context = context
        self._transports = transports
        self._lossy_transports = lossy_transports
        self._clock = clock

    def reset_transports(self) -> None:
        """Reset the lossy transports. Call this when the process becomes the leader."""
        for transport in self._lossy_transports:
            transport.reset()

    async def relay_batch(self, leader: LeaderSession, limit: int) -> int:
        """Relay at most `limit` events; return how many.

        After a failure the next call sends the whole batch again; inboxes ignore duplicates.
        """
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

    async def reconcile(self, leader: LeaderSession) -> None:
        for transport in self._lossy_transports:
            await transport.reconcile(leader)
