"""The inputs of the worked examples in worked_examples.md, and the steps that total them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from markethall.orders.totals.domain import (
    Breakdown,
    NamedRate,
    PricedLine,
    PromotionKind,
    PromotionRule,
    ShippingCharge,
    TaxRules,
    add_taxes,
    apply_promotions,
    check_subtotal,
)

NO_TAX: Final = TaxRules({})


def calculate_totals(
    lines: Sequence[PricedLine],
    promotions: Iterable[PromotionRule] = (),
    shipping: ShippingCharge | None = None,
    tax: TaxRules = NO_TAX,
) -> Breakdown:
    """Total an order in the steps of `Pricing.quote`, with rules instead of calculators.

    The lines of the breakdown are in the order of `lines`. Raises TotalTooLarge.
    """
    check_subtotal(lines)
    discounted = apply_promotions(lines, promotions, shipping)
    taxes = {part.key: tax.tax_lines(part) for part in discounted.parts}
    return add_taxes(
        [line.key for line in lines], discounted, shipping, taxes, tax.prices_include_tax
    )


@dataclass(frozen=True)
class Example:
    lines: Mapping[str, PricedLine]
    promotions: Sequence[PromotionRule] = ()
    shipping: ShippingCharge | None = None
    tax: TaxRules = NO_TAX

    def breakdown(self) -> Breakdown:
        return calculate_totals(list(self.lines.values()), self.promotions, self.shipping, self.tax)


def lines(**fields: tuple[int, int, str | None]) -> dict[str, PricedLine]:
    """Build lines by name from (quantity, unit price, tax class)."""
    return {
        name: PricedLine(
            UUID(int=number),
            UUID(int=1000 + number),
            unit_price,
            quantity,
            tax_class,
            tags=frozenset({name}),
        )
        for number, (name, (quantity, unit_price, tax_class)) in enumerate(fields.items(), 1)
    }


def rates(**by_class: str | Mapping[str, str]) -> dict[str, list[NamedRate]]:
    """Build the rates of each tax class: one rate, or several by name."""
    return {
        tax_class: [
            NamedRate(name, Decimal(rate))
            for name, rate in ({"VAT": given} if isinstance(given, str) else given).items()
        ]
        for tax_class, given in by_class.items()
    }


def rule(number: int, kind: PromotionKind, **fields: Any) -> PromotionRule:
    """Build a promotion. A higher number has a lower priority."""
    return PromotionRule(UUID(int=number), f"promotion {number}", kind, priority=-number, **fields)


PERCENT, FIXED = PromotionKind.PERCENT, PromotionKind.FIXED
FREE_SHIPPING, BUY_X_GET_Y = PromotionKind.FREE_SHIPPING, PromotionKind.BUY_X_GET_Y


def shipping(price: int) -> ShippingCharge:
    return ShippingCharge("post", "Post", price, "standard")


DE_LINES = lines(tea=(3, 499, "reduced"), kettle=(1, 5995, "standard"))
DE_TAX = TaxRules(rates(standard="0.19", reduced="0.07"), prices_include_tax=True)
US_LINES = lines(mug=(2, 1250, "standard"), book=(1, 999, "untaxed"), cable=(3, 333, "standard"))
US_TAX = TaxRules(rates(standard="0.08875"))
US_TAX_IN_PARTS = TaxRules(
    rates(standard={"state": "0.04", "city": "0.045", "district": "0.00375"})
)
JP_LINES = lines(bento=(3, 498, "reduced"), pan=(1, 3980, "standard"))
JP_RATES = rates(standard="0.1", reduced="0.08")
JP_INCLUDED, JP_ADDED = TaxRules(JP_RATES, prices_include_tax=True), TaxRules(JP_RATES)

EXAMPLES = {
    "D1": Example(DE_LINES, (), shipping(490), DE_TAX),
    "D2": Example(
        DE_LINES,
        (rule(1, PERCENT, percent=Decimal(10)), rule(2, FIXED, amount=500)),
        shipping(490),
        DE_TAX,
    ),
    "D3": Example(
        DE_LINES,
        (
            rule(1, BUY_X_GET_Y, buy_quantity=2, tags=frozenset({"tea"})),
            rule(2, FREE_SHIPPING, min_total=7492),
        ),
        shipping(490),
        DE_TAX,
    ),
    "U1": Example(US_LINES, (), shipping(599), US_TAX),
    "U2": Example(US_LINES, (rule(1, FIXED, amount=1000),), shipping(599), US_TAX),
    "U3": Example(
        US_LINES,
        (
            rule(1, PERCENT, percent=Decimal(15), tags=frozenset({"cable"})),
            rule(2, FREE_SHIPPING),
        ),
        shipping(599),
        US_TAX,
    ),
    "U4": Example(lines(pin=(1, 400, "standard"), cap=(1, 1200, "standard")), tax=US_TAX),
    "U5": Example(US_LINES, (), shipping(599), US_TAX_IN_PARTS),
    "J1": Example(JP_LINES, (), shipping(550), JP_INCLUDED),
    "J2": Example(
        JP_LINES,
        (
            rule(1, BUY_X_GET_Y, buy_quantity=2, tags=frozenset({"bento"})),
            rule(2, PERCENT, percent=Decimal(10)),
        ),
        shipping(550),
        JP_INCLUDED,
    ),
    "J3": Example(JP_LINES, (rule(1, FIXED, amount=1000),), shipping(550), JP_ADDED),
    "K1": Example(lines(lamp=(3, 1250, "standard")), (rule(1, PERCENT, percent=Decimal(5)),)),
}
