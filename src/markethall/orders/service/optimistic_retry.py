"""Optimistic concurrency: repeat a change when another transaction saved the order first."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from markethall.orders.configuration.ports import ConcurrentUpdate

T = TypeVar("T")


async def retry_on_conflict(change: Callable[[], Awaitable[T]]) -> T:
    """Call `change` until it does not raise ConcurrentUpdate. `change` must read the order itself.

    There is no limit, because each conflict means that another change of the order succeeded.
    """
    while True:
        try:
            return await change()
        except ConcurrentUpdate:
            continue
