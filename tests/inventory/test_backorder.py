"""Test backorders: sales of more units than are on hand, up to the limit of the product."""

from asyncio import gather

import pytest

from markethall.inventory.catalogue.contract.products import ProductChange, ProductView
from markethall.inventory.contract import OutOfStock
from markethall.inventory.stock.domain import MAIN_WAREHOUSE
from tests.inventory.conftest import (
    ANYONE,
    STAFF,
    InventoryApp,
    consume_command,
    partial_release_command,
)
from tests.inventory.warehouse_fixtures import NORTH, receive_in_warehouse, stock_by_warehouse


async def set_backorder_limit(
    inventory_app: InventoryApp, product: ProductView, limit: int
) -> None:
    command = ProductChange(backorder_limit=limit)
    current = await inventory_app.catalogue.get_product(STAFF, product.product_id)
    await inventory_app.catalogue.change(STAFF, product.product_id, command, {current.version})


async def test_backorder_sells_up_to_limit(inventory_app: InventoryApp) -> None:
    tea = await inventory_app.product(stock=2, backorder_limit=3)

    assert await inventory_app.available(tea.product_id) == 5
    await inventory_app.reserve({tea.product_id: 5})
    with pytest.raises(OutOfStock) as raised:
        await inventory_app.reserve({tea.product_id: 1})

    assert raised.value.details["lines"][0]["available"] == 0
    assert await inventory_app.main_stock(tea.product_id) == (2, 5)
    assert await inventory_app.available(tea.product_id) == 0


async def test_new_product_availability_includes_backorder_limit(
    inventory_app: InventoryApp,
) -> None:
    tea = await inventory_app.product(backorder_limit=5)

    assert tea.available == 5
    assert await inventory_app.available(tea.product_id) == 5


async def test_concurrent_buyers_get_stock_plus_backorder_limit(
    inventory_app: InventoryApp,
) -> None:
    tea = await inventory_app.product(stock=2, backorder_limit=3)

    results = await gather(
        *(inventory_app.reserve({tea.product_id: 1}) for _ in range(12)), return_exceptions=True
    )

    assert sum(not isinstance(result, BaseException) for result in results) == 5
    assert await inventory_app.main_stock(tea.product_id) == (2, 5)


async def test_backordered_units_cannot_be_consumed(inventory_app: InventoryApp) -> None:
    tea = await inventory_app.product(stock=2, backorder_limit=3)
    held = await inventory_app.reserve({tea.product_id: 5})

    with pytest.raises(OutOfStock) as raised:
        await inventory_app.inventory.consume(
            ANYONE, consume_command(held.reservation_id, {tea.product_id: 3})
        )
    await inventory_app.inventory.consume(
        ANYONE, consume_command(held.reservation_id, {tea.product_id: 2})
    )
    before = await inventory_app.main_stock(tea.product_id)
    await inventory_app.adjust(tea.product_id, delta=3)
    await inventory_app.inventory.consume(
        ANYONE, consume_command(held.reservation_id, {tea.product_id: 3})
    )

    assert raised.value.details == {
        "lines": [{"product_id": str(tea.product_id), "requested": 3, "available": 2}]
    }
    assert before == (0, 3)
    assert await inventory_app.main_stock(tea.product_id) == (0, 0)


async def test_consume_names_only_products_that_are_not_on_hand(
    inventory_app: InventoryApp,
) -> None:
    tea, cup = await inventory_app.product(stock=2), await inventory_app.product(backorder_limit=1)
    held = await inventory_app.reserve({tea.product_id: 2, cup.product_id: 1})

    with pytest.raises(OutOfStock) as raised:
        await inventory_app.inventory.consume(
            ANYONE, consume_command(held.reservation_id, {tea.product_id: 2, cup.product_id: 1})
        )

    assert raised.value.details == {
        "lines": [{"product_id": str(cup.product_id), "requested": 1, "available": 0}]
    }
    assert await inventory_app.main_stock(tea.product_id) == (2, 2)


async def test_stock_row_follows_product_backorder_limit(inventory_app: InventoryApp) -> None:
    tea = await inventory_app.product(stock=1)

    await set_backorder_limit(inventory_app, tea, 4)
    with_higher_limit = await inventory_app.available(tea.product_id)
    await set_backorder_limit(inventory_app, tea, 2)

    assert with_higher_limit == 5
    assert await inventory_app.available(tea.product_id) == 3


