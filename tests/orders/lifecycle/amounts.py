"""The amounts of a model order, calculated without the code under test.

The shop has two products, one shipping method and a tax of 19 % that is added to the prices.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from fractions import Fraction
from typing import Any, Final, NamedTuple

PRICES: Final = (1009, 701)
SHIPPING: Final = 499
TAX_PERCENT: Final = 19
# an automatic promotion: 5 % off each order with at least this subtotal
BULK_MIN_SUBTOTAL: Final = 4000
BULK_PERCENT: Final = 5
# number of units by index of the product
Units = Mapping[int, int]
Discounts = dict[int, int]


def percent_of(amount: int, percent: int) -> int:
    return round(Fraction(amount * percent, 100))  # half to even


def subtotals(units: Units) -> dict[int, int]:
    return {index: PRICES[index] * number for index, number in units.items()}


def _fifteen_percent(units: Units) -> Discounts:
    return {index: percent_of(amount, 15) for index, amount in subtotals(units).items()}


def _amount_off(units: Units) -> Discounts:
    """Split the amount by the largest-remainder method."""
    exact = {
        i: Fraction(251 * n, sum(subtotals(units).values())) for i, n in subtotals(units).items()
    }
    parts = {index: int(part) for index, part in exact.items()}
    if sum(parts.values()) < 251:
        parts[max(exact, key=lambda index: exact[index] - parts[index])] += 1
    return parts


def _third_unit_free(units: Units) -> Discounts:
    """For every three units, one of the cheapest units is free."""
    prices = sorted(
        (PRICES[index], index) for index, number in units.items() for _ in range(number)
    )
    discounts = dict.fromkeys(units, 0)
    for price, index in prices[: len(prices) // 3]:
        discounts[index] += price
    return discounts


def _nothing(units: Units) -> Discounts:
    return dict.fromkeys(units, 0)


class Voucher(NamedTuple):
    """A promotion with a code. `fields` are the fields of the request that creates it."""

    fields: Mapping[str, Any]
    discount: Callable[[Units], Discounts]
    frees_shipping: bool = False
    max_uses: int | None = None
    max_uses_per_customer: int | None = None
    # the time since the start of the test
    starts_after: timedelta | None = None
    ends_after: timedelta | None = None


VOUCHERS: Final = {
    "PERCENT": Voucher({"kind": "percent", "percent": "15"}, _fifteen_percent, max_uses=2),
    "FIXED": Voucher(
        {"kind": "fixed", "amounts": [{"amount": 251, "currency": "EUR"}]},
        _amount_off,
        max_uses_per_customer=1,
    ),
    "THIRD": Voucher(
        {"kind": "buy_x_get_y", "buy_quantity": 2, "get_quantity": 1}, _third_unit_free
    ),
    "SHIP": Voucher(
        {"kind": "free_shipping"}, _nothing, frees_shipping=True, ends_after=timedelta(minutes=20)
    ),
    "LATER": Voucher(
        {"kind": "percent", "percent": "100"}, _nothing, starts_after=timedelta(days=365)
    ),
}
CODES: Final = (None, *VOUCHERS)


@dataclass(frozen=True)
class Amounts:
    """The amounts of an order. `units` has, by product, the amount paid for each unit."""

    subtotal: int
    discount: int
    tax: int
    units: Mapping[int, tuple[int, ...]]
    # the price of shipping, minus its discount, plus its tax
    shipping_paid: int
    # the discount of the voucher
    voucher_discount: int
    # whether the promotion without a code takes something off
    has_bulk_discount: bool

    @property
    def total(self) -> int:
        return sum(map(sum, self.units.values())) + self.shipping_paid


def calculate(units: Units, code: str | None, *, may_have_bulk: bool = True) -> Amounts:
    """Without `may_have_bulk`, the promotion without a code does not apply."""
    voucher = VOUCHERS[code] if code else None
    full = subtotals(units)
    by_voucher = voucher.discount(units) if voucher else _nothing(units)
    discounts = dict(by_voucher)
    has_bulk = may_have_bulk and sum(full.values()) >= BULK_MIN_SUBTOTAL
    if has_bulk:
        for index, amount in full.items():
            discounts[index] += percent_of(amount - by_voucher[index], BULK_PERCENT)
    taxes = {i: percent_of(amount - discounts[i], TAX_PERCENT) for i, amount in full.items()}
    shipping_discount = SHIPPING if voucher and voucher.frees_shipping else 0
    shipping_tax = percent_of(SHIPPING - shipping_discount, TAX_PERCENT)
    return Amounts(
        subtotal=sum(full.values()),
        discount=sum(discounts.values()) + shipping_discount,
        tax=sum(taxes.values()) + shipping_tax,
        units={
            index: tuple(
                PRICES[index] - discount + tax
                for discount, tax in zip(
                    split_over_units(discounts[index], number),
                    split_over_units(taxes[index], number),
                    strict=True,
                )
            )
            for index, number in units.items()
        },
        shipping_paid=SHIPPING - shipping_discount + shipping_tax,
        voucher_discount=sum(by_voucher.values()) + shipping_discount,
        has_bulk_discount=has_bulk,
    )


def split_over_units(amount: int, number: int) -> list[int]:
    """Split equally. If a remainder is left, each of the first units gets one minor unit of it."""
    return [amount // number + (1 if unit < amount % number else 0) for unit in range(number)]


def promotion_fields(code: str, start: datetime) -> dict[str, Any]:
    """Return the fields of the request that creates the voucher."""
    voucher = VOUCHERS[code]
    times = {
        "starts_at": voucher.starts_after and start + voucher.starts_after,
        "ends_at": voucher.ends_after and start + voucher.ends_after,
        "usage_limit": voucher.max_uses,
        "per_customer_limit": voucher.max_uses_per_customer,
    }
    given = {name: value for name, value in times.items() if value is not None}
    return {"name": code, "code": code, "priority": 1, **voucher.fields, **given}
