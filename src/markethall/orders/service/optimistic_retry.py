"""Compare and set, and look again when somebody else was faster."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from markethall.orders.ports import ConcurrentUpdate

T = TypeVar("T")


async def retry_on_conflict(change: Callable[[], Awaitable[T]]) -> T:
    """Each lost race means that another change of the same order was saved, so this ends."""
    while True:
        try:
            return await change()
        except ConcurrentUpdate:
            continue
