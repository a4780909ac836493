"""The time limits of one request: of its statements, and of its waits for slots and connections.

They are context variables, so that the code between the HTTP layer and the database need not pass
them.
"""

import asyncio
import time
from collections.abc import Awaitable
from contextvars import ContextVar
from typing import Final, TypeVar

# the timeout of statements in seconds; None: only the general timeout of the database applies
STATEMENT_TIMEOUT: Final[ContextVar[float | None]] = ContextVar("statement_timeout", default=None)
T = TypeVar("T")

MAX_WAIT_SECONDS: Final = 2.0


class WaitBudget:
    """The seconds that a request may still wait for slots and for connections."""

    def __init__(self, seconds: float) -> None:
        self.seconds_left = seconds


# None outside of requests, for example in background work
WAIT_BUDGET: ContextVar[WaitBudget | None] = ContextVar("wait_budget", default=None)


async def wait_within_budget(wait: Awaitable[T], max_seconds: float) -> T:
    """Wait at most `max_seconds`, and not longer than the budget of the request allows.

    Raises TimeoutError.
    """
    budget = WAIT_BUDGET.get()
    if budget is None:
        async with asyncio.timeout(max_seconds):
            return await wait
    started = time.monotonic()
    try:
        async with asyncio.timeout(min(max_seconds, budget.seconds_left)):
            return await wait
    finally:
        budget.seconds_left -= time.monotonic() - started
