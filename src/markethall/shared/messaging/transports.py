"""Transports carry envelopes from the outbox to the inbox of a subscriber."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from markethall.shared.messaging.events import EventEnvelope
from markethall.shared.messaging.inbox import Inbox
from markethall.shared.messaging.outbox import InboxRoute, LeaderSession


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
