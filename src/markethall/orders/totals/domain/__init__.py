"""The totals of orders: prices, discounts and taxes, in minor units of one currency."""

from markethall.orders.totals.domain.amounts import LineShare, share_of_units, split_amount
from markethall.orders.totals.domain.breakdown import (
    SHIPPING_KEY,
    AppliedDiscount,
    Breakdown,
    LineBreakdown,
    PricedLine,
    ShippingCharge,
    TaxLine,
    sum_discounts,
    sum_tax_lines,
)
from markethall.orders.totals.domain.destination import Destination, postal_key
from markethall.orders.totals.domain.promotions import (
    DiscountedOrder,
    PromotionKind,
    PromotionRule,
    apply_promotions,
)
from markethall.orders.totals.domain.taxes import NamedRate, TaxRules
from markethall.orders.totals.domain.totals import (
    add_taxes,
    check_subtotal,
)

__all__ = [
    "SHIPPING_KEY",
    "AppliedDiscount",
    "Breakdown",
    "Destination",
    "DiscountedOrder",
    "LineBreakdown",
    "LineShare",
    "NamedRate",
    "PricedLine",
    "PromotionKind",
    "PromotionRule",
    "ShippingCharge",
    "TaxLine",
    "TaxRules",
    "add_taxes",
    "apply_promotions",
    "check_subtotal",
    "postal_key",
    "share_of_units",
    "split_amount",
    "sum_discounts",
    "sum_tax_lines",
]
