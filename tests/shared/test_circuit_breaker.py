"""The circuit breaker, with a fake clock."""

import asyncio

import pytest

from markethall.shared.kernel.circuit_breaker import Breaker, BreakerOpen


class FakeClock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class CallFailed(Exception):
    """A failure that the breaker counts."""


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def breaker(clock: FakeClock) -> Breaker:
    return Breaker(clock, failure_threshold=3, cool_down_seconds=10)


def call(breaker: Breaker, error: BaseException | None = None) -> None:
    with breaker.guard(CallFailed):
        if error is not None:
            raise error


def state(breaker: Breaker) -> str:
    return breaker.state


def open_circuit(breaker: Breaker) -> None:
    for _ in range(3):
        with pytest.raises(CallFailed):
            call(breaker, CallFailed())


def test_opens_after_three_consecutive_failures(breaker: Breaker) -> None:
    open_circuit(breaker)

    assert state(breaker) == "open"
    with pytest.raises(BreakerOpen):
        call(breaker)


def test_success_resets_failure_count(breaker: Breaker) -> None:
    for _ in range(5):
        for _ in range(2):
            with pytest.raises(CallFailed):
                call(breaker, CallFailed())
        call(breaker)

    assert state(breaker) == "closed"


def test_successful_probe_closes_circuit(breaker: Breaker, clock: FakeClock) -> None:
    open_circuit(breaker)
    clock.now += 10

    assert state(breaker) == "half-open"
    call(breaker)

    assert state(breaker) == "closed"


def test_failed_probe_reopens_circuit(breaker: Breaker, clock: FakeClock) -> None:
    open_circuit(breaker)
    clock.now += 10
    with pytest.raises(CallFailed):
        call(breaker, CallFailed())

    clock.now += 9.9
    assert state(breaker) == "open"
    clock.now += 0.1
    assert state(breaker) == "half-open"


def test_only_one_probe_at_a_time(breaker: Breaker, clock: FakeClock) -> None:
    open_circuit(breaker)
    clock.now += 10

    with breaker.guard(CallFailed), pytest.raises(BreakerOpen):
        call(breaker)

    assert state(breaker) == "closed"


def test_abandoned_probe_allows_another(breaker: Breaker, clock: FakeClock) -> None:
    open_circuit(breaker)
    clock.now += 10
    with pytest.raises(asyncio.CancelledError):
        call(breaker, asyncio.CancelledError())

    assert state(breaker) == "half-open"
    call(breaker)

    assert state(breaker) == "closed"


def test_other_errors_do_not_count(breaker: Breaker) -> None:
    for _ in range(10):
        with pytest.raises(ZeroDivisionError):
            call(breaker, ZeroDivisionError())

    assert state(breaker) == "closed"


def test_late_failures_do_not_extend_cool_down(breaker: Breaker, clock: FakeClock) -> None:
    open_circuit(breaker)
    clock.now += 9
    breaker.record_failure()

    clock.now += 1

    assert state(breaker) == "half-open"


def test_late_success_closes_circuit(breaker: Breaker) -> None:
    open_circuit(breaker)

    breaker.record_success()

    call(breaker)
    assert state(breaker) == "closed"
