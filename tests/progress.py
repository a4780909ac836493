"""A timeout for tests that restarts whenever the test reports a new state of the work.

On a busy machine, a fixed timeout could expire although the work still makes progress.
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
        """Restart the timeout if `state` has not been reported before.

        A repeated state does not restart it, so that work that alternates between states times out.
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
