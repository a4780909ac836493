"""One integrity report for many requests: concurrent requests share a run."""

from typing import Final

from markethall.container import ApplicationContainer
from markethall.operations.integrity import IntegrityReport, IntegrityRunner
from markethall.shared.kernel.shared_run import SharedRun

_REUSE_SECONDS: Final = 5.0


class SharedIntegrityReport:
    """Runs the checks at most once at a time, and reuses the report for a few seconds."""

    def __init__(self, max_run_seconds: float) -> None:
        self._max_run_seconds = max_run_seconds
        self._container: ApplicationContainer | None = None
        self._shared_run = SharedRun[IntegrityReport](_REUSE_SECONDS)

    async def get(self, container: ApplicationContainer) -> IntegrityReport:
        """Return a report of this container that is at most a few seconds old."""
        if self._container is not container:
            self._container = container
            self._shared_run = SharedRun[IntegrityReport](_REUSE_SECONDS)
        runner = IntegrityRunner(container, max_run_seconds=self._max_run_seconds)
        return await self._shared_run.get(runner.run)
