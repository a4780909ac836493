"""Convert the breakdown of a total to views."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from markethall.orders.totals.contract import (
    DiscountView,
    ShippingLineView,
    TaxLineView,
    TotalsView,
)
from markethall.orders.totals.domain import AppliedDiscount, Breakdown, LineBreakdown, TaxLine
from markethall.shared.kernel.money import Money

TOTALS: Final = ("subtotal", "discount", "shipping", "tax", "total", "included_tax")


def money_fields(source: object, names: Iterable[str], currency: str) -> dict[str, Any]:
    """Return the attributes with these names, which are amounts in minor units, as Money."""
    return {name: Money(amount=getattr(source, name), currency=currency) for name in names}


def to_totals_view(breakdown: Breakdown, currency: str) -> TotalsView:
    charge, part = breakdown.shipping_charge, breakdown.shipping_line
    return TotalsView(
        **money_fields(breakdown, TOTALS, currency),
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
    return ShippingLineView(
        code=code,
        name=name,
        price=Money(amount=part.subtotal, currency=currency),
        charged=Money(amount=part.total, currency=currency),
        **money_fields(part, ("discount", "tax", "included_tax"), currency),
        discounts=to_discount_views(part.discounts, currency),
        tax_lines=to_tax_line_views(part.tax_lines, currency, included=part.prices_include_tax),
    )


def to_discount_views(
    discounts: Sequence[AppliedDiscount], currency: str
) -> tuple[DiscountView, ...]:
    return tuple(
        DiscountView(**vars(discount) | money_fields(discount, ("amount",), currency))
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
