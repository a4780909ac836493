"""The tax of a line by its rates, and the total of an order with the taxes of its parts."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction
from math import lcm
from typing import NamedTuple
from uuid import UUID

from markethall.orders.totals.contract import TotalTooLarge
from markethall.orders.totals.domain.breakdown import (
    Breakdown,
    LineBreakdown,
    PricedLine,
    ShippingCharge,
    TaxLine,
    round_half_even,
    split_amount,
)
from markethall.orders.totals.domain.promotions import DiscountedOrder
from markethall.shared.kernel.model import MAX_AMOUNT


class NamedRate(NamedTuple):
    """A tax rate and the name that customers see; a rate of 0.19 is 19 %."""

    name: str
    rate: Decimal


@dataclass(frozen=True)
class TaxRules:
    """The rates of each tax class at one destination. The rates of a class have the same base."""

    rates: Mapping[str, Sequence[NamedRate]]
    prices_include_tax: bool = False

    def tax_lines(self, line: LineBreakdown) -> tuple[TaxLine, ...]:
        """Return the taxes of a line. Their sum is rounded once and then split over the rates."""
        rates = sorted(self.rates.get(line.tax_class or "", ()))
        combined = sum(Fraction(rate.rate) for rate in rates)
        if not combined:
            return ()
        base = combined / (1 + combined) if self.prices_include_tax else combined
        tax = round_half_even(line.taxable * base)
        parts = split_amount(tax, _weights(rates))
        return tuple(
            TaxLine(rate.name, rate.rate, part) for rate, part in zip(rates, parts, strict=True)
        )


def _weights(rates: Sequence[NamedRate]) -> list[int]:
    """Return integers with the same ratios as the rates."""
    fractions = [Fraction(rate.rate) for rate in rates]
    scale = lcm(*(fraction.denominator for fraction in fractions))
    return [int(fraction * scale) for fraction in fractions]


def check_subtotal(lines: Iterable[PricedLine]) -> None:
    """Raises TotalTooLarge."""
    if sum(line.subtotal for line in lines) > MAX_AMOUNT:
        raise TotalTooLarge(limit=MAX_AMOUNT)


def add_taxes(
    keys: Sequence[UUID],
    order: DiscountedOrder,
    shipping: ShippingCharge | None,
    taxes: Mapping[UUID, tuple[TaxLine, ...]],
    prices_include_tax: bool,
) -> Breakdown:
    """Return the breakdown with the taxes of each part, by its key. Raises TotalTooLarge.

    `keys` are the keys of the lines, in the order in which the breakdown lists them.
    """

    def with_tax(part: LineBreakdown) -> LineBreakdown:
        return replace(
            part, tax_lines=taxes.get(part.key, ()), prices_include_tax=prices_include_tax
        )

    lines = {line.key: with_tax(line) for line in order.lines}
    breakdown = Breakdown(
        lines=tuple(lines[key] for key in keys),
        shipping_line=with_tax(order.shipping_line) if order.shipping_line else None,
        shipping_charge=shipping,
        prices_include_tax=prices_include_tax,
    )
    if max(breakdown.total, breakdown.subtotal + breakdown.shipping) > MAX_AMOUNT:
        raise TotalTooLarge(limit=MAX_AMOUNT)
    return breakdown
