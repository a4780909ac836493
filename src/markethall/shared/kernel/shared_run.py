import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class SharedRun(Generic[T]):
    """Runs a function at most once at a time, and reuses its result for `reuse_seconds`.

    A run continues when its caller is cancelled, because other callers may wait for it.
    """

    def __init__(self, reuse_seconds: float = 0.0) -> None:
        self._reuse_seconds = reuse_seconds
        self._run: asyncio.Task[T] | None = None
        self._expires_at = 0.0

    async def get(self, run: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Return the result of the current run, else of a new one. Raises what the run raises."""
        if self._run is None or not self._is_usable(self._run):
            self._run = asyncio.create_task(self._finish(run))
        return await asyncio.shield(self._run)

    async def _finish(self, run: Callable[[], Coroutine[Any, Any, T]]) -> T:
        try:
            return await run()
        finally:
            self._expires_at = asyncio.get_running_loop().time() + self._reuse_seconds

    def _is_usable(self, run: asyncio.Task[T]) -> bool:
        """Tell whether the run is in progress, or has succeeded a short time ago."""
        if not run.done():
            return True
        has_failed = run.cancelled() or run.exception() is not None
        return not has_failed and asyncio.get_running_loop().time() < self._expires_at
