"""The in-memory store of returns."""

from collections.abc import Sequence
from uuid import UUID

from markethall.orders.configuration.memory import sort_page
from markethall.orders.returns.domain import Return
from markethall.shared.composition.memory import ContextTables, MemoryUnitOfWork
from markethall.shared.kernel.clock import Clock
from markethall.shared.persistence.memory import Table


class ReturnTables(ContextTables):
    def __init__(self) -> None:
        super().__init__()
        self.returns: Table[UUID, Return] = Table()


class MemoryReturnStore(MemoryUnitOfWork):
    def __init__(self, tables: ReturnTables, clock: Clock) -> None:
        super().__init__(tables, clock)
        self._returns = tables.returns

    async def get_return(self, return_id: UUID) -> Return | None:
        return self._returns.get(return_id)

    async def list_returns(
        self, order_id: UUID, after: UUID | None, limit: int
    ) -> Sequence[Return]:
        found = self._returns.where(lambda row: row.order_id == order_id)
        return sort_page(found, lambda row: row.return_id, after, limit)

    async def has_shipping_refund(self, order_id: UUID) -> bool:
        return bool(
            self._returns.where(lambda row: row.order_id == order_id and row.shipping_refund > 0)
        )

    async def add_return(self, requested: Return) -> None:
        self._returns.put(requested.return_id, requested)

    async def save_return(self, changed: Return) -> bool:
        stored = self._returns.get(changed.return_id)
        if stored is None or stored.version != changed.version - 1:
            return False
        self._returns.put(changed.return_id, changed)
        return True
