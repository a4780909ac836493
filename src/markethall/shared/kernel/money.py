"""Money in integer minor units of an ISO 4217 currency."""

import re
from collections.abc import Mapping
from typing import Annotated, Final, Self

import iso4217
from pydantic import AfterValidator, Field
from typing_extensions import TypeAliasType

from markethall.shared.kernel.errors import DomainError
from markethall.shared.kernel.model import MAX_AMOUNT, Dto, Int

_FUNDS: Final = frozenset({"BOV", "CHE", "CHW", "COU", "MXV", "USN", "XAD"})
# maps the code of each currency in use to the decimals of its minor unit (ISO 4217)
EXPONENT_BY_CURRENCY: Final[Mapping[str, int]] = {
    currency.code: currency.exponent
    for currency in iso4217.Currency
    # metals and test codes have no exponent; funds and units of account are in _FUNDS
    if currency.exponent is not None and currency.code not in _FUNDS
}


class AmountOutOfRange(DomainError):
    """A sum exceeds MAX_AMOUNT. Details: limit in minor units."""

    code = "money.amount_out_of_range"
    status = 422
    title = "The amount is out of range"


class CurrencyMismatch(DomainError):
    """Details: currencies, a list of their codes."""

    code = "money.currency_mismatch"
    status = 422
    title = "Amounts of different currencies cannot be added"


def _require_known_currency(code: str) -> str:
    if code not in EXPONENT_BY_CURRENCY:
        raise ValueError("must be an ISO 4217 currency code in capitals")
    return code


_KnownCurrency = Annotated[str, Field(strict=True), AfterValidator(_require_known_currency)]
# a currency in a request; its JSON schema lists all currencies
Currency = TypeAliasType(
    "Currency",
    Annotated[
        _KnownCurrency,
        Field(json_schema_extra={"enum": sorted(EXPONENT_BY_CURRENCY)}, examples=["EUR"]),
    ],
)


class Money(Dto):
    """An amount in minor units: 1999 EUR is 19.99 euro, 500 JPY is 500 yen."""

    amount: Annotated[Int, Field(ge=-MAX_AMOUNT, le=MAX_AMOUNT, examples=[1999])]
    # its JSON schema lists no currencies, because a newer release may send more of them
    currency: Annotated[_KnownCurrency, Field(examples=["EUR"])]

    @classmethod
    def zero(cls, currency: str) -> Self:
        return cls(amount=0, currency=currency)

    def __add__(self, other: "Money") -> "Money":
        """Add an amount. Raises CurrencyMismatch, AmountOutOfRange."""
        if other.currency != self.currency:
            raise CurrencyMismatch(currencies=sorted({self.currency, other.currency}))
        return self._with_amount(self.amount + other.amount)

    def __sub__(self, other: "Money") -> "Money":
        """Subtract an amount. Raises CurrencyMismatch, AmountOutOfRange."""
        return self + Money(amount=-other.amount, currency=other.currency)

    def _with_amount(self, amount: int) -> "Money":
        return money_in_range(amount, self.currency)


def money_in_range(amount: int, currency: str) -> Money:
    """Raises AmountOutOfRange."""
    if abs(amount) > MAX_AMOUNT:
        raise AmountOutOfRange(limit=MAX_AMOUNT)
    return Money(amount=amount, currency=currency)


_DECIMAL = re.compile(r"[0-9]{1,16}(?:\.[0-9]{1,8})?")


def format_major_units(amount: int, currency: str) -> str:
    """Format minor units as text: 1999 EUR is "19.99". The amount must not be negative."""
    exponent = EXPONENT_BY_CURRENCY[currency]
    digits = f"{amount:0{exponent + 1}d}"
    return f"{digits[:-exponent]}.{digits[-exponent:]}" if exponent else digits


def parse_major_units(text: str, currency: str) -> int:
    """Parse text such as "19.99" into minor units. Raises ValueError."""
    if currency not in EXPONENT_BY_CURRENCY or not _DECIMAL.fullmatch(text):
        raise ValueError("must be a decimal number such as 19.99")
    integer_part, _, fraction_part = text.partition(".")
    fraction_part = fraction_part.rstrip("0")
    if len(fraction_part) > EXPONENT_BY_CURRENCY[currency]:
        raise ValueError(f"has more decimals than {currency}")
    return int(integer_part + fraction_part.ljust(EXPONENT_BY_CURRENCY[currency], "0"))
