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

from markethall.shared.call import Call, system_call
from markethall.shared.ids import new_id
from markethall.shared.model import Dto


class Event(Dto):
    """A fact in the past tense. `key` names the aggregate whose order must be kept."""

    type: ClassVar[str] = ""
    version: ClassVar[int] = 1

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        if cls.type in _BY_TYPE:
            raise TypeError(f"two events share the type {cls.type}")
        _BY_TYPE[cls.type] = cls

    @property
    def key(self) -> UUID:
        raise NotImplementedError(f"{type(self).__name__} names no aggregate")


_BY_TYPE: dict[str, type[Event]] = {}


class Envelope(Dto):
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

    def open(self) -> Event:
        """Raises KeyError for a type that nobody here knows, ValueError for a bad payload."""
        return _BY_TYPE[self.type].model_validate_json(self.payload)


class Delivery(Dto):
    """An envelope in an inbox, claimed for one handler."""

    handler: str
    envelope: Envelope
    attempts: int

    def call(self) -> Call:
        return system_call(
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


def sealed(event: Event, call: Call, now: datetime) -> Envelope:
    return Envelope(
        event_id=new_id(),
        type=event.type,
        version=event.version,
        key=event.key,
        payload=event.model_dump_json(),
        occurred_at=now,
        request_id=call.request_id,
        traceparent=call.traceparent,
    )


class Lead(Protocol):
    """The one relay of a context, while it leads."""

    async def unpublished(self, limit: int) -> Sequence[Envelope]:
        """In the order of seq, whatever was committed late included."""

    async def mark_published(
        self, envelopes: Sequence[Envelope], now: datetime, awaited: Collection[UUID] = ()
    ) -> None:
        """`awaited`: ids that listeners elsewhere have to confirm; the others are confirmed now."""

    async def unconfirmed(self, after: int, limit: int) -> Sequence[Envelope]:
        """Published, and not known to have arrived everywhere: in order, from beyond that seq."""

    async def mark_confirmed(self, event_ids: Sequence[UUID], now: datetime) -> None: ...


class Outbox(Protocol):
    def lead(self) -> AbstractAsyncContextManager[Lead | None]:
        """Become the one leader of this context; None where another process leads."""

    async def purge(self, before: datetime) -> int:
        """Forget what was confirmed before then; how many."""


class Inbox(Protocol):
    """A queue in the listener's own store."""

    async def accept(self, handlers: Sequence[str], envelopes: Sequence[Envelope]) -> None:
        """Insert what is not there yet, by (handler, event id)."""

    async def accept_dead(self, handler: str, envelope: Envelope, error: str) -> None:
        """Insert a dead letter, if it is not there yet: nobody can read it, but it is kept."""

    async def claim(self, now: datetime, lease: timedelta, limit: int) -> Sequence[Delivery]:
        """The oldest waiting delivery of each key, none while an earlier one waits."""

    async def postpone(
        self, delivery: Delivery, error: str, due_at: datetime, *, excused: bool = False
    ) -> None:
        """Try it again then. Excused: it was not its own fault, this try does not count."""

    async def bury(self, delivery: Delivery, error: str) -> None:
        """Mark it dead: kept and listed, no longer tried."""

    async def dead(self, limit: int = 100) -> Sequence[DeadLetter]: ...

    async def retry_dead(self, event_id: UUID | None = None) -> int:
        """Wake one dead letter, or all of them; how many."""

    async def replay(self, event_id: UUID) -> int:
        """Run the handlers of an event once more, done or dead; how many."""

    async def purge(self, before: datetime) -> int:
        """Forget what was done before then; how many."""


class Pipe(Protocol):
    """The only part that a topology changes."""

    async def send(self, envelopes: Sequence[Envelope]) -> None: ...


class Stream(Pipe, Protocol):
    """A pipe that may lose what it was given. It sees to that by itself; the outbox remembers."""

    def wants(self, envelope: Envelope) -> bool: ...

    def forget(self) -> None:
        """A new lead begins: what an earlier one knew of the stream may not be true any more."""

    async def tend(self, lead: Lead) -> None:
        """Regularly: send again what may be lost, confirm what has arrived."""


Handler = Callable[[Delivery, Any], Awaitable[None]]


class DirectPipe:
    """Straight into the listener's inbox: publisher and listener share a process."""

    def __init__(self, inbox: Inbox, handlers: Mapping[str, Sequence[str]]) -> None:
        self._inbox = inbox
        self._handlers = handlers
        self.wake: Callable[[], None] = lambda: None

    def wants(self, envelope: Envelope) -> bool:
        return envelope.type in self._handlers

    async def send(self, envelopes: Sequence[Envelope]) -> None:
        wanted = [envelope for envelope in envelopes if self.wants(envelope)]
        for handlers, group in _by_handlers(wanted, self._handlers):
            await self._inbox.accept(handlers, group)
        if wanted:
            self.wake()


def _by_handlers(
    envelopes: Iterable[Envelope], handlers: Mapping[str, Sequence[str]]
) -> Iterable[tuple[Sequence[str], list[Envelope]]]:
    """Runs of envelopes for the same handlers, their order kept."""
    run: list[Envelope] = []
    for envelope in envelopes:
        if run and handlers[run[0].type] != handlers[envelope.type]:
            yield handlers[run[0].type], run
            run = []
        run.append(envelope)
    if run:
        yield handlers[run[0].type], run
