"""A flag that wakes one waiting task."""

import asyncio


class WakeSignal:
    """Works like an asyncio.Event for one waiting task, but in any event loop.

    An asyncio.Event can be used only in the event loop of its first wait, and an application may be
    started again in another loop.
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
        """Return when the flag is set, or after `seconds`."""
        if self._is_set:
            return
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await asyncio.wait([self._waiter], timeout=seconds)
        finally:
            self._waiter = None
