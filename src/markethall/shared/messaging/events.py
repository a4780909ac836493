"""Events: facts that travel. Outbox, relay, pipe, inbox, processor.

A store publishes an event in its own transaction (outbox). One leader per context relays it
through a pipe into each listener's inbox, at least once. A processor runs the handler, which
ticks the inbox row off in the transaction of its effect: exactly once.
"""

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime, timedelta
from typing import Any, ClassVar, Protocol
from uuid import UUID

from markethall.shared.kernel.call_context import CallContext, system_context
from markethall.shared.kernel.ids import new_id
from markethall.shared.kernel.model import Dto


class Event(Dto):
    """A fact in the past tense. `key` names the aggregate whose order must be kept."""

    type: ClassVar[str] = ""
    version: ClassVar[int] = 1

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        if cls.type in _EVENT_TYPES:
            raise TypeError(f"two events share the type {cls.type}")
        _EVENT_TYPES[cls.type] = cls

    @property
    def key(self) -> UUID:
        raise NotImplementedError(f"{type(self).__name__} names no aggregate")


_EVENT_TYPES: dict[str, type[Event]] = {}


class EventEnvelope(Dto):
    """An event on its way. `seq` is its place in the publisher's outbox."""

    event_id: UUID
    seq: int = 0
    type: str
    version: int
    key: UUID
    payload: str
    occurred_at: datetime
    request_id: str
    traceparent: str | None = None

    def decode(self) -> Event:
        """Raises KeyError for a type that nobody here knows, ValueError for a bad payload."""
        return _EVENT_TYPES[self.type].model_validate_json(self.payload)


class Delivery(Dto):
    """An envelope in an inbox, claimed for one handler."""

    handler: str
    envelope: EventEnvelope
    attempts: int

    def call_context(self) -> CallContext:
        return system_context(
            self.handler,
            request_id=self.envelope.request_id,
            traceparent=self.envelope.traceparent,
        )


class DeadLetter(Dto):
    handler: str
    event_id: UUID
    type: str
    attempts: int
    error: str
    received_at: datetime


def wrap_event(event: Event, ctx: CallContext, now: datetime) -> EventEnvelope:
    return EventEnvelope(
        event_id=new_id(),
        type=event.type,
        version=event.version,
        key=event.key,
        payload=event.model_dump_json(),
        occurred_at=now,
        request_id=ctx.request_id,
        traceparent=ctx.traceparent,
    )


class LeaderSession(Protocol):
    """The one relay of a context, while it leads."""

    async def get_unpublished(self, limit: int) -> Sequence[EventEnvelope]:
        """In the order of seq, whatever was committed late included."""

    async def mark_published(
        self,
        envelopes: Sequence[EventEnvelope],
        now: datetime,
        awaiting_confirmation: Collection[UUID] = (),
    ) -> None:
        """`awaited`: ids that listeners elsewhere have to confirm; the others are confirmed now."""

    async def get_unconfirmed(self, after_seq: int, limit: int) -> Sequence[EventEnvelope]:
        """Published, and not known to have arrived everywhere: in order, from beyond that seq."""

    async def mark_confirmed(self, event_ids: Sequence[UUID], now: datetime) -> None: ...


class Outbox(Protocol):
    def acquire_leadership(self) -> AbstractAsyncContextManager[LeaderSession | None]:
        """Become the one leader of this context; None where another process leads."""

    async def purge(self, before: datetime) -> int:
        """Forget what was confirmed before then; how many."""


class Inbox(Protocol):
    """A queue in the listener's own store."""

    async def enqueue(self, handlers: Sequence[str], envelopes: Sequence[EventEnvelope]) -> None:
        """Insert what is not there yet, by (handler, event id)."""

    async def enqueue_dead_letter(self, handler: str, envelope: EventEnvelope, error: str) -> None:
        """Insert a dead letter, if it is not there yet: nobody can read it, but it is kept."""

    async def claim(self, now: datetime, lease: timedelta, limit: int) -> Sequence[Delivery]:
        """The oldest waiting delivery of each key, none while an earlier one waits."""

    async def retry_later(
        self, delivery: Delivery, error: str, due_at: datetime, *, count_attempt: bool = True
    ) -> None:
        """Schedule another attempt. `count_attempt=False` leaves the count as it was."""

    async def dead_letter(self, delivery: Delivery, error: str) -> None:
        """Mark it dead: kept and listed, no longer tried."""

    async def get_dead_letters(self, limit: int = 100) -> Sequence[DeadLetter]: ...

    async def requeue_dead_letters(self, event_id: UUID | None = None) -> int:
        """Wake one dead letter, or all of them; how many."""

    async def replay(self, event_id: UUID) -> int:
        """Run the handlers of an event once more, done or dead; how many."""

    async def purge(self, before: datetime) -> int:
        """Forget what was done before then; how many."""


class EventTransport(Protocol):
    """The only part that a topology changes."""

    async def deliver(self, envelopes: Sequence[EventEnvelope]) -> None: ...


class LossyTransport(EventTransport, Protocol):
    """A pipe that may lose what it was given. It sees to that by itself; the outbox remembers."""

    def accepts(self, envelope: EventEnvelope) -> bool: ...

    def reset(self) -> None:
        """A new lead begins: what an earlier one knew of the stream may not be true any more."""

    async def reconcile(self, leader: LeaderSession) -> None:
        """Regularly: send again what may be lost, confirm what has arrived."""


EventHandler = Callable[[Delivery, Any], Awaitable[None]]


class InProcessTransport:
    """Straight into the listener's inbox: publisher and listener share a process."""

    def __init__(self, inbox: Inbox, handlers_by_type: Mapping[str, Sequence[str]]) -> None:
        self._inbox = inbox
        self._handlers_by_type = handlers_by_type
        self.notify_inbox: Callable[[], None] = lambda: None

    def accepts(self, envelope: EventEnvelope) -> bool:
        return envelope.type in self._handlers_by_type

    async def deliver(self, envelopes: Sequence[EventEnvelope]) -> None:
        accepted = [envelope for envelope in envelopes if self.accepts(envelope)]
        for handlers, group in _group_by_handlers(accepted, self._handlers_by_type):
            await self._inbox.enqueue(handlers, group)
        if accepted:
            self.notify_inbox()


def _group_by_handlers(
    envelopes: Iterable[EventEnvelope], handlers_by_type: Mapping[str, Sequence[str]]
) -> Iterable[tuple[Sequence[str], list[EventEnvelope]]]:
    """Runs of envelopes for the same handlers, their order kept."""
    group: list[EventEnvelope] = []
    for envelope in envelopes:
        if group and handlers_by_type[group[0].type] != handlers_by_type[envelope.type]:
            yield handlers_by_type[group[0].type], group
            group = []
        group.append(envelope)
    if group:
        yield handlers_by_type[group[0].type], group
