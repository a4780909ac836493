"""An order that is to be priced, and its price."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from markethall.orders.pricing.contract import OrderCurrencyMismatch
from markethall.orders.promotions.domain import category_keys, label_key
from markethall.orders.shipping.contract import ShippingUnavailable
from markethall.orders.shipping.domain import ShippedLine, ShippingOption
from markethall.orders.shop.contract import AnyAddress
from markethall.orders.tax.contract import RegionRequired
from markethall.orders.totals.domain import Breakdown, PricedLine, PromotionRule
from markethall.shared.kernel.money import Money


@dataclass(frozen=True)
class QuotedLine:
    """Units of a product, and the fields of the product that determine the totals."""

    line_id: UUID
    product_id: UUID
    unit_price: Money
    quantity: int
    tax_class: str
    weight_grams: int = 0
    category: str | None = None
    tags: frozenset[str] = frozenset()

    def to_priced_line(self) -> PricedLine:
        return PricedLine(
            self.line_id,
            self.product_id,
            self.unit_price.amount,
            self.quantity,
            self.tax_class,
            category_keys(self.category or ""),
            frozenset(map(label_key, self.tags)),
        )

    def to_shipped_line(self) -> ShippedLine:
        return ShippedLine(self.product_id, self.quantity, self.weight_grams)


@dataclass(frozen=True)
class QuoteRequest:
    """An order that is to be priced.

    Without `currency`, the default currency of the shop is used if the shop lists its currencies,
    else that of the lines.

    Without `shipping_method`, which is a code, the cheapest method is chosen. If no method serves a
    preview, its price has no shipping. With `promotions`, these are applied, and no others are
    looked up: an edit keeps the promotions of its order.
    """

    customer_id: UUID
    lines: tuple[QuotedLine, ...]
    shipping_address: AnyAddress
    currency: str | None = None
    shipping_method: str | None = None
    voucher_code: str | None = None
    promotions: tuple[PromotionRule, ...] | None = None
    is_preview: bool = False


@dataclass(frozen=True)
class Quote:
    """The price of an order."""

    currency: str
    breakdown: Breakdown
    # the prefix of order numbers
    number_prefix: str
    # the terms of the promotions that give the order a discount
    promotions: tuple[PromotionRule, ...] = ()
    # the methods that serve the order
    shipping_options: tuple[ShippingOption, ...] = ()
    # the reason why a preview has no shipping, or may lack taxes
    error: ShippingUnavailable | RegionRequired | None = None

    @property
    def total(self) -> Money:
        return Money(amount=self.breakdown.total, currency=self.currency)


def find_currency(
    lines: Sequence[QuotedLine], requested: str | None, accepted: Sequence[str]
) -> str:
    """Return the currency of the order. `accepted` has the currencies of the shop; empty: all.

    Raises OrderCurrencyMismatch.
    """
    currency = requested or lines[0].unit_price.currency
    others = [line for line in lines if line.unit_price.currency != currency]
    if others or (accepted and currency not in accepted):
        found = {line.unit_price.currency for line in lines} | {currency}
        raise OrderCurrencyMismatch(
            currencies=sorted(found),
            lines=[
                {"product_id": str(line.product_id), "currency": line.unit_price.currency}
                for line in others
            ],
        )
    return currency
