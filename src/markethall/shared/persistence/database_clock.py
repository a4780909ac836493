"""The time of a database, for decisions that cannot be undone."""

import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

import structlog

from markethall.shared.kernel.clock import Clock, utc_now

log = structlog.get_logger("markethall.database")

_TOLERANCE: Final = timedelta(seconds=0.5)
_MIN_LOGGED: Final = timedelta(seconds=5)


class DatabaseClock:
    """Returns the time of the database without a query for each call.

    All processes of a context write and compare times in one database. A process whose own clock is
    wrong would delete idempotency keys, expire orders or take over leases too early. So this clock
    is compared with the database at each new connection and at each heartbeat of the background
    work. In between it advances by a monotonic clock, which does not jump when the time of the
    machine is set.
    """

    def __init__(
        self, system_clock: Clock = utc_now, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._monotonic = monotonic
        self.corrections = 0
        self._set(system_clock())

    def __call__(self) -> datetime:
        return self._time + timedelta(seconds=self._monotonic() - self._set_at)

    def compare(self, asked_at: datetime, database_time: datetime) -> None:
        """Correct this clock if it differs from the time that the database has returned.

        `asked_at` is the time of this clock before the statement. The database has read its time
        between `asked_at` and now, so a slow response does not look like a difference.
        """
        now = self()
        if asked_at - _TOLERANCE <= database_time <= now + _TOLERANCE:
            return
        self._set(database_time)
        self.corrections += 1
        if abs(database_time - now) > _MIN_LOGGED:
            seconds = round((now - database_time).total_seconds(), 1)
            log.warning("database.clock_corrected", seconds=seconds)

    def _set(self, now: datetime) -> None:
        self._time, self._set_at = now, self._monotonic()
