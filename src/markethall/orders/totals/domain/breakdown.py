"""The breakdown of the total of an order, and how amounts are split and shared.

All amounts are in minor units of one currency.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction
from typing import Final, NamedTuple
from uuid import UUID

# the key of the shipping charge, where lines are identified by key
SHIPPING_KEY: Final = UUID(int=0)


def split_amount(amount: int, weights: Sequence[int]) -> list[int]:
    """Divide the amount in proportion to the weights, by the largest-remainder method.

    Of parts with equal remainders, the earlier parts of the sequence get the minor units that are
    left. The parts sum to the amount. If all weights are 0, all parts are 0.
    """
    total = sum(weights)
    if not total:
        return [0] * len(weights)
    parts = [amount * weight // total for weight in weights]
    remainders = [amount * weight % total for weight in weights]
    by_remainder = sorted(range(len(weights)), key=lambda i: (-remainders[i], i))
    for i in by_remainder[: amount - sum(parts)]:
        parts[i] += 1
    return parts


def round_half_even(amount: Fraction) -> int:
    return round(amount)


def share_of_units(amount: int, quantity: int, first: int, units: int) -> int:
    """Return the share of `units` consecutive units in an amount of the whole line.

    `first` is the index of the first of these units. The amount is split equally over the
    `quantity` units of the line, and each of the first units gets one minor unit of the remainder.
    """
    return _share_before(amount, quantity, first + units) - _share_before(amount, quantity, first)


def _share_before(amount: int, quantity: int, units: int) -> int:
    part, left_over = divmod(amount, quantity)
    return part * units + min(units, left_over)


class LineShare(NamedTuple):
    """The amounts of some units of a line. `included_tax` is contained in `amount`."""

    price: int
    discount: int
    tax: int
    included_tax: int

    @property
    def amount(self) -> int:
        """The amount that the customer pays for these units."""
        return self.price - self.discount + self.tax


@dataclass(frozen=True)
class PricedLine:
    """Units of one product and their price. `key` identifies the line.

    A line without a tax class is not taxed. `categories` are the category of the product and the
    categories above it.
    """

    key: UUID
    product_id: UUID
    unit_price: int
    quantity: int
    tax_class: str | None = None
    categories: frozenset[str] = frozenset()
    tags: frozenset[str] = frozenset()

    @property
    def subtotal(self) -> int:
        return self.unit_price * self.quantity


@dataclass(frozen=True)
class ShippingCharge:
    """The price of a shipping method. Without a tax class it is not taxed."""

    code: str
    name: str
    price: int
    tax_class: str | None = None


@dataclass(frozen=True)
class AppliedDiscount:
    """The discount of one promotion, on a part of an order or on the whole order."""

    promotion_id: UUID
    name: str
    code: str | None
    amount: int


@dataclass(frozen=True)
class TaxLine:
    """The tax of one rate; a rate of 0.19 is 19 %."""

    name: str
    rate: Decimal
    amount: int


@dataclass(frozen=True)
class LineBreakdown:
    """The price, discounts and taxes of a line, or of the shipping charge as quantity 1."""

    key: UUID
    unit_price: int
    quantity: int
    tax_class: str | None = None
    discounts: tuple[AppliedDiscount, ...] = ()
    tax_lines: tuple[TaxLine, ...] = ()
    prices_include_tax: bool = False

    @property
    def subtotal(self) -> int:
        return self.unit_price * self.quantity

    @property
    def discount(self) -> int:
        return sum(discount.amount for discount in self.discounts)

    @property
    def taxable(self) -> int:
        """The base of the tax: the subtotal without discounts."""
        return self.subtotal - self.discount

    @property
    def tax(self) -> int:
        """The tax that is added to the price."""
        return 0 if self.prices_include_tax else self._tax_sum

    @property
    def included_tax(self) -> int:
        """The tax that the price contains."""
        return self._tax_sum if self.prices_include_tax else 0

    @property
    def total(self) -> int:
        """The amount that the customer pays."""
        return self.taxable + self.tax

    @property
    def _tax_sum(self) -> int:
        return sum(line.amount for line in self.tax_lines)

    def add_discount(self, discount: AppliedDiscount) -> "LineBreakdown":
        """Return a copy with the discount added, or this line if the discount is 0."""
        if not discount.amount:
            return self
        return replace(self, discounts=(*self.discounts, discount))

    def share(self, first: int, units: int) -> LineShare:
        """Return the amounts of `units` consecutive units, from the index `first` on."""

        def part(amount: int) -> int:
            return share_of_units(amount, self.quantity, first, units)

        return LineShare(
            self.unit_price * units, part(self.discount), part(self.tax), part(self.included_tax)
        )


@dataclass(frozen=True)
class OrderParts:
    """The lines and the shipping of an order."""

    lines: tuple[LineBreakdown, ...]
    shipping_line: LineBreakdown | None = None

    @property
    def parts(self) -> tuple[LineBreakdown, ...]:
        return (*self.lines, self.shipping_line) if self.shipping_line else self.lines

    @property
    def discount(self) -> int:
        return sum(part.discount for part in self.parts)


@dataclass(frozen=True)
class Breakdown(OrderParts):
    """The total of an order and all its parts: total = subtotal - discount + shipping + tax.

    `shipping` is the price of shipping before discounts, so `discount` contains its discounts too.
    """

    shipping_charge: ShippingCharge | None = None
    prices_include_tax: bool = False

    @property
    def subtotal(self) -> int:
        return sum(line.subtotal for line in self.lines)

    @property
    def shipping(self) -> int:
        return self.shipping_line.subtotal if self.shipping_line else 0

    @property
    def tax(self) -> int:
        """The tax that is added to the prices."""
        return sum(part.tax for part in self.parts)

    @property
    def included_tax(self) -> int:
        """The tax that the prices contain."""
        return sum(part.included_tax for part in self.parts)

    @property
    def total(self) -> int:
        return self.subtotal - self.discount + self.shipping + self.tax

    @property
    def discounts(self) -> tuple[AppliedDiscount, ...]:
        """The discounts of the order: one per promotion."""
        return sum_discounts(part.discounts for part in self.parts)

    @property
    def tax_lines(self) -> tuple[TaxLine, ...]:
        """The taxes of the order: one per name and rate."""
        return sum_tax_lines(part.tax_lines for part in self.parts)


def sum_discounts(parts: Iterable[Sequence[AppliedDiscount]]) -> tuple[AppliedDiscount, ...]:
    """Add up the discounts of each promotion, in the order in which they first occur."""
    sums: dict[UUID, AppliedDiscount] = {}
    for discount in (discount for part in parts for discount in part):
        known = sums.get(discount.promotion_id)
        amount = discount.amount + (known.amount if known else 0)
        sums[discount.promotion_id] = replace(discount, amount=amount)
    return tuple(sums.values())


def sum_tax_lines(parts: Iterable[Sequence[TaxLine]]) -> tuple[TaxLine, ...]:
    """Add up the taxes of each name and rate, sorted by name and rate."""
    sums: dict[tuple[str, Decimal], int] = {}
    for line in (line for part in parts for line in part):
        sums[line.name, line.rate] = sums.get((line.name, line.rate), 0) + line.amount
    return tuple(TaxLine(name, rate, amount) for (name, rate), amount in sorted(sums.items()))
