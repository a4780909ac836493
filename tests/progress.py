"""A time limit for waits in tests, which starts again with each progress.

On a busy machine a fixed limit ends while the system still works.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class ProgressLimit:
    def __init__(self, timeout: asyncio.Timeout, seconds: float) -> None:
        self._timeout = timeout
        self._seconds = seconds
        self._seen: set[str] = set()

    def note(self, state: object) -> None:
        """Start the limit again if this state is new.

        An earlier state is no progress, so that states that alternate do not go on for ever.
        """
        text = repr(state)
        if text not in self._seen:
            self._seen.add(text)
            self._timeout.reschedule(asyncio.get_running_loop().time() + self._seconds)


@asynccontextmanager
async def progress_limit(seconds: float) -> AsyncIterator[ProgressLimit]:
    """Raise TimeoutError in the block after `seconds` without a new state."""
    async with asyncio.timeout(seconds) as timeout:
        yield ProgressLimit(timeout, seconds)
