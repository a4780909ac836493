"""Every implementation of Warehouses keeps these promises."""

from asyncio import gather
from typing import Any

import pytest

from markethall.inventory.contract import (
    NewWarehouse,
    Warehouse,
    WarehouseChange,
    WarehouseInUse,
    WarehouseNotFound,
)
from markethall.inventory.domain import MAIN_WAREHOUSE
from markethall.shared.errors import PreconditionFailed
from markethall.shared.ids import new_id
from markethall.shared.pages import PageQuery
from tests.inventory.conftest import STAFF, House, no_key


async def changed(house: House, warehouse: Warehouse, **fields: Any) -> Warehouse:
    command = WarehouseChange.model_validate(fields)
    seen = {warehouse.version}
    return await house.warehouses.change(STAFF, warehouse.warehouse_id, command, seen)


async def names(house: House) -> list[str]:
    """What the list gives, read in pages of two."""
    found: list[str] = []
    cursor = None
    while True:
        query = PageQuery(limit=2, cursor=cursor)
        page = await house.warehouses.warehouses(STAFF, query)
        found += [warehouse.name for warehouse in page.items]
        cursor = page.next_cursor
        if cursor is None:
            return found


async def test_there_is_always_the_main_one(house: House) -> None:
    main = await house.warehouses.warehouse(STAFF, MAIN_WAREHOUSE)

    assert main == Warehouse(
        warehouse_id=MAIN_WAREHOUSE, name="Main", priority=0, active=True, version=1
    )
    with pytest.raises(WarehouseInUse):
        await changed(house, main, active=False)
    with pytest.raises(WarehouseInUse):
        await house.warehouses.delete(STAFF, MAIN_WAREHOUSE, {1})
    assert (await changed(house, main, name="Utrecht", priority=5)).version == 2


async def test_a_warehouse_has_all_that_it_was_made_with(house: House) -> None:
    made = await house.warehouse("Rotterdam", priority=7, active=False)

    read = await house.warehouses.warehouse(STAFF, made.warehouse_id)

    assert made == read
    assert (read.name, read.priority, read.active, read.version) == ("Rotterdam", 7, False, 1)


async def test_a_warehouse_is_made_once_per_id(house: House) -> None:
    attempt = no_key()
    command = NewWarehouse(name="Rotterdam")

    made = await gather(*(house.warehouses.create(STAFF, command, attempt) for _ in range(5)))

    assert {warehouse.warehouse_id for warehouse in made} == {attempt.id}
    assert await names(house) == ["Main", "Rotterdam"]


async def test_warehouses_come_by_priority(house: House) -> None:
    for name, priority in (("C", 30), ("A", 10), ("B", 20), ("D", 0)):
        await house.warehouse(name, priority=priority)

    assert (await names(house))[-3:] == ["A", "B", "C"]
    assert set(await names(house)) == {"Main", "A", "B", "C", "D"}


async def test_a_change_needs_the_version_that_was_seen(house: House) -> None:
    seen = await house.warehouse("Rotterdam", priority=7)

    after = await changed(house, seen, name="Antwerp")
    same = await changed(house, after, name="Antwerp")

    assert (after.name, after.priority, after.version) == ("Antwerp", 7, 2)
    assert same == after
    with pytest.raises(PreconditionFailed):
        await changed(house, seen, name="Ghent")
    with pytest.raises(PreconditionFailed):
        await house.warehouses.delete(STAFF, seen.warehouse_id, {1})


async def test_what_never_had_goods_can_be_deleted(house: House) -> None:
    other = await house.warehouse()

    await house.warehouses.delete(STAFF, other.warehouse_id, {1})

    with pytest.raises(WarehouseNotFound) as refusal:
        await house.warehouses.warehouse(STAFF, other.warehouse_id)
    assert refusal.value.details == {"warehouse_id": str(other.warehouse_id)}
    assert await names(house) == ["Main"]


async def test_an_unknown_warehouse_is_not_found(house: House) -> None:
    with pytest.raises(WarehouseNotFound):
        await house.warehouses.warehouse(STAFF, new_id())
    with pytest.raises(WarehouseNotFound):
        await house.warehouses.change(STAFF, new_id(), WarehouseChange(), {1})
    with pytest.raises(WarehouseNotFound):
        await house.warehouses.delete(STAFF, new_id(), {1})
