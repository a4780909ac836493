"""The outbox relay: sends the events of one context to its subscribers."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from markethall.shared.kernel.clock import Clock
from markethall.shared.messaging.events import EventEnvelope
from markethall.shared.messaging.inbox import Inbox
from markethall.shared.messaging.outbox import InboxRoute, LeaderSession, Outbox
from markethall.shared.observability.metrics import EVENTS_RELAYED


class EventTransport(Protocol):
    async def deliver(self, envelopes: Sequence[EventEnvelope]) -> None: ...


class LossyTransport(EventTransport, Protocol):
    """A transport that may lose envelopes; it sends unconfirmed envelopes again."""

    def accepts(self, envelope: EventEnvelope) -> bool:
        """Tell whether a subscriber that uses this transport handles the type of the event."""

    def reset(self) -> None:
        """Forget the known state of the transport. Called when this process becomes the leader."""

    async def reconcile(self, leader: LeaderSession) -> None:
        """Send possibly lost events again, and confirm the delivered events.

        The leader calls this at an interval.
        """


class InProcessTransport:
    """Writes to the inbox of a subscriber that runs in this process."""

    def __init__(
        self,
        inbox: Inbox,
        handlers_by_type: Mapping[str, Sequence[str]],
        notify_inbox: Callable[[], None] = lambda: None,
    ) -> None:
        self._inbox = inbox
        self._handlers_by_type = handlers_by_type
        self._notify_inbox = notify_inbox

    @property
    def route(self) -> InboxRoute:
        return InboxRoute(self._inbox, self._handlers_by_type)

    def accepts(self, envelope: EventEnvelope) -> bool:
        return envelope.type in self._handlers_by_type

    def notify(self, event_types: Iterable[str]) -> None:
        """Wake the consumer if the inbox has received one of these events."""
        if not self._handlers_by_type.keys().isdisjoint(event_types):
            self._notify_inbox()

    async def deliver(self, envelopes: Sequence[EventEnvelope]) -> None:
        accepted = [envelope for envelope in envelopes if self.accepts(envelope)]
        for handlers, group in _group_by_handlers(accepted, self._handlers_by_type):
            await self._inbox.enqueue(handlers, group)
        if accepted:
            self._notify_inbox()


def _group_by_handlers(
    envelopes: Iterable[EventEnvelope], handlers_by_type: Mapping[str, Sequence[str]]
) -> Iterable[tuple[Sequence[str], list[EventEnvelope]]]:
    """Yield groups of consecutive envelopes that have the same handlers, with these handlers."""
    group: list[EventEnvelope] = []
    for envelope in envelopes:
        if group and handlers_by_type[group[0].type] != handlers_by_type[envelope.type]:
            yield handlers_by_type[group[0].type], group
            group = []
        group.append(envelope)
    if group:
        yield handlers_by_type[group[0].type], group


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
