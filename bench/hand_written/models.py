"""The bodies of requests and responses of the hand-written purchase."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field


class Body(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ShippingAddress(Body):
    recipient: Annotated[str, Field(min_length=1, max_length=200)]
    line1: Annotated[str, Field(min_length=1, max_length=200)]
    line2: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    city: Annotated[str, Field(min_length=1, max_length=100)]
    region: Annotated[str, Field(min_length=1, max_length=100)] | None = None
    postal_code: Annotated[str, Field(min_length=1, max_length=20)]
    country: Annotated[str, Field(pattern="^[A-Z]{2}$")]
    phone: Annotated[str, Field(min_length=1, max_length=40)] | None = None


class LineRequest(Body):
    product_id: UUID
    quantity: Annotated[int, Field(ge=1, le=999)]


class OrderRequest(Body):
    lines: Annotated[tuple[LineRequest, ...], Field(min_length=1, max_length=1)]
    shipping_address: ShippingAddress


class ConfirmRequest(Body):
    payment_method: Literal["sandbox_ok", "sandbox_declined"]


class View(BaseModel):
    model_config = ConfigDict(frozen=True)


class Amount(View):
    """An amount in minor units of its currency."""

    amount: int
    currency: str


class LineView(View):
    line_id: UUID
    product_id: UUID
    sku: str
    name: str
    unit_price: Amount
    quantity: int
    total: Amount


class PaymentOfOrder(View):
    payment_id: UUID
    status: str


class PlacedOrder(View):
    order_id: UUID
    number: int
    customer_id: UUID
    status: str
    payment_status: str
    lines: tuple[LineView, ...]
    total: Amount
    shipping_address: ShippingAddress
    payment: PaymentOfOrder
    expires_at: datetime
    created_at: datetime
    version: int


class ConfirmedPayment(View):
    payment_id: UUID
    order_id: UUID
    customer_id: UUID
    status: str
    amount: Amount
    captured: Amount
    provider: str
    failure_code: str | None
    expires_at: datetime
    created_at: datetime
    version: int


class Problem(View):
    """The body of an error (RFC 9457)."""

    status: int
    code: str
