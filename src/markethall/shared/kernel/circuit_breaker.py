from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

MonotonicClock = Callable[[], float]
BreakerState = Literal["closed", "open", "half-open"]


class BreakerOpen(Exception):
    """The call was not made, because the circuit is open or its probe (a test call) is running."""


class Breaker:
    """A circuit breaker for the calls of one event loop.

    It opens after `failure_threshold` failures in a row. After the cool-down, it allows one call at
    a time, which is called a probe. Every success closes the circuit. A failure while the circuit
    is open belongs to a call that began earlier, so it does not extend the cool-down.
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
        """Allow the call and record its result. Raises BreakerOpen.

        Only exceptions of `failure_types` count as failures. Other exceptions, and cancellation, do
        not show whether the dependency works; they only end the probe.
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
        """Close the circuit, because the dependency has answered."""
        self._consecutive_failures = 0
        self._opened_at = None

    def record_failure(self) -> None:
        """Count a failure; open the circuit at the threshold."""
        self._consecutive_failures += 1
        if self._consecutive_failures >= self._failure_threshold and self.state != "open":
            self._opened_at = self._clock()

    def _admit(self) -> bool:
        """Allow the call, and tell whether it is a probe. Raises BreakerOpen."""
        if self._opened_at is None:
            return False
        if self._probing or self.state == "open":
            raise BreakerOpen
        self._probing = True
        return True
