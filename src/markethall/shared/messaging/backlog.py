"""The backlog of an outbox or inbox: the waiting rows, the age of the oldest, and the metrics."""

import asyncio
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol

import structlog

from markethall.shared.kernel.clock import Clock
from markethall.shared.observability.metrics import (
    INBOX_LAG,
    INBOX_WAITING,
    OUTBOX_LAG,
    OUTBOX_UNPUBLISHED,
)

log = structlog.get_logger("markethall.backlog")

# the maximum count, so that the measurement of a large backlog is cheap
MAX_COUNT: Final = 10_000
# half a minute, because a process that is idle should send few statements
INTERVAL_SECONDS: Final = 30.0


@dataclass(frozen=True)
class Backlog:
    """The number of waiting rows, at most MAX_COUNT, and the time of the oldest; None if none."""

    count: int
    oldest_at: datetime | None


class Measurable(Protocol):
    async def measure_backlog(self) -> Backlog:
        """Return the current backlog. Raises Unavailable."""


class BacklogMonitor:
    """Measures the backlogs of one context while this process is its leader.

    Only the leader sets these metrics, so all processes together report one value per context.
    """

    def __init__(
        self,
        context: str,
        outbox: Measurable,
        inbox: Measurable,
        clock: Clock,
        interval: float = INTERVAL_SECONDS,
    ) -> None:
        self._context = context
        self._measured = (
            (outbox, OUTBOX_UNPUBLISHED, OUTBOX_LAG),
            (inbox, INBOX_WAITING, INBOX_LAG),
        )
        self._clock = clock
        self._interval = interval

    async def run(self) -> None:
        """Measure at the interval, until cancelled; then remove the values."""
        try:
            while True:
                await self._try_to_measure()
                await asyncio.sleep(self._interval)
        finally:
            self._remove_values()

    async def _try_to_measure(self) -> None:
        try:
            await self._measure()
        except Exception as error:  # noqa: BLE001 - a metric must not stop the work of the leader
            # without a value, an alert on a missing metric can report it
            self._remove_values()
            log.warning("backlog.not_measured", context=self._context, error=repr(error))

    async def _measure(self) -> None:
        for source, count, lag in self._measured:
            backlog = await source.measure_backlog()
            now = self._clock()
            count.labels(self._context).set(backlog.count)
            oldest_at = backlog.oldest_at or now
            lag.labels(self._context).set(max(0.0, (now - oldest_at).total_seconds()))

    def _remove_values(self) -> None:
        for _, count, lag in self._measured:
            count.remove(self._context)
            lag.remove(self._context)
