"""A flag that wakes one waiting task."""

import asyncio


class WakeSignal:
    """Like asyncio.Event for one waiting task, but may be used on several event loops in turn.

    An asyncio.Event stays bound to the first loop that waits for it, and an application may be
    started again on another loop.
    """

    def __init__(self) -> None:
        self._is_set = False
        self._waiter: asyncio.Future[None] | None = None

    def set(self) -> None:
        self._is_set = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def clear(self) -> None:
        self._is_set = False

    async def wait(self, seconds: float) -> None:
        """Return when the flag is set, at the latest after so many seconds."""
        if self._is_set:
            return
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await asyncio.wait([self._waiter], timeout=seconds)
        finally:
            self._waiter = None
