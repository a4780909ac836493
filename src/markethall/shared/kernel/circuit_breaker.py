"""Circuit breaker: stops calls to a dependency that fails repeatedly."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

MonotonicClock = Callable[[], float]
BreakerState = Literal["closed", "open", "half-open"]


class BreakerOpen(Exception):
    """The call was not made: the circuit is open, or a probe is running."""


class Breaker:
    """Opens after `failure_threshold` failures in a row; after the cool-down admits single probes.

    For the calls of one event loop. A success closes the circuit from any state. A failure while it
    is open belongs to an earlier call, and does not extend the cool-down.
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
        """Admit the call and record its result. Raises BreakerOpen.

        Only `failure_types` are failures. Other exceptions and cancellation show nothing about the
        dependency: they only end the probe.
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
        """Close the circuit: the dependency responded."""
        self._consecutive_failures = 0
        self._opened_at = None

    def record_failure(self) -> None:
        """Count a failure; open the circuit at the threshold."""
        self._consecutive_failures += 1
        if self._consecutive_failures >= self._failure_threshold and self.state != "open":
            self._opened_at = self._clock()

    def _admit(self) -> bool:
        """Return whether the call is a probe. Raises BreakerOpen."""
        if self._opened_at is None:
            return False
        if self._probing or self.state == "open":
            raise BreakerOpen
        self._probing = True
        return True
