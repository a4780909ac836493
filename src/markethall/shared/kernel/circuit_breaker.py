"""A circuit breaker: what fails again and again is left alone for a while."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

MonotonicClock = Callable[[], float]
BreakerState = Literal["closed", "open", "half-open"]


class BreakerOpen(Exception):
    """The call was not made: it failed too often a moment ago, or somebody is probing right now."""


class Breaker:
    """Opens after `failures` in a row; `cool_down` seconds later lets one probe at a time through.

    For the calls of one event loop. A success closes it from any state, because it is proof. A
    failure that arrives while it is open belongs to a call from before, and does not prolong it.
    """

    def __init__(
        self, clock: MonotonicClock, *, failure_threshold: int = 3, cool_down_seconds: float = 1.0
    ) -> None:
        self._clock = clock
        self._failure_threshold = failure_threshold
        self._cool_down_seconds = cool_down_seconds
        self._consecutive_failures = 0
        self._opened_at: float | None = None
        self._probing = False

    @property
    def state(self) -> BreakerState:
        if self._opened_at is None:
            return "closed"
        has_cooled_down = self._clock() - self._opened_at >= self._cool_down_seconds
        return "half-open" if has_cooled_down else "open"

    @contextmanager
    def guard(self, failure_types: type[Exception] | tuple[type[Exception], ...]) -> Iterator[None]:
        """Raise BreakerOpen, or let the call through and learn from how it ends.

        Only the exceptions in `counts` are failures. Others, and giving up (cancellation), say
        nothing about the other side: they only free the place of the probe.
        """
        is_probe = self._admit()
        try:
            yield
            self.record_success()
        except failure_types:
            self.record_failure()
            raise
        finally:
            if is_probe:
                self._probing = False

    def record_success(self) -> None:
        """The other side answered."""
        self._consecutive_failures = 0
        self._opened_at = None

    def record_failure(self) -> None:
        """The other side did not answer."""
        self._consecutive_failures += 1
        if self._consecutive_failures >= self._failure_threshold and self.state != "open":
            self._opened_at = self._clock()

    def _admit(self) -> bool:
        """True for a probe."""
        if self._opened_at is None:
            return False
        if self._probing or self.state == "open":
            raise BreakerOpen
        self._probing = True
        return True
