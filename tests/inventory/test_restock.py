"""The contract suite of `Inventory.restock`: sold units that are in the warehouse again."""

from asyncio import gather
from uuid import UUID

import pytest

from markethall.inventory.contract import ProductNotFound, RequestedLine, Restock
from markethall.inventory.stock.contract import MovementReason, TransferNotFound
from markethall.inventory.stock.domain import MAIN_WAREHOUSE
from markethall.shared.kernel.ids import new_id
from markethall.shared.kernel.pagination import PageQuery
from tests.inventory.conftest import ANYONE, STAFF, InventoryApp, consume_command


def restock_command(quantities: dict[UUID, int], restock_id: UUID | None = None) -> Restock:
    lines = (RequestedLine(product_id=key, quantity=n) for key, n in quantities.items())
    return Restock(restock_id=restock_id or new_id(), lines=tuple(lines))


async def test_restock_adds_units_to_the_main_warehouse(inventory_app: InventoryApp) -> None:
    tea = await inventory_app.product(stock=5)
    held = await inventory_app.reserve({tea.product_id: 3})
    await inventory_app.inventory.consume(
        ANYONE, consume_command(held.reservation_id, {tea.product_id: 3})
    )
    command = restock_command({tea.product_id: 2})

    await inventory_app.inventory.restock(ANYONE, command)

    page = await inventory_app.stockroom.list_movements(STAFF, tea.product_id, PageQuery())
    movement = page.items[0]
    assert await inventory_app.main_stock(tea.product_id) == (4, 0)
    assert await inventory_app.available(tea.product_id) == 4
    assert (movement.reason, movement.delta, movement.on_hand_after) == (
        MovementReason.RETURNED,
        2,
        4,
    )
    assert (movement.reference, movement.warehouse_id) == (command.restock_id, MAIN_WAREHOUSE)


async def test_repeated_restock_adds_nothing(inventory_app: InventoryApp) -> None:
    tea, mug = await inventory_app.product(stock=1), await inventory_app.product(stock=1)
    command = restock_command({tea.product_id: 2, mug.product_id: 1})

    await gather(*(inventory_app.inventory.restock(ANYONE, command) for _ in range(5)))

    assert await inventory_app.main_stock(tea.product_id) == (3, 0)
    assert await inventory_app.main_stock(mug.product_id) == (2, 0)


async def test_lines_of_one_product_are_added_up(inventory_app: InventoryApp) -> None:
    tea = await inventory_app.product()
    line = RequestedLine(product_id=tea.product_id, quantity=2)

    await inventory_app.inventory.restock(ANYONE, Restock(restock_id=new_id(), lines=(line, line)))

    assert await inventory_app.main_stock(tea.product_id) == (4, 0)


async def test_archived_product_is_restocked(inventory_app: InventoryApp) -> None:
    tea = await inventory_app.product(stock=1, status="archived")

    await inventory_app.inventory.restock(ANYONE, restock_command({tea.product_id: 1}))

    assert await inventory_app.main_stock(tea.product_id) == (2, 0)


async def test_restock_of_unknown_product_changes_nothing(inventory_app: InventoryApp) -> None:
    tea, unknown = await inventory_app.product(stock=1), new_id()
    command = restock_command({tea.product_id: 1, unknown: 1})

    for _ in range(2):
        with pytest.raises(ProductNotFound) as raised:
            await inventory_app.inventory.restock(ANYONE, command)
        assert raised.value.details["product_ids"] == [str(unknown)]

    assert await inventory_app.main_stock(tea.product_id) == (1, 0)


async def test_restock_is_not_a_transfer(inventory_app: InventoryApp) -> None:
    tea = await inventory_app.product()
    command = restock_command({tea.product_id: 1})
    await inventory_app.inventory.restock(ANYONE, command)

    with pytest.raises(TransferNotFound):
        await inventory_app.stockroom.get_transfer(STAFF, command.restock_id)


async def test_restocked_units_cover_a_backorder(inventory_app: InventoryApp) -> None:
    tea = await inventory_app.product(backorder_limit=3)
    held = await inventory_app.reserve({tea.product_id: 2})
    await inventory_app.inventory.restock(ANYONE, restock_command({tea.product_id: 2}))

    await inventory_app.inventory.consume(
        ANYONE, consume_command(held.reservation_id, {tea.product_id: 2})
    )

    assert await inventory_app.main_stock(tea.product_id) == (0, 0)
