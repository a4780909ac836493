"""The slots of bulkheads that a request holds, so that it can release them during a long wait."""

from collections.abc import Awaitable
from contextvars import ContextVar
from typing import Protocol, TypeVar

T = TypeVar("T")


class HeldSlots(Protocol):
    def leave(self) -> None:
        """Release the slots."""

    async def enter(self) -> None:
        """Take the slots again. Raises Overloaded."""

    def leave_shared(self) -> None:
        """Release the slots that all clients share, and keep those of the client."""


# None outside of requests, and for requests that need no slot
HELD_SLOTS: ContextVar[HeldSlots | None] = ContextVar("held_slots", default=None)


async def wait_without_slots(wait: Awaitable[T]) -> T:
    """Release the slots of the request, await, and take the slots again.

    Raises Overloaded if no slot is free after the wait, and the errors of `wait`.
    """
    slots = HELD_SLOTS.get()
    if slots is None:
        return await wait
    slots.leave()
    result = await wait
    await slots.enter()
    return result


def leave_shared_slots() -> None:
    """Release the slots that all clients share, until the end of the request.

    The caller limits the rest of the work by a bulkhead of its own. The slots of the client are
    kept, so that one client cannot fill that bulkhead.
    """
    slots = HELD_SLOTS.get()
    if slots is not None:
        slots.leave_shared()


def leave_all_slots() -> None:
    """Release all slots until the end of the request, because it may take very long.

    The caller limits the number of such requests, in total and per client.
    """
    slots = HELD_SLOTS.get()
    if slots is not None:
        slots.leave()
