"""Single flight: concurrent misses of one key share one load."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from markethall.shared.cache.ports import CacheKey, Invalidation

Load = asyncio.Task[bytes | None]


class SingleFlight:
    """The running loads, at most one per key that further callers may join.

    A load is a task of its own, so a caller that is cancelled does not fail the others.
    """

    def __init__(self) -> None:
        self._current: dict[CacheKey, Load] = {}
        self._running: set[Load] = set()

    def start_or_join(
        self, key: CacheKey, load: Callable[[], Coroutine[Any, Any, bytes | None]]
    ) -> Load:
        """Return the running load of the key; await it under `asyncio.shield`."""
        task = self._current.get(key)
        if task is None:
            task = self._current[key] = asyncio.create_task(load())
            self._running.add(task)
            task.add_done_callback(lambda done: self._finish(key, done))
        return task

    def is_current(self, key: CacheKey) -> bool:
        """Return, inside a load, whether its key has not been invalidated since it began."""
        return self._current.get(key) is asyncio.current_task()

    def invalidate(self, invalidation: Invalidation) -> None:
        """Let later callers start a new load."""
        namespace, key = invalidation
        if key is not None:
            self._current.pop((namespace, key), None)
        else:
            self._current = {k: task for k, task in self._current.items() if k[0] != namespace}

    def clear(self) -> None:
        self._current.clear()

    async def close(self) -> None:
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    def _finish(self, key: CacheKey, task: Load) -> None:
        self._running.discard(task)
        if self._current.get(key) is task:
            del self._current[key]
        if not task.cancelled():
            task.exception()  # retrieved, or asyncio logs it when every caller has left
