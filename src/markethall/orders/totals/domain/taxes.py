"""The tax of a line by its rates."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from math import lcm
from typing import NamedTuple

from markethall.orders.totals.domain.amounts import round_half_even, split_amount
from markethall.orders.totals.domain.breakdown import LineBreakdown, TaxLine


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
