"""Convert the breakdown of a total to views."""

from collections.abc import Sequence

from markethall.orders.totals.contract import (
    DiscountView,
    ShippingLineView,
    TaxLineView,
    TotalsView,
)
from markethall.orders.totals.domain import AppliedDiscount, Breakdown, LineBreakdown, TaxLine
from markethall.shared.kernel.money import Money


def to_totals_view(breakdown: Breakdown, currency: str) -> TotalsView:
    def money(amount: int) -> Money:
        return Money(amount=amount, currency=currency)

    charge, part = breakdown.shipping_charge, breakdown.shipping_line
    return TotalsView(
        subtotal=money(breakdown.subtotal),
        discount=money(breakdown.discount),
        shipping=money(breakdown.shipping),
        tax=money(breakdown.tax),
        total=money(breakdown.total),
        included_tax=money(breakdown.included_tax),
        discounts=to_discount_views(breakdown.discounts, currency),
        tax_lines=to_tax_line_views(
            breakdown.tax_lines, currency, included=breakdown.prices_include_tax
        ),
        shipping_line=(
            to_shipping_line_view(charge.code, charge.name, part, currency)
            if charge and part
            else None
        ),
    )


def to_shipping_line_view(
    code: str, name: str, part: LineBreakdown, currency: str
) -> ShippingLineView:
    def money(amount: int) -> Money:
        return Money(amount=amount, currency=currency)

    return ShippingLineView(
        code=code,
        name=name,
        price=money(part.subtotal),
        discount=money(part.discount),
        tax=money(part.tax),
        included_tax=money(part.included_tax),
        charged=money(part.total),
        discounts=to_discount_views(part.discounts, currency),
        tax_lines=to_tax_line_views(part.tax_lines, currency, included=part.prices_include_tax),
    )


def to_discount_views(
    discounts: Sequence[AppliedDiscount], currency: str
) -> tuple[DiscountView, ...]:
    return tuple(
        DiscountView(
            promotion_id=discount.promotion_id,
            name=discount.name,
            code=discount.code,
            amount=Money(amount=discount.amount, currency=currency),
        )
        for discount in discounts
    )


def to_tax_line_views(
    tax_lines: Sequence[TaxLine], currency: str, *, included: bool
) -> tuple[TaxLineView, ...]:
    return tuple(
        TaxLineView(
            name=line.name,
            rate=f"{line.rate.normalize():f}",
            amount=Money(amount=line.amount, currency=currency),
            included=included,
        )
        for line in tax_lines
    )
