"""Helpers for stock in warehouses other than the main warehouse."""

from typing import Final
from uuid import UUID

from markethall.inventory.stock.contract import Adjustment, NewWarehouse
from tests.inventory.conftest import STAFF, InventoryApp, no_key

NORTH: Final = UUID("00000000-0000-7000-8000-00000000000a")
EAST: Final = UUID("00000000-0000-7000-8000-00000000000b")
SOUTH: Final = UUID("00000000-0000-7000-8000-00000000000c")
# the priorities are in the reverse order of the ids, so that a choice by id fails the tests
PRIORITIES: Final = {NORTH: 30, EAST: 20, SOUTH: 10}


async def receive_in_warehouse(
    inventory_app: InventoryApp, product_id: UUID, warehouse_id: UUID, quantity: int
) -> None:
    """Receive stock in a warehouse. Create the warehouse if it does not exist."""
    warehouse = NewWarehouse(name=str(warehouse_id), priority=PRIORITIES[warehouse_id])
    await inventory_app.container.warehouses().create(STAFF, warehouse, no_key(warehouse_id))
    command = Adjustment(warehouse_id=warehouse_id, delta=quantity, reason="received")
    await inventory_app.stockroom.adjust(STAFF, product_id, command, no_key())


async def stock_by_warehouse(
    inventory_app: InventoryApp, product_id: UUID
) -> dict[UUID, tuple[int, int]]:
    """Return (on hand, reserved) by warehouse."""
    stock = await inventory_app.stockroom.get_stock(STAFF, product_id)
    return {level.warehouse_id: (level.on_hand, level.reserved) for level in stock.warehouses}
