"""The discounts of promotions on the lines and the shipping of an order."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction
from typing import Final
from uuid import UUID

from markethall.orders.totals.domain.breakdown import (
    SHIPPING_KEY,
    AppliedDiscount,
    LineBreakdown,
    OrderParts,
    PricedLine,
    ShippingCharge,
    round_half_even,
    split_amount,
)


class PromotionKind(StrEnum):
    PERCENT = "percent"
    FIXED = "fixed"
    FREE_SHIPPING = "free_shipping"
    BUY_X_GET_Y = "buy_x_get_y"


@dataclass(frozen=True)
class PromotionRule:
    """The discount of a promotion. Amounts are in minor units of the order's currency.

    `percent` is 10 for 10 %. A promotion of the kind `fixed` gives a discount of `amount`. With
    `buy_x_get_y`, `get_quantity` of each `buy_quantity` + `get_quantity` units are discounted by
    `percent`. The discounted units are the cheapest ones of the matching lines.

    A promotion that names products, categories or tags applies only to the lines that have one of
    them. The promotion applies only if the subtotal is at least `min_total`.
    """

    promotion_id: UUID
    name: str
    kind: PromotionKind
    code: str | None = None
    percent: Decimal = Decimal(100)
    amount: int = 0
    buy_quantity: int = 1
    get_quantity: int = 1
    min_total: int = 0
    product_ids: frozenset[UUID] = frozenset()
    categories: frozenset[str] = frozenset()
    tags: frozenset[str] = frozenset()
    priority: int = 0
    stackable: bool = True

    def matches(self, line: PricedLine) -> bool:
        if not (self.product_ids or self.categories or self.tags):
            return True
        return (
            line.product_id in self.product_ids
            or bool(self.tags & line.tags)
            or bool(self.categories & line.categories)
        )

    def with_products_of(self, lines: Iterable[PricedLine]) -> "PromotionRule":
        """Return the rule with the products of the lines that it matches now.

        These lines still match after their products have lost the tag or the category.
        """
        if not (self.product_ids or self.categories or self.tags):
            return self
        matched = frozenset(line.product_id for line in lines if self.matches(line))
        return replace(self, product_ids=self.product_ids | matched)

    def applied(self, amount: int) -> AppliedDiscount:
        return AppliedDiscount(self.promotion_id, self.name, self.code, amount)


@dataclass(frozen=True)
class DiscountedOrder(OrderParts):
    """The lines and the shipping after all promotions, without taxes. Lines are sorted by key."""

    @property
    def promotion_ids(self) -> frozenset[UUID]:
        """The ids of the promotions that give the order a discount."""
        return frozenset(
            discount.promotion_id for part in self.parts for discount in part.discounts
        )


def apply_promotions(
    lines: Sequence[PricedLine],
    promotions: Iterable[PromotionRule],
    shipping: ShippingCharge | None = None,
) -> DiscountedOrder:
    """Apply promotions by descending priority, each to the amounts that the earlier ones left.

    A promotion that is not stackable applies only if no other promotion does. The result does not
    depend on the order of the lines or of the promotions.
    """
    by_key = {line.key: line for line in sorted(lines, key=lambda line: line.key)}
    order = DiscountedOrder(
        tuple(_undiscounted(line) for line in by_key.values()),
        LineBreakdown(SHIPPING_KEY, shipping.price, 1, shipping.tax_class) if shipping else None,
    )
    subtotal = sum(line.subtotal for line in lines)
    for rule in sorted(promotions, key=lambda rule: (-rule.priority, rule.promotion_id)):
        if subtotal < rule.min_total or (order.discount and not rule.stackable):
            continue
        matching = frozenset(key for key, line in by_key.items() if rule.matches(line))
        discounted = _apply(rule, order, matching)
        if discounted.discount > order.discount and not rule.stackable:
            return discounted
        order = discounted
    return order


def _undiscounted(line: PricedLine) -> LineBreakdown:
    return LineBreakdown(line.key, line.unit_price, line.quantity, line.tax_class)


def _apply(
    rule: PromotionRule, order: DiscountedOrder, matching: frozenset[UUID]
) -> DiscountedOrder:
    shipping = order.shipping_line
    if rule.kind is PromotionKind.FREE_SHIPPING:
        if shipping and matching:
            shipping = shipping.add_discount(rule.applied(shipping.taxable))
        return DiscountedOrder(order.lines, shipping)
    matched = [line for line in order.lines if line.key in matching]
    amounts = dict(
        zip((line.key for line in matched), _LINE_DISCOUNTS[rule.kind](rule, matched), strict=True)
    )
    lines = (line.add_discount(rule.applied(amounts.get(line.key, 0))) for line in order.lines)
    return DiscountedOrder(tuple(lines), shipping)


def _percent_of(amount: int, percent: Decimal) -> int:
    return round_half_even(amount * Fraction(percent) / 100)


def _percent_off(rule: PromotionRule, lines: Sequence[LineBreakdown]) -> list[int]:
    return [_percent_of(line.taxable, rule.percent) for line in lines]


def _amount_off(rule: PromotionRule, lines: Sequence[LineBreakdown]) -> list[int]:
    weights = [line.taxable for line in lines]
    return split_amount(min(rule.amount, sum(weights)), weights)


def _cheapest_units_off(rule: PromotionRule, lines: Sequence[LineBreakdown]) -> list[int]:
    """Discount the cheapest units. Lines with the same unit price are sorted by key."""
    left = _discounted_units(rule, sum(line.quantity for line in lines))
    units: dict[UUID, int] = {}
    for line in sorted(lines, key=lambda line: (line.unit_price, line.key)):
        units[line.key] = min(left, line.quantity)
        left -= units[line.key]
    return [
        round_half_even(
            Fraction(line.taxable * units[line.key], line.quantity) * Fraction(rule.percent) / 100
        )
        for line in lines
    ]


def _discounted_units(rule: PromotionRule, units: int) -> int:
    groups, left_over = divmod(units, rule.buy_quantity + rule.get_quantity)
    return groups * rule.get_quantity + max(0, left_over - rule.buy_quantity)


_LINE_DISCOUNTS: Final[
    Mapping[PromotionKind, Callable[[PromotionRule, Sequence[LineBreakdown]], list[int]]]
] = {
    PromotionKind.PERCENT: _percent_off,
    PromotionKind.FIXED: _amount_off,
    PromotionKind.BUY_X_GET_Y: _cheapest_units_off,
}
