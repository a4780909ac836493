"""Compare and set, and look again when somebody else was faster."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from markethall.orders.ports import Changed

T = TypeVar("T")


async def until_saved(change: Callable[[], Awaitable[T]]) -> T:
    """Each lost race means that another change of the same order was saved, so this ends."""
    while True:
        try:
            return await change()
        except Changed:
            continue
