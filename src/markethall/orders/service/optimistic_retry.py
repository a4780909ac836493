"""Optimistic concurrency: repeat a change when another transaction saved the order first."""

from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from markethall.orders.configuration.ports import ConcurrentUpdate

P = ParamSpec("P")
T = TypeVar("T")


def retry_on_conflict(
    change: Callable[P, Coroutine[Any, Any, T]],
) -> Callable[P, Coroutine[Any, Any, T]]:
    """Let the function repeat until it does not raise ConcurrentUpdate. It must read the order.

    There is no limit, because each conflict means that another change of the order succeeded.
    """

    @wraps(change)
    async def repeat(*args: P.args, **kwargs: P.kwargs) -> T:
        while True:
            try:
                return await change(*args, **kwargs)
            except ConcurrentUpdate:
                continue

    return repeat
