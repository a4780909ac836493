"""The contract suite of `Warehouses`. It runs on each storage."""

from asyncio import gather
from typing import Any

import pytest

from markethall.inventory.stock.contract import (
    NewWarehouse,
    WarehouseChange,
    WarehouseInUse,
    WarehouseNotFound,
    WarehouseView,
)
from markethall.inventory.stock.domain import MAIN_WAREHOUSE
from markethall.shared.kernel.errors import PreconditionFailed
from markethall.shared.kernel.ids import new_id
from markethall.shared.kernel.pagination import PageQuery
from tests.inventory.conftest import STAFF, InventoryApp, no_key


async def change(
    inventory_app: InventoryApp, warehouse: WarehouseView, **fields: Any
) -> WarehouseView:
    command = WarehouseChange.model_validate(fields)
    expected = {warehouse.version}
    return await inventory_app.warehouses.change(STAFF, warehouse.warehouse_id, command, expected)


async def names(inventory_app: InventoryApp) -> list[str]:
    """Read the list in pages of two. Return the names in list order."""
    found: list[str] = []
    cursor = None
    while True:
        query = PageQuery(limit=2, cursor=cursor)
        page = await inventory_app.warehouses.list_warehouses(STAFF, query)
        found += [warehouse.name for warehouse in page.items]
        cursor = page.next_cursor
        if cursor is None:
            return found


async def test_main_warehouse_always_exists(inventory_app: InventoryApp) -> None:
    main = await inventory_app.warehouses.get_warehouse(STAFF, MAIN_WAREHOUSE)

    assert main == WarehouseView(
        warehouse_id=MAIN_WAREHOUSE, name="Main", priority=0, active=True, version=1
    )
    with pytest.raises(WarehouseInUse):
        await change(inventory_app, main, active=False)
    with pytest.raises(WarehouseInUse):
        await inventory_app.warehouses.delete(STAFF, MAIN_WAREHOUSE, {1})
    assert (await change(inventory_app, main, name="Utrecht", priority=5)).version == 2


async def test_warehouse_has_all_created_fields(inventory_app: InventoryApp) -> None:
    made = await inventory_app.warehouse("Rotterdam", priority=7, active=False)

    read = await inventory_app.warehouses.get_warehouse(STAFF, made.warehouse_id)

    assert made == read
    assert (read.name, read.priority, read.active, read.version) == ("Rotterdam", 7, False, 1)


async def test_create_is_idempotent_by_id(inventory_app: InventoryApp) -> None:
    attempt = no_key()
    command = NewWarehouse(name="Rotterdam")

    made = await gather(
        *(inventory_app.warehouses.create(STAFF, command, attempt) for _ in range(5))
    )

    assert {warehouse.warehouse_id for warehouse in made} == {attempt.id}
    assert await names(inventory_app) == ["Main", "Rotterdam"]


async def test_warehouses_are_ordered_by_priority(inventory_app: InventoryApp) -> None:
    for name, priority in (("C", 30), ("A", 10), ("B", 20), ("D", 0)):
        await inventory_app.warehouse(name, priority=priority)

    assert (await names(inventory_app))[-3:] == ["A", "B", "C"]
    assert set(await names(inventory_app)) == {"Main", "A", "B", "C", "D"}


async def test_change_requires_current_version(inventory_app: InventoryApp) -> None:
    before = await inventory_app.warehouse("Rotterdam", priority=7)

    after = await change(inventory_app, before, name="Antwerp")
    same = await change(inventory_app, after, name="Antwerp")

    assert (after.name, after.priority, after.version) == ("Antwerp", 7, 2)
    assert same == after
    with pytest.raises(PreconditionFailed):
        await change(inventory_app, before, name="Ghent")
    with pytest.raises(PreconditionFailed):
        await inventory_app.warehouses.delete(STAFF, before.warehouse_id, {1})


async def test_warehouse_without_stock_rows_can_be_deleted(inventory_app: InventoryApp) -> None:
    other = await inventory_app.warehouse()

    await inventory_app.warehouses.delete(STAFF, other.warehouse_id, {1})

    with pytest.raises(WarehouseNotFound) as raised:
        await inventory_app.warehouses.get_warehouse(STAFF, other.warehouse_id)
    assert raised.value.details == {"warehouse_id": str(other.warehouse_id)}
    assert await names(inventory_app) == ["Main"]


async def test_unknown_warehouse_is_not_found(inventory_app: InventoryApp) -> None:
    with pytest.raises(WarehouseNotFound):
        await inventory_app.warehouses.get_warehouse(STAFF, new_id())
    with pytest.raises(WarehouseNotFound):
        await inventory_app.warehouses.change(STAFF, new_id(), WarehouseChange(), {1})
    with pytest.raises(WarehouseNotFound):
        await inventory_app.warehouses.delete(STAFF, new_id(), {1})
