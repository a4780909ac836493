"""Invoices and their numbers."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from markethall.orders.invoices.contract import InvoiceDocument, InvoiceKind


@dataclass(frozen=True)
class NewInvoice:
    """A document that has no number yet.

    `source_id` is the cause: the order, or its cancellation. A cause has one document of each kind.
    """

    kind: InvoiceKind
    order_id: UUID
    source_id: UUID
    issued_at: datetime
    document: InvoiceDocument


@dataclass(frozen=True)
class Invoice(NewInvoice):
    number: int
