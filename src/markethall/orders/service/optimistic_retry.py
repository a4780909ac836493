"""Optimistic concurrency: repeat a change that lost the compare-and-set."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from markethall.orders.ports import ConcurrentUpdate

T = TypeVar("T")


async def retry_on_conflict(change: Callable[[], Awaitable[T]]) -> T:
    """Repeat until it succeeds. Each conflict means that another change was saved, so it ends."""
    while True:
        try:
            return await change()
        except ConcurrentUpdate:
            continue
