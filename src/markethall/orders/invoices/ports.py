"""Ports of invoices: their storage."""

from typing import Protocol
from uuid import UUID

from markethall.orders.invoices.contract import InvoiceKind
from markethall.orders.invoices.domain import Invoice, NewInvoice


class ReadStore(Protocol):
    """Reads without locks."""

    async def get_invoice(self, kind: InvoiceKind, source_id: UUID) -> Invoice | None: ...


class Store(ReadStore, Protocol):
    """Reads and writes of one transaction."""

    async def add_invoice(self, invoice: NewInvoice) -> int:
        """Give the document the next number of its kind, store it, and return the number.

        The counter stays locked until the end of the transaction, so a transaction calls this as
        its last statement. If the transaction rolls back, the next one gets the same number.
        """
