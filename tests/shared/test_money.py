"""Money: integer minor units, rounding half to even, and exact division into parts."""

from collections.abc import Callable
from decimal import ROUND_HALF_EVEN, Decimal, localcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from markethall.shared.kernel.model import MAX_AMOUNT
from markethall.shared.kernel.money import (
    EXPONENT_BY_CURRENCY,
    AmountOutOfRange,
    CurrencyMismatch,
    Money,
    sum_amounts,
)

amounts = st.integers(-MAX_AMOUNT, MAX_AMOUNT)
rates = st.decimals(0, 1, allow_nan=False, allow_infinity=False)


def euro(amount: int) -> Money:
    return Money(amount=amount, currency="EUR")


@pytest.mark.parametrize(
    ("currency", "exponent"),
    [("EUR", 2), ("USD", 2), ("JPY", 0), ("KRW", 0), ("ISK", 0), ("KWD", 3), ("TND", 3),
     ("CLF", 4), ("UYW", 4), ("XCG", 2)],
)  # fmt: skip
def test_exponent_follows_iso_4217(currency: str, exponent: int) -> None:
    assert EXPONENT_BY_CURRENCY[currency] == exponent


@pytest.mark.parametrize("currency", ["eur", "EU", "EURO", "XXX", "ABC", "", "€", "EUR\x00"])
def test_unknown_currency_is_rejected(currency: str) -> None:
    with pytest.raises(ValidationError):
        Money(amount=1, currency=currency)


@pytest.mark.parametrize("amount", [True, "1", 1.0, 1.5, None, MAX_AMOUNT + 1, -MAX_AMOUNT - 1])
def test_amount_is_integer_within_bounds(amount: object) -> None:
    with pytest.raises(ValidationError):
        Money.model_validate({"amount": amount, "currency": "EUR"})


def test_same_currency_adds_and_subtracts() -> None:
    assert euro(5) + euro(7) == euro(12)
    assert euro(5) - euro(7) == euro(-2)
    assert euro(5).multiply(3) == euro(15)


def test_different_currencies_are_not_added() -> None:
    yen = Money(amount=1, currency="JPY")

    with pytest.raises(CurrencyMismatch) as raised:
        euro(1) + yen
    with pytest.raises(CurrencyMismatch):
        euro(1) - yen
    with pytest.raises(CurrencyMismatch):
        sum_amounts([euro(1), yen], "EUR")

    assert raised.value.details == {"currencies": ["EUR", "JPY"]}


def test_empty_total_is_zero() -> None:
    assert sum_amounts([], "JPY") == Money(amount=0, currency="JPY")
    assert sum_amounts([euro(1), euro(2)], "EUR") == euro(3)


def test_overflow_is_a_client_error() -> None:
    most = euro(MAX_AMOUNT)
    ways: tuple[Callable[[], Money], ...] = (
        lambda: most + euro(1),
        lambda: euro(-MAX_AMOUNT) - euro(1),
        lambda: most.multiply(2),
        lambda: most.apply_rate(Decimal(2)),
        lambda: sum_amounts([most, most], "EUR"),
    )
    for grow in ways:
        with pytest.raises(AmountOutOfRange) as raised:
            grow()

        assert raised.value.status == 422


@pytest.mark.parametrize(
    ("amount", "rate", "part"),
    [(1, "0.5", 0), (3, "0.5", 2), (5, "0.5", 2), (-1, "0.5", 0), (-3, "0.5", -2),
     (1999, "0.19", 380), (1000, "0.0825", 82), (999, "0", 0), (999, "1", 999)],
)  # fmt: skip
def test_share_is_rounded_half_to_even(amount: int, rate: str, part: int) -> None:
    assert euro(amount).apply_rate(Decimal(rate)) == euro(part)


@given(amounts, rates)
def test_share_is_exact_for_any_rate_precision(amount: int, rate: Decimal) -> None:
    with localcontext(prec=2000):
        exact = (Decimal(amount) * rate).quantize(Decimal(1), ROUND_HALF_EVEN)

    assert euro(amount).apply_rate(rate).amount == int(exact)


@given(amounts, st.lists(st.integers(0, 10**12), min_size=1, max_size=50).filter(any))
def test_split_sums_exactly_and_parts_differ_by_less_than_one_unit(
    amount: int, weights: list[int]
) -> None:
    parts = euro(amount).allocate(weights)

    assert sum(part.amount for part in parts) == amount
    for part, weight in zip(parts, weights, strict=True):
        assert abs(part.amount * sum(weights) - amount * weight) < sum(weights)


@given(st.integers(0, 10**6), st.lists(st.integers(0, 9), min_size=2, max_size=9).filter(any))
def test_split_gives_zero_to_zero_weight(amount: int, weights: list[int]) -> None:
    parts = euro(amount).allocate(weights)

    assert all(part.amount == 0 for part, w in zip(parts, weights, strict=True) if w == 0)


def test_largest_remainder_gets_odd_unit() -> None:
    assert euro(100).allocate([1, 1, 1]) == (euro(34), euro(33), euro(33))
    assert euro(10).allocate([1, 2]) == (euro(3), euro(7))
    assert euro(-10).allocate([1, 1, 1]) == (euro(-3), euro(-3), euro(-4))


@pytest.mark.parametrize("weights", [[], [0, 0], [2, -1], [-1, -1]])
def test_zero_total_weight_is_rejected(weights: list[int]) -> None:
    with pytest.raises(ValueError, match="weights"):
        euro(1).allocate(weights)


def test_money_is_immutable() -> None:
    price = euro(1)

    with pytest.raises(ValidationError, match="frozen"):
        price.amount = 2
