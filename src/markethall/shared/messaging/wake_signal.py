import asyncio


class WakeSignal:
    """Works like an asyncio.Event for one waiting task, but in any event loop.

    An asyncio.Event can be used only in the event loop of its first wait, and an application may be
    started again in another loop.
    """

    def __init__(self) -> None:
        self._is_set = False
        self._waiter: asyncio.Future[None] | None = None

    @property
    def is_set(self) -> bool:
        return self._is_set

    def set(self) -> None:
        self._is_set = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def clear(self) -> None:
        self._is_set = False

    async def wait(self, seconds: float) -> bool:
        """Return when the flag is set, or after `seconds`. Tell whether it is set."""
        if self._is_set:
            return True
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await asyncio.wait([self._waiter], timeout=seconds)
        finally:
            self._waiter = None
        return self._is_set
