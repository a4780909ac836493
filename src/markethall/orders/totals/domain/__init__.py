"""The totals of orders: prices, discounts and taxes, in minor units of one currency."""

from markethall.orders.totals.domain.breakdown import SHIPPING_KEY as SHIPPING_KEY
from markethall.orders.totals.domain.breakdown import AppliedDiscount as AppliedDiscount
from markethall.orders.totals.domain.breakdown import Breakdown as Breakdown
from markethall.orders.totals.domain.breakdown import LineBreakdown as LineBreakdown
from markethall.orders.totals.domain.breakdown import LineShare as LineShare
from markethall.orders.totals.domain.breakdown import PricedLine as PricedLine
from markethall.orders.totals.domain.breakdown import ShippingCharge as ShippingCharge
from markethall.orders.totals.domain.breakdown import TaxLine as TaxLine
from markethall.orders.totals.domain.breakdown import share_of_units as share_of_units
from markethall.orders.totals.domain.breakdown import split_amount as split_amount
from markethall.orders.totals.domain.breakdown import sum_discounts as sum_discounts
from markethall.orders.totals.domain.breakdown import sum_tax_lines as sum_tax_lines
from markethall.orders.totals.domain.destination import Destination as Destination
from markethall.orders.totals.domain.destination import postal_key as postal_key
from markethall.orders.totals.domain.promotions import DiscountedOrder as DiscountedOrder
from markethall.orders.totals.domain.promotions import PromotionKind as PromotionKind
from markethall.orders.totals.domain.promotions import PromotionRule as PromotionRule
from markethall.orders.totals.domain.promotions import apply_promotions as apply_promotions
from markethall.orders.totals.domain.taxes import NamedRate as NamedRate
from markethall.orders.totals.domain.taxes import TaxRules as TaxRules
from markethall.orders.totals.domain.taxes import add_taxes as add_taxes
from markethall.orders.totals.domain.taxes import check_subtotal as check_subtotal
