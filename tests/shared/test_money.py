"""Money: integer minor units of one currency."""

from collections.abc import Callable

import pytest
from pydantic import ValidationError

from markethall.shared.kernel.model import MAX_AMOUNT
from markethall.shared.kernel.money import (
    EXPONENT_BY_CURRENCY,
    AmountOutOfRange,
    CurrencyMismatch,
    Money,
)


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


def test_different_currencies_are_not_added() -> None:
    yen = Money(amount=1, currency="JPY")

    with pytest.raises(CurrencyMismatch) as raised:
        euro(1) + yen
    with pytest.raises(CurrencyMismatch):
        euro(1) - yen

    assert raised.value.details == {"currencies": ["EUR", "JPY"]}


def test_overflow_is_a_client_error() -> None:
    most = euro(MAX_AMOUNT)
    ways: tuple[Callable[[], Money], ...] = (
        lambda: most + euro(1),
        lambda: euro(-MAX_AMOUNT) - euro(1),
    )
    for grow in ways:
        with pytest.raises(AmountOutOfRange) as raised:
            grow()

        assert raised.value.status == 422


def test_money_is_immutable() -> None:
    price = euro(1)

    with pytest.raises(ValidationError, match="frozen"):
        price.amount = 2
