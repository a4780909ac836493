from datetime import timedelta

from markethall.shared.kernel.clock import Clock
from markethall.shared.persistence.database import Database
from markethall.users.domain.login_failures import LOGIN_FAILURES_RETENTION, MAX_UNKNOWN_ACCOUNTS
from markethall.users.ports import ReadStore, Store


class SessionPurgeJob:
    """Periodic job that deletes expired sessions and old counts of failed logins."""

    def __init__(
        self, database: Database[ReadStore, Store], clock: Clock, interval: timedelta
    ) -> None:
        self._database = database
        self._clock = clock
        self._interval = interval
        self._next_run_at = clock()

    async def run_once(self) -> None:
        now = self._clock()
        # if the next run is more than one interval away, the clock was set back: run at once
        if now < self._next_run_at <= now + self._interval:
            return
        self._next_run_at = now + self._interval
        async with self._database.transaction() as store:
            await store.purge_sessions(now)
            await store.purge_login_failures(now - LOGIN_FAILURES_RETENTION, MAX_UNKNOWN_ACCOUNTS)
