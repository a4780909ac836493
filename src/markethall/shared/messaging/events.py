"""Events and their envelopes.

A store writes an event to the outbox in the transaction of the change. The leader of the context
relays the event to the inbox of each subscriber, at least once. A consumer runs the handler. The
handler marks the inbox row as processed in the transaction of its effect, so the effect happens
once.
"""

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any, ClassVar
from uuid import UUID

from markethall.shared.kernel.call_context import CallContext, system_context
from markethall.shared.kernel.ids import new_id
from markethall.shared.kernel.model import Dto


class Event(Dto):
    """A fact that has happened; its class name is in the past tense.

    `key` is the id of the entity that changed. Events of one key are handled in the order of
    publication.
    """

    type: ClassVar[str] = ""
    version: ClassVar[int] = 1

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        if cls.type in _EVENT_TYPES:
            raise TypeError(f"two events share the type {cls.type}")
        _EVENT_TYPES[cls.type] = cls

    @property
    def key(self) -> UUID:
        raise NotImplementedError(f"{type(self).__name__} has no key")


_EVENT_TYPES: dict[str, type[Event]] = {}


class EventEnvelope(Dto):
    """A serialised event. `seq` is the position in the publisher's outbox."""

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
        """Raises KeyError for an unknown type, ValueError for an invalid payload."""
        return _EVENT_TYPES[self.type].model_validate_json(self.payload)


class Delivery(Dto):
    """An envelope in an inbox, for one handler.

    `attempts` counts how often the handler was started, including the running attempt, but not the
    attempts that ended with RetryLater or Unavailable. `more_are_due` tells whether other
    deliveries were due that the claim left, because of its limit or because of their keys.
    """

    handler: str
    envelope: EventEnvelope
    attempts: int
    more_are_due: bool = False

    def call_context(self) -> CallContext:
        return system_context(
            self.handler,
            request_id=self.envelope.request_id,
            traceparent=self.envelope.traceparent,
        )


EventHandler = Callable[[Delivery, Any], Awaitable[None]]


class RetryLater(Exception):
    """Raised by a handler that must wait for another event or for a running command.

    The consumer tries again until the handler succeeds; this attempt does not count as a failure.
    """


def publisher_of(event_type: str) -> str:
    """Return the publishing context; an event type has the form `context.name_of_event`."""
    return event_type.partition(".")[0]


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
