"""The in-memory store of invoices."""

from collections import Counter
from uuid import UUID

from markethall.orders.configuration.memory import ConfigurationTables, MemoryConfigurationStore
from markethall.orders.invoices.contract import InvoiceKind
from markethall.orders.invoices.domain import Invoice, NewInvoice
from markethall.shared.kernel.clock import Clock
from markethall.shared.persistence.memory import Table


class InvoiceTables(ConfigurationTables):
    def __init__(self) -> None:
        super().__init__()
        self.invoices: Table[tuple[InvoiceKind, UUID], Invoice] = Table()


class MemoryInvoiceStore(MemoryConfigurationStore):
    def __init__(self, tables: InvoiceTables, clock: Clock) -> None:
        super().__init__(tables, clock)
        self._invoices = tables.invoices

    async def get_invoice(self, kind: InvoiceKind, source_id: UUID) -> Invoice | None:
        return self._invoices.get((kind, source_id))

    async def add_invoice(self, invoice: NewInvoice) -> int:
        number = 1 + Counter(each.kind for each in self._invoices.rows())[invoice.kind]
        self._invoices.put(
            (invoice.kind, invoice.source_id), Invoice(**vars(invoice), number=number)
        )
        return number