async def test_lowering_limit_keeps_existing_backorders(inventory_app: InventoryApp) -> None:
    tea = await inventory_app.product(stock=5, backorder_limit=4)
    held = await inventory_app.reserve({tea.product_id: 7})

    await set_backorder_limit(inventory_app, tea, 0)

    assert await inventory_app.available(tea.product_id) == 0
    await inventory_app.inventory.consume(
        ANYONE, consume_command(held.reservation_id, {tea.product_id: 3})
    )
    assert await inventory_app.main_stock(tea.product_id) == (2, 4)
    await inventory_app.adjust(tea.product_id, delta=3)
    assert await inventory_app.available(tea.product_id) == 1
    await inventory_app.inventory.release(ANYONE, held.reservation_id)
    assert await inventory_app.available(tea.product_id) == 5


async def test_released_backorder_above_limit_is_not_available(inventory_app: InventoryApp) -> None:
    tea = await inventory_app.product(backorder_limit=5)
    first, second = [await inventory_app.reserve({tea.product_id: 2}) for _ in range(2)]
    await inventory_app.reserve({tea.product_id: 1}, minutes=1)
    await set_backorder_limit(inventory_app, tea, 0)

    await inventory_app.inventory.release(ANYONE, first.reservation_id)
    await inventory_app.inventory.release_part(
        ANYONE, partial_release_command(second.reservation_id, {tea.product_id: 1})
    )
    inventory_app.clock.advance(minutes=2)
    await inventory_app.run_periodic_jobs()

    assert await inventory_app.available(tea.product_id) == 0
    assert await inventory_app.main_stock(tea.product_id) == (0, 1)
    with pytest.raises(OutOfStock):
        await inventory_app.reserve({tea.product_id: 1})


async def test_other_warehouse_stock_is_used_before_backorder(inventory_app: InventoryApp) -> None:
    tea = await inventory_app.product(backorder_limit=5)
    cup = await inventory_app.product(stock=5)
    await receive_in_warehouse(inventory_app, tea.product_id, NORTH, 4)

    stock = []
    for requested in (
        {tea.product_id: 3},
        {tea.product_id: 1, cup.product_id: 1},
        {tea.product_id: 2},
    ):
        await inventory_app.reserve(requested)
        stock.append(await stock_by_warehouse(inventory_app, tea.product_id))

    assert stock == [
        {MAIN_WAREHOUSE: (0, 0), NORTH: (4, 3)},
        {MAIN_WAREHOUSE: (0, 0), NORTH: (4, 4)},
        {MAIN_WAREHOUSE: (0, 2), NORTH: (4, 4)},
    ]
    assert await inventory_app.available(tea.product_id) == 3


async def test_expired_reservations_are_used_before_backorder(inventory_app: InventoryApp) -> None:
    tea = await inventory_app.product(stock=2, backorder_limit=5)
    await inventory_app.reserve({tea.product_id: 2}, minutes=1)
    inventory_app.clock.advance(minutes=2)

    await inventory_app.reserve({tea.product_id: 2})

    assert await inventory_app.main_stock(tea.product_id) == (2, 2)


async def test_stock_expired_reservations_and_backorder_combine(
    inventory_app: InventoryApp,
) -> None:
    tea = await inventory_app.product(stock=1, backorder_limit=2)
    await receive_in_warehouse(inventory_app, tea.product_id, NORTH, 1)
    await inventory_app.reserve({tea.product_id: 1}, minutes=1)
    inventory_app.clock.advance(minutes=2)

    held = await inventory_app.reserve({tea.product_id: 4})
    with pytest.raises(OutOfStock):
        await inventory_app.reserve({tea.product_id: 1})

    assert held.lines[0].quantity == 4
    assert await stock_by_warehouse(inventory_app, tea.product_id) == {
        MAIN_WAREHOUSE: (1, 3),
        NORTH: (1, 1),
    }


async def test_late_commit_uses_other_warehouse_before_backorder(
    inventory_app: InventoryApp,
) -> None:
    tea = await inventory_app.product(backorder_limit=2)
    held = await inventory_app.reserve({tea.product_id: 2}, minutes=1)
    inventory_app.clock.advance(minutes=2)
    await inventory_app.run_periodic_jobs()
    await receive_in_warehouse(inventory_app, tea.product_id, NORTH, 2)

    await inventory_app.inventory.commit(ANYONE, held.reservation_id)

    assert await stock_by_warehouse(inventory_app, tea.product_id) == {
        MAIN_WAREHOUSE: (0, 0),
        NORTH: (2, 2),
    }
