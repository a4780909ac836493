"""One integrity report for many requests: concurrent requests share a run."""

import asyncio
from typing import Final

from markethall.container import ApplicationContainer
from markethall.operations.integrity import IntegrityReport, IntegrityRunner

_REUSE_SECONDS: Final = 5.0


class SharedIntegrityReport:
    """Runs the checks at most once at a time, and reuses the report for a few seconds.

    A run continues when its request is cancelled, because other requests may wait for it.
    """

    def __init__(self, max_run_seconds: float) -> None:
        self._max_run_seconds = max_run_seconds
        self._run: asyncio.Task[IntegrityReport] | None = None
        self._container: ApplicationContainer | None = None
        self._expires_at = 0.0

    async def get(self, container: ApplicationContainer) -> IntegrityReport:
        """Return a report of this container that is at most a few seconds old."""
        if self._run is None or not self._is_usable(container):
            runner = IntegrityRunner(container, max_run_seconds=self._max_run_seconds)
            self._container = container
            self._run = asyncio.create_task(self._finish(runner))
        return await asyncio.shield(self._run)

    async def _finish(self, runner: IntegrityRunner) -> IntegrityReport:
        try:
            return await runner.run()
        finally:
            self._expires_at = asyncio.get_running_loop().time() + _REUSE_SECONDS

    def _is_usable(self, container: ApplicationContainer) -> bool:
        """Tell whether the run of this container is running, or has succeeded a few seconds ago."""
        if self._run is None or self._container is not container:
            return False
        if not self._run.done():
            return True
        has_failed = self._run.cancelled() or self._run.exception() is not None
        return not has_failed and asyncio.get_running_loop().time() < self._expires_at
