"""The parts of the total of an order that the API shows."""

from uuid import UUID

from pydantic import Field

from markethall.shared.kernel.errors import DomainError
from markethall.shared.kernel.model import Dto
from markethall.shared.kernel.money import Money


class DiscountView(Dto):
    """The discount of one promotion. Automatic promotions have no code."""

    promotion_id: UUID
    name: str
    code: str | None
    amount: Money


class TaxLineView(Dto):
    """The tax of one rate. `included` tells whether the prices contain it."""

    name: str = Field(examples=["VAT"])
    rate: str = Field(description="0.19 is 19 %", examples=["0.19"])
    amount: Money
    included: bool


class ShippingLineView(Dto):
    """The shipping method of an order. The amounts have the same meaning as in a line."""

    code: str
    name: str
    price: Money
    discount: Money
    tax: Money
    included_tax: Money
    charged: Money
    discounts: tuple[DiscountView, ...]
    tax_lines: tuple[TaxLineView, ...]


class TotalsView(Dto):
    """The parts of a total. The amounts have the same meaning as in an order."""

    subtotal: Money
    discount: Money
    shipping: Money
    tax: Money
    total: Money
    included_tax: Money
    discounts: tuple[DiscountView, ...]
    tax_lines: tuple[TaxLineView, ...]
    shipping_line: ShippingLineView | None


class TotalTooLarge(DomainError):
    """The total exceeds the limit. Details: limit (minor units)."""

    code = "orders.total_too_large"
    status = 422
    title = "The total exceeds the limit of an order"
