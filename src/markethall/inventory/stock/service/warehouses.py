from typing import Final
from uuid import UUID

from pydantic import TypeAdapter

from markethall.inventory.stock.contract import (
    NewWarehouse,
    WarehouseChange,
    WarehouseNotFound,
    WarehouseView,
)
from markethall.inventory.stock.domain import Warehouse
from markethall.inventory.stock.ports import ReadStore, Store
from markethall.shared.idempotency.records import IdempotentCommand
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.etags import ExpectedVersions, check_expected_version
from markethall.shared.kernel.pagination import Cursors, Page, PageQuery
from markethall.shared.persistence.database import Database

# content of a cursor: (priority, id) of the last warehouse of the previous page
_WAREHOUSE_KEYSET: Final = TypeAdapter(tuple[int, UUID])


class WarehouseService:
    """Implementation of `Warehouses`."""

    def __init__(self, database: Database[ReadStore, Store], cursors: Cursors) -> None:
        self._database = database
        self._cursors = cursors

    async def get_warehouse(self, ctx: CallContext, warehouse_id: UUID) -> WarehouseView:
        async with self._database.read_session() as reads:
            warehouse = await reads.get_warehouse(warehouse_id)
        return _found_or_404(warehouse, warehouse_id).to_view()

    async def list_warehouses(self, ctx: CallContext, query: PageQuery) -> Page[WarehouseView]:
        after = self._cursors.decode("warehouses", query.cursor, _WAREHOUSE_KEYSET)
        async with self._database.read_session() as reads:
            warehouses = await reads.list_warehouses(after, query.limit + 1)
        views = [warehouse.to_view() for warehouse in warehouses]
        return self._cursors.build_page(
            "warehouses", views, query.limit, lambda row: (row.priority, row.warehouse_id)
        )

    async def create(
        self, ctx: CallContext, command: NewWarehouse, attempt: IdempotentCommand
    ) -> WarehouseView:
        warehouse = Warehouse.new(attempt.id, command)
        async with self._database.transaction() as store:
            if not await store.insert_warehouse(warehouse):
                warehouse = _found_or_404(
                    await store.get_warehouse(warehouse.warehouse_id), warehouse.warehouse_id
                )
            view = warehouse.to_view()
            await store.store_response(attempt, view)
        return view

    async def change(
        self,
        ctx: CallContext,
        warehouse_id: UUID,
        command: WarehouseChange,
        expected_versions: ExpectedVersions,
    ) -> WarehouseView:
        async with self._database.transaction() as store:
            warehouse = await _get_warehouse_for_update(store, warehouse_id, expected_versions)
            if warehouse.change(command, is_empty=not await store.has_stock(warehouse_id)):
                await store.save_warehouse(warehouse)
        return warehouse.to_view()

    async def delete(
        self, ctx: CallContext, warehouse_id: UUID, expected_versions: ExpectedVersions
    ) -> None:
        async with self._database.transaction() as store:
            warehouse = await _get_warehouse_for_update(store, warehouse_id, expected_versions)
            warehouse.check_unused(has_stock_rows=await store.has_stock_rows(warehouse_id))
            await store.delete_warehouse(warehouse_id)


def _found_or_404(warehouse: Warehouse | None, warehouse_id: UUID) -> Warehouse:
    if warehouse is None:
        raise WarehouseNotFound(warehouse_id=str(warehouse_id))
    return warehouse


async def _get_warehouse_for_update(
    store: Store, warehouse_id: UUID, expected_versions: ExpectedVersions
) -> Warehouse:
    """Raises WarehouseNotFound, PreconditionFailed."""
    warehouse = _found_or_404(await store.get_warehouse_for_update(warehouse_id), warehouse_id)
    check_expected_version(expected_versions, warehouse.version)
    return warehouse
