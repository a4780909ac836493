"""Stripe's minor units, which differ from those of ISO 4217 for some currencies.

Source: https://docs.stripe.com/currencies, "Minor units in API amounts". HUF and TWD have two
decimals in charges and refunds; only payouts to the bank account are in whole units.
"""

from typing import Final

from markethall.shared.kernel.money import EXPONENT_BY_CURRENCY, Money

_ZERO_DECIMALS: Final = frozenset({
    "BIF", "CLP", "DJF", "GNF", "JPY", "KMF", "KRW", "MGA",
    "PYG", "RWF", "VND", "VUV", "XAF", "XOF", "XPF",
})  # fmt: skip
# amounts in thousandths; the last digit must be 0
_THREE_DECIMALS: Final = frozenset({"BHD", "JOD", "KWD", "OMR", "TND"})
# currencies without decimals whose API amounts nevertheless have two, which must be 00
_TWO_DECIMALS_OF_ZERO: Final = frozenset({"ISK", "UGX"})
# decimals of all other currencies; Stripe does not support currencies with more, such as IQD (3)
# and CLF (4)
_MAX_DECIMALS: Final = 2
# the currencies that the gateway sends to Stripe; Stripe itself rejects the few of them that it
# does not support
SUPPORTED_CURRENCIES: Final = frozenset(
    currency
    for currency, exponent in EXPONENT_BY_CURRENCY.items()
    if exponent <= _MAX_DECIMALS or currency in _THREE_DECIMALS
)


class AmountNotSupported(Exception):
    """Stripe does not support the currency, or the amount has more decimals than Stripe accepts."""


def to_stripe_amount(money: Money) -> int:
    """Convert to Stripe's minor units. Raises AmountNotSupported."""
    decimals = _decimals(money.currency)
    amount: int
    amount, rest = divmod(money.amount * 10**decimals, 10 ** EXPONENT_BY_CURRENCY[money.currency])
    if rest or amount % _step(money.currency):
        raise AmountNotSupported
    return amount


def from_stripe_amount(amount: int, currency: str) -> Money:
    """Convert from Stripe's minor units. Stripe writes `currency` in lower case.

    Raises AmountNotSupported.
    """
    code = currency.upper()
    decimals = _decimals(code)
    minor_units, rest = divmod(amount * 10 ** EXPONENT_BY_CURRENCY[code], 10**decimals)
    if rest:
        raise AmountNotSupported
    return Money(amount=minor_units, currency=code)


def _decimals(currency: str) -> int:
    """Return the number of decimals of the currency at Stripe. Raises AmountNotSupported."""
    if currency in _ZERO_DECIMALS:
        return 0
    if currency in _THREE_DECIMALS:
        return 3
    if currency not in SUPPORTED_CURRENCIES:
        raise AmountNotSupported
    return _MAX_DECIMALS


def _step(currency: str) -> int:
    if currency in _TWO_DECIMALS_OF_ZERO:
        return 100
    return 10 if currency in _THREE_DECIMALS else 1
