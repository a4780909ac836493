"""The total of an order: the limit of its subtotal, and the sum with the taxes of its parts."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from uuid import UUID

from markethall.orders.totals.contract import TotalTooLarge
from markethall.orders.totals.domain.breakdown import (
    Breakdown,
    LineBreakdown,
    PricedLine,
    ShippingCharge,
    TaxLine,
)
from markethall.orders.totals.domain.promotions import DiscountedOrder
from markethall.shared.kernel.model import MAX_AMOUNT


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
