"""What staff ask of warehouses."""

from uuid import UUID

from markethall.inventory.contract import (
    NewWarehouse,
    Warehouse,
    WarehouseChange,
    WarehouseNotFound,
)
from markethall.inventory.domain import Depot
from markethall.inventory.ports import Database, Store
from markethall.shared.call import Call
from markethall.shared.idempotency import Attempt
from markethall.shared.pages import Cursors, Page, PageQuery
from markethall.shared.versions import Seen, check_seen


class WarehouseService:
    """A contract.Warehouses."""

    def __init__(self, database: Database, cursors: Cursors) -> None:
        self._database = database
        self._cursors = cursors

    async def warehouse(self, call: Call, warehouse_id: UUID) -> Warehouse:  # noqa: ARG002 - the contract
        async with self._database.reading() as shelf:
            depot = await shelf.find_depot(warehouse_id)
        return _there(depot, warehouse_id).view()

    async def warehouses(self, call: Call, query: PageQuery) -> Page[Warehouse]:  # noqa: ARG002 - the contract
        position = self._cursors.decode("warehouses", query.cursor)
        after = (int(position[0]), UUID(position[1])) if position else None
        async with self._database.reading() as shelf:
            depots = await shelf.depots(after, query.limit + 1)
        views = [depot.view() for depot in depots]
        return self._cursors.page(
            "warehouses", views, query.limit, lambda row: [row.priority, str(row.warehouse_id)]
        )

    async def create(self, call: Call, command: NewWarehouse, attempt: Attempt) -> Warehouse:  # noqa: ARG002 - the contract
        depot = Depot.new(attempt.id, command)
        async with self._database.transaction() as store:
            if not await store.add_depot(depot):
                depot = _there(await store.find_depot(depot.warehouse_id), depot.warehouse_id)
            await store.finish(attempt, depot.view())
        return depot.view()

    async def change(
        self,
        call: Call,  # noqa: ARG002 - the contract
        warehouse_id: UUID,
        command: WarehouseChange,
        seen: Seen,
    ) -> Warehouse:
        async with self._database.transaction() as store:
            depot = await _locked(store, warehouse_id, seen)
            if depot.change(command, empty=not await store.has_goods(warehouse_id)):
                await store.save_depot(depot)
        return depot.view()

    async def delete(self, call: Call, warehouse_id: UUID, seen: Seen) -> None:  # noqa: ARG002 - the contract
        async with self._database.transaction() as store:
            depot = await _locked(store, warehouse_id, seen)
            depot.check_unused(used=await store.has_shelves(warehouse_id))
            await store.remove_depot(warehouse_id)


def _there(depot: Depot | None, warehouse_id: UUID) -> Depot:
    if depot is None:
        raise WarehouseNotFound(warehouse_id=str(warehouse_id))
    return depot


async def _locked(store: Store, warehouse_id: UUID, seen: Seen) -> Depot:
    """Raises WarehouseNotFound, PreconditionFailed."""
    depot = _there(await store.depot(warehouse_id), warehouse_id)
    check_seen(seen, depot.version)
    return depot
