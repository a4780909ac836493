"""The contract of invoices: the document, and the Protocol that reads it."""

from datetime import datetime
from enum import StrEnum
from typing import Protocol
from uuid import UUID

from markethall.orders.shop.contract import AnyAddress
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.errors import DomainError
from markethall.shared.kernel.model import Dto


class InvoiceKind(StrEnum):
    """The kind of a document. Each kind has numbers of its own, from 1 without a gap."""

    INVOICE = "invoice"
    CREDIT_NOTE = "credit_note"


class InvoiceSeller(Dto):
    name: str
    address: AnyAddress | None
    email: str | None
    tax_id: str | None
    logo_url: str | None


class InvoiceLine(Dto):
    """A line. `total` is the price of all units, before discounts and added taxes."""

    sku: str
    name: str
    quantity: int
    unit_price: int
    total: int


class InvoiceAmount(Dto):
    """An amount with its name: a discount, or the shipping."""

    name: str
    amount: int


class InvoiceTax(Dto):
    """The tax of one rate. `net` is the price without this tax. A rate of "0.19" is 19 %."""

    name: str
    rate: str
    net: int
    amount: int


class InvoiceDocument(Dto):
    """The content of an invoice. It is stored with its number, and does not change.

    `total` = sum of the lines - discounts + shipping + `tax`. `tax` is added to the prices;
    `included_tax` is contained in them. Amounts are in minor units of `currency`.
    """

    seller: InvoiceSeller
    billing_address: AnyAddress
    shipping_address: AnyAddress
    email: str | None
    order_number: str
    ordered_at: datetime
    currency: str
    lines: tuple[InvoiceLine, ...]
    discounts: tuple[InvoiceAmount, ...]
    shipping: InvoiceAmount | None
    taxes: tuple[InvoiceTax, ...]
    subtotal: int
    tax: int
    included_tax: int
    total: int


class InvoiceView(Dto):
    """A stored invoice or credit note. `invoice_number` is the invoice that the note corrects."""

    kind: InvoiceKind
    number: int
    issued_at: datetime
    document: InvoiceDocument
    invoice_number: int | None = None


class InvoiceNotFound(DomainError):
    """The order has no invoice, because it was never paid. Details: order_id."""

    code = "orders.invoice_not_found"
    status = 404
    title = "The order has no invoice yet"


class Invoices(Protocol):
    """The invoices of orders. Customers see those of their own orders, staff see all."""

    async def get_invoice(self, ctx: CallContext, order_id: UUID) -> InvoiceView:
        """Raises OrderNotFound, InvoiceNotFound."""
