"""The circuit breaker, by a clock that only the test moves."""

import asyncio

import pytest

from markethall.shared.breaker import Breaker, BreakerOpen


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Broken(Exception):
    """The other side did not answer."""


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker(clock, failures=3, cool_down=10)


def call(breaker: Breaker, error: BaseException | None = None) -> None:
    with breaker.guard(Broken):
        if error is not None:
            raise error


def state(breaker: Breaker) -> str:
    return breaker.state


def break_it(breaker: Breaker) -> None:
    for _ in range(3):
        with pytest.raises(Broken):
            call(breaker, Broken())


def test_it_opens_after_three_failures_in_a_row(breaker: Breaker) -> None:
    break_it(breaker)

    assert state(breaker) == "open"
    with pytest.raises(BreakerOpen):
        call(breaker)


def test_a_success_in_between_starts_the_count_anew(breaker: Breaker) -> None:
    for _ in range(5):
        for _ in range(2):
            with pytest.raises(Broken):
                call(breaker, Broken())
        call(breaker)

    assert state(breaker) == "closed"


def test_after_the_cool_down_a_good_probe_closes_it(breaker: Breaker, clock: Clock) -> None:
    break_it(breaker)
    clock.now += 10

    assert state(breaker) == "half-open"
    call(breaker)

    assert state(breaker) == "closed"


def test_a_bad_probe_opens_it_for_another_cool_down(breaker: Breaker, clock: Clock) -> None:
    break_it(breaker)
    clock.now += 10
    with pytest.raises(Broken):
        call(breaker, Broken())

    clock.now += 9.9
    assert state(breaker) == "open"
    clock.now += 0.1
    assert state(breaker) == "half-open"


def test_only_one_probe_at_a_time_is_let_through(breaker: Breaker, clock: Clock) -> None:
    break_it(breaker)
    clock.now += 10

    with breaker.guard(Broken), pytest.raises(BreakerOpen):
        call(breaker)

    assert state(breaker) == "closed"


def test_a_probe_that_was_given_up_makes_room_for_the_next(breaker: Breaker, clock: Clock) -> None:
    break_it(breaker)
    clock.now += 10
    with pytest.raises(asyncio.CancelledError):
        call(breaker, asyncio.CancelledError())

    assert state(breaker) == "half-open"
    call(breaker)

    assert state(breaker) == "closed"


def test_other_errors_say_nothing_about_the_other_side(breaker: Breaker) -> None:
    for _ in range(10):
        with pytest.raises(ZeroDivisionError):
            call(breaker, ZeroDivisionError())

    assert state(breaker) == "closed"


def test_failures_of_calls_from_before_do_not_prolong_the_cool_down(
    breaker: Breaker, clock: Clock
) -> None:
    break_it(breaker)
    clock.now += 9
    breaker.fail()

    clock.now += 1

    assert state(breaker) == "half-open"


def test_a_success_of_a_call_from_before_closes_it(breaker: Breaker) -> None:
    break_it(breaker)

    breaker.succeed()

    call(breaker)
    assert state(breaker) == "closed"
