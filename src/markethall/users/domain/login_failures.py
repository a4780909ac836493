"""The rules of failed logins."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from math import ceil
from typing import Final
from uuid import UUID

from markethall.shared.kernel.errors import TooManyRequests

# number of wrong passwords before the first delay; NIST 800-63B allows at most 100
FREE_LOGIN_FAILURES: Final = 10
FIRST_LOGIN_DELAY: Final = timedelta(seconds=30)
MAX_LOGIN_DELAY: Final = timedelta(days=1)
# a count of failures is deleted this long after the last attempt
LOGIN_FAILURES_RETENTION: Final = timedelta(days=30)
# the number of stored counts for logins that match no account; if there are more, the oldest are
# deleted
MAX_UNKNOWN_ACCOUNTS: Final = 100_000


def login_delay(failures: int) -> timedelta:
    """Return the delay before the next attempt. It doubles with each failure, up to a day."""
    if failures < FREE_LOGIN_FAILURES:
        return timedelta()
    # 16 doublings exceed the maximum delay, and many more would overflow timedelta
    doublings = min(failures - FREE_LOGIN_FAILURES, 16)
    return min(FIRST_LOGIN_DELAY * (1 << doublings), MAX_LOGIN_DELAY)


@dataclass
class LoginFailures:
    """The number of failed logins under one key since the latest success.

    The key identifies an account and a network if the user has signed in from this network before.
    Otherwise it identifies the account alone (decision 0020).
    """

    key_hash: bytes = field(repr=False)
    # None if the login matches no account
    user_id: UUID | None
    failures: int
    last_failed_at: datetime

    def begin(self, now: datetime) -> None:
        """Count an attempt as failed. Raises TooManyRequests during a delay.

        Call this before the password is verified, so that concurrent attempts are counted too.
        """
        wait = self.last_failed_at + login_delay(self.failures) - now
        if self.failures >= FREE_LOGIN_FAILURES and wait > timedelta():
            raise TooManyRequests(policy="login-account", retry_after=ceil(wait.total_seconds()))
        self.failures += 1
        self.last_failed_at = now
