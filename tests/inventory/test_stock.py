"""The contract suite of `Stockroom`. It runs on each storage."""

from asyncio import gather
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from markethall.inventory.contract import ProductNotFound
from markethall.inventory.stock.contract import (
    Movement,
    MovementReason,
    NewStocktake,
    NewTransfer,
    Stocktake,
    StocktakeNotFound,
    Transfer,
    TransferNotFound,
    WarehouseChange,
    WarehouseClosed,
    WarehouseInUse,
    WarehouseNotFound,
    WarehouseView,
    WouldGoNegative,
)
from markethall.inventory.stock.domain import MAIN_WAREHOUSE
from markethall.shared.kernel.errors import ValidationFailed
from markethall.shared.kernel.ids import new_id
from markethall.shared.kernel.pagination import PageQuery
from tests.inventory.conftest import ANYONE, STAFF, InventoryApp, consume_command, no_key


async def levels(inventory_app: InventoryApp, product_id: UUID) -> dict[UUID, tuple[int, int, int]]:
    """Return (on hand, reserved, available) by warehouse."""
    stock = await inventory_app.stockroom.get_stock(STAFF, product_id)
    return {
        level.warehouse_id: (level.on_hand, level.reserved, level.available)
        for level in stock.warehouses
    }


async def transfer(
    inventory_app: InventoryApp,
    product_id: UUID,
    to: UUID,
    quantity: int,
    *,
    source: UUID = MAIN_WAREHOUSE,
) -> Transfer:
    command = NewTransfer(
        product_id=product_id, from_warehouse_id=source, to_warehouse_id=to, quantity=quantity
    )
    return await inventory_app.stockroom.transfer(STAFF, command, no_key())


async def record_stocktake(
    inventory_app: InventoryApp, *lines: dict[str, Any], **fields: Any
) -> Stocktake:
    command = NewStocktake.model_validate({"lines": lines} | fields)
    return await inventory_app.stockroom.record_stocktake(STAFF, command, no_key())


async def ledger(inventory_app: InventoryApp, product_id: UUID) -> list[Movement]:
    """Return the movements of a product, the oldest first."""
    page = await inventory_app.stockroom.list_movements(STAFF, product_id, PageQuery(limit=100))
    return list(reversed(page.items))


async def close(inventory_app: InventoryApp, warehouse: WarehouseView) -> WarehouseView:
    command = WarehouseChange(active=False)
    expected = {warehouse.version}
    return await inventory_app.warehouses.change(STAFF, warehouse.warehouse_id, command, expected)


# Counting


@pytest.mark.parametrize(("on_hand", "reason"), [(0, "adjusted"), (3, "lost"), (3, "counted")])
async def test_unchanged_count_has_reason_counted(
    inventory_app: InventoryApp, on_hand: int, reason: str
) -> None:
    tea = await inventory_app.product(stock=on_hand)

    movement = await inventory_app.adjust(tea.product_id, reason, counted=on_hand)

    assert (movement.delta, movement.on_hand_after) == (0, on_hand)
    assert movement.reason == MovementReason.COUNTED


async def test_changed_count_keeps_given_reason(inventory_app: InventoryApp) -> None:
    tea = await inventory_app.product(stock=3)

    movement = await inventory_app.adjust(tea.product_id, "damaged", counted=1)

    assert (movement.delta, movement.reason) == (-2, MovementReason.DAMAGED)


# Several warehouses


async def test_first_receipt_creates_stock_row(inventory_app: InventoryApp) -> None:
    tea = await inventory_app.product(stock=3)
    other = await inventory_app.warehouse()

    before = await levels(inventory_app, tea.product_id)
    await inventory_app.adjust(tea.product_id, delta=5, warehouse_id=other.warehouse_id)

    assert before == {MAIN_WAREHOUSE: (3, 0, 3)}
    assert await levels(inventory_app, tea.product_id) == {
        MAIN_WAREHOUSE: (3, 0, 3),
        other.warehouse_id: (5, 0, 5),
    }
    assert await inventory_app.available(tea.product_id) == 8


async def test_missing_stock_row_cannot_be_reduced(inventory_app: InventoryApp) -> None:
    tea = await inventory_app.product(stock=3)
    other = await inventory_app.warehouse()

    with pytest.raises(WouldGoNegative) as raised:
        await inventory_app.adjust(
            tea.product_id, "lost", delta=-1, warehouse_id=other.warehouse_id
        )

    assert raised.value.details == {"on_hand": 0, "reserved": 0}
    assert await levels(inventory_app, tea.product_id) == {MAIN_WAREHOUSE: (3, 0, 3)}


async def test_receipt_requires_active_warehouse(inventory_app: InventoryApp) -> None:
    tea = await inventory_app.product(stock=3)
    inactive = await close(inventory_app, await inventory_app.warehouse())
    other = await inventory_app.warehouse()

    with pytest.raises(WarehouseNotFound):
        await inventory_app.adjust(tea.product_id, delta=1, warehouse_id=new_id())
    with pytest.raises(WarehouseClosed) as raised:
        await inventory_app.adjust(tea.product_id, delta=1, warehouse_id=inactive.warehouse_id)
    with pytest.raises(ProductNotFound):
        await inventory_app.adjust(new_id(), delta=1, warehouse_id=other.warehouse_id)

    assert raised.value.details == {"warehouse_id": str(inactive.warehouse_id)}


async def test_warehouse_with_stock_cannot_be_closed_and_used_one_not_deleted(
    inventory_app: InventoryApp,
) -> None:
    tea = await inventory_app.product()
    other = await inventory_app.warehouse()
    await inventory_app.adjust(tea.product_id, delta=2, warehouse_id=other.warehouse_id)

    with pytest.raises(WarehouseInUse) as raised:
        await close(inventory_app, other)
    await inventory_app.adjust(tea.product_id, "lost", delta=-2, warehouse_id=other.warehouse_id)
    with pytest.raises(WarehouseInUse):
        await inventory_app.warehouses.delete(STAFF, other.warehouse_id, {1})
    after = await close(inventory_app, other)

    assert raised.value.details == {"warehouse_id": str(other.warehouse_id)}
    assert not after.active


async def test_receipt_races_with_closing_warehouse(inventory_app: InventoryApp) -> None:
    tea = await inventory_app.product()
    for _ in range(5):
        other = await inventory_app.warehouse()

        await gather(
            close(inventory_app, other),
            inventory_app.adjust(tea.product_id, delta=1, warehouse_id=other.warehouse_id),
            return_exceptions=True,
        )

        active = (await inventory_app.warehouses.get_warehouse(STAFF, other.warehouse_id)).active
        stock = (await levels(inventory_app, tea.product_id)).get(other.warehouse_id, (0, 0, 0))
        assert stock == ((1, 0, 1) if active else (0, 0, 0))


# Transfers


async def test_transfer_moves_stock_between_warehouses(inventory_app: InventoryApp) -> None:
    tea = await inventory_app.product(stock=10)
    other = await inventory_app.warehouse()

    made = await transfer(inventory_app, tea.product_id, other.warehouse_id, 4)

    assert await levels(inventory_app, tea.product_id) == {
        MAIN_WAREHOUSE: (6, 0, 6),
        other.warehouse_id: (4, 0, 4),
    }
    outgoing, incoming = made.movements
    assert (outgoing.delta, outgoing.on_hand_after, outgoing.warehouse_id) == (
        -4,
        6,
        MAIN_WAREHOUSE,
    )
    assert (incoming.delta, incoming.on_hand_after) == (4, 4)
    assert {outgoing.reason, incoming.reason} == {MovementReason.TRANSFERRED}
    assert {outgoing.reference, incoming.reference} == {made.transfer_id}
    assert (made.quantity, made.actor) == (4, STAFF.actor.audit_name)
    assert await inventory_app.stockroom.get_transfer(STAFF, made.transfer_id) == made
    assert await inventory_app.available(tea.product_id) == 10


async def test_transfer_is_idempotent_by_id(inventory_app: InventoryApp) -> None:
    tea = await inventory_app.product(stock=10)
    other = await inventory_app.warehouse()
    attempt = no_key()
    command = NewTransfer(
        product_id=tea.product_id,
        from_warehouse_id=MAIN_WAREHOUSE,
        to_warehouse_id=other.warehouse_id,
        quantity=7,
    )

    made = await gather(
        *(inventory_app.stockroom.transfer(STAFF, command, attempt) for _ in range(5))
    )

    assert made == [made[0]] * 5
    assert made[0].transfer_id == attempt.id
    assert (await levels(inventory_app, tea.product_id))[MAIN_WAREHOUSE] == (3, 0, 3)


async def test_reserved_stock_cannot_be_transferred(inventory_app: InventoryApp) -> None:
    tea = await inventory_app.product(stock=10)
    other = await inventory_app.warehouse()
    await inventory_app.reserve({tea.product_id: 4})

    with pytest.raises(WouldGoNegative) as raised:
        await transfer(inventory_app, tea.product_id, other.warehouse_id, 7)
    await transfer(inventory_app, tea.product_id, other.warehouse_id, 6)

    assert raised.value.details == {"on_hand": 10, "reserved": 4}
    assert (await levels(inventory_app, tea.product_id))[MAIN_WAREHOUSE] == (4, 4, 0)


async def test_stock_of_expired_reservations_can_be_transferred(
    inventory_app: InventoryApp,
) -> None:
    tea = await inventory_app.product(stock=10)
    other = await inventory_app.warehouse()
    await inventory_app.reserve({tea.product_id: 4}, minutes=5)
    inventory_app.clock.advance(minutes=6)

    await transfer(inventory_app, tea.product_id, other.warehouse_id, 10)

    assert (await levels(inventory_app, tea.product_id))[other.warehouse_id] == (10, 0, 10)


async def test_invalid_transfer_is_rejected(inventory_app: InventoryApp) -> None:
    tea = await inventory_app.product(stock=1)
    other = await inventory_app.warehouse()
    inactive = await close(inventory_app, await inventory_app.warehouse())

    with pytest.raises(ValidationFailed):
        await transfer(inventory_app, tea.product_id, MAIN_WAREHOUSE, 1)
    with pytest.raises(WarehouseNotFound):
        await transfer(inventory_app, tea.product_id, new_id(), 1)
    with pytest.raises(WarehouseNotFound):
        await transfer(inventory_app, tea.product_id, MAIN_WAREHOUSE, 1, source=new_id())
    with pytest.raises(WarehouseClosed):
        await transfer(inventory_app, tea.product_id, inactive.warehouse_id, 1)
    with pytest.raises(ProductNotFound):
        await transfer(inventory_app, new_id(), other.warehouse_id, 1)
    with pytest.raises(WouldGoNegative):
        await transfer(inventory_app, tea.product_id, MAIN_WAREHOUSE, 1, source=other.warehouse_id)
    with pytest.raises(TransferNotFound):
        await inventory_app.stockroom.get_transfer(STAFF, new_id())

    assert await levels(inventory_app, tea.product_id) == {MAIN_WAREHOUSE: (1, 0, 1)}


async def test_opposite_transfers_do_not_deadlock(inventory_app: InventoryApp) -> None:
    tea = await inventory_app.product(stock=50)
    other = await inventory_app.warehouse()
    await transfer(inventory_app, tea.product_id, other.warehouse_id, 25)

    await gather(
        *(transfer(inventory_app, tea.product_id, other.warehouse_id, 1) for _ in range(8)),
        *(
            transfer(inventory_app, tea.product_id, MAIN_WAREHOUSE, 1, source=other.warehouse_id)
            for _ in range(8)
        ),
        *(inventory_app.reserve({tea.product_id: 2}) for _ in range(8)),
    )

    stock = await inventory_app.stockroom.get_stock(STAFF, tea.product_id)
    assert sum(level.on_hand for level in stock.warehouses) == 50
    assert stock.available == 34


# Historical stock


async def test_historical_stock_is_sum_of_earlier_movements(
    inventory_app: InventoryApp,
) -> None:
    tea = await inventory_app.product()
    other = await inventory_app.warehouse()
    start = inventory_app.clock.now
    inventory_app.clock.advance(hours=1)
    await inventory_app.adjust(tea.product_id, delta=10)
    inventory_app.clock.advance(hours=1)
    await transfer(inventory_app, tea.product_id, other.warehouse_id, 4)
    inventory_app.clock.advance(hours=1)
    await inventory_app.adjust(tea.product_id, "counted", counted=5)

    async def stock_after(hours: float) -> tuple[int, list[int]]:
        at = start + timedelta(hours=hours)
        stock = await inventory_app.stockroom.get_stock_at(STAFF, tea.product_id, at)
        assert stock.at == at
        return stock.on_hand, [level.on_hand for level in stock.warehouses]

    assert await stock_after(0.5) == (0, [0, 0])
    assert await stock_after(1.5) == (10, [10, 0])
    assert await stock_after(2.5) == (10, [6, 4])
    assert await stock_after(3.5) == (9, [5, 4])
    with pytest.raises(ProductNotFound):
        await inventory_app.stockroom.get_stock_at(STAFF, new_id(), start)


# Stocktakes


async def test_stocktake_reports_differences(inventory_app: InventoryApp) -> None:
    tea = await inventory_app.product("TEA", stock=10)
    await inventory_app.product("CUP", stock=3)

    stocktake = await record_stocktake(
        inventory_app, {"sku": "cup", "counted": 5}, {"product_id": tea.product_id, "counted": 8}
    )

    assert {(line.sku, line.counted, line.delta) for line in stocktake.lines} == {
        ("TEA", 8, -2),
        ("CUP", 5, 2),
    }
    tea_line = next(line for line in stocktake.lines if line.sku == "TEA")
    last = (await ledger(inventory_app, tea.product_id))[-1]
    assert (last.reason, last.delta, last.on_hand_after) == (MovementReason.COUNTED, -2, 8)
    assert last.reference == stocktake.stocktake_id
    assert tea_line.movement_id == last.movement_id
    assert await inventory_app.stockroom.get_stocktake(STAFF, stocktake.stocktake_id) == stocktake


async def test_unchanged_count_is_recorded(inventory_app: InventoryApp) -> None:
    tea = await inventory_app.product("TEA", stock=10)

    stocktake = await record_stocktake(inventory_app, {"sku": "TEA", "counted": 10})

    assert stocktake.lines[0].delta == 0
    assert (await ledger(inventory_app, tea.product_id))[-1].reason == MovementReason.COUNTED


async def test_stocktake_works_in_other_warehouse(inventory_app: InventoryApp) -> None:
    tea = await inventory_app.product("TEA", stock=10)
    other = await inventory_app.warehouse()

    stocktake = await record_stocktake(
        inventory_app,
        {"sku": "TEA", "counted": 6},
        warehouse_id=other.warehouse_id,
        note="found some",
    )

    assert (stocktake.warehouse_id, stocktake.note) == (other.warehouse_id, "found some")
    assert (await levels(inventory_app, tea.product_id))[other.warehouse_id] == (6, 0, 6)


async def test_stocktake_is_atomic_when_one_line_is_below_reserved(
    inventory_app: InventoryApp,
) -> None:
    tea, cup = (
        await inventory_app.product("TEA", stock=10),
        await inventory_app.product("CUP", stock=3),
    )
    await inventory_app.reserve({cup.product_id: 2})

    with pytest.raises(WouldGoNegative) as raised:
        await record_stocktake(
            inventory_app, {"sku": "TEA", "counted": 8}, {"sku": "CUP", "counted": 1}
        )

    assert raised.value.details == {
        "lines": [{"product_id": str(cup.product_id), "counted": 1, "on_hand": 3, "reserved": 2}]
    }
    assert await inventory_app.main_stock(tea.product_id) == (10, 0)


async def test_expired_reservations_do_not_block_stocktake(inventory_app: InventoryApp) -> None:
    cup = await inventory_app.product("CUP", stock=3)
    await inventory_app.reserve({cup.product_id: 2}, minutes=5)
    inventory_app.clock.advance(minutes=6)

    await record_stocktake(inventory_app, {"sku": "CUP", "counted": 1})

    assert await inventory_app.main_stock(cup.product_id) == (1, 0)


async def test_stocktake_is_idempotent_by_id(inventory_app: InventoryApp) -> None:
    tea = await inventory_app.product("TEA", stock=10)
    attempt = no_key()
    command = NewStocktake.model_validate({"lines": [{"sku": "TEA", "counted": 7}]})

    made = await gather(
        *(inventory_app.stockroom.record_stocktake(STAFF, command, attempt) for _ in range(5))
    )

    assert made == [made[0]] * 5
    assert len(await ledger(inventory_app, tea.product_id)) == 2


async def test_invalid_stocktake_is_rejected(inventory_app: InventoryApp) -> None:
    tea = await inventory_app.product("TEA", stock=1)

    with pytest.raises(ValidationFailed):
        await record_stocktake(inventory_app, {"counted": 1})
    with pytest.raises(ValidationFailed):
        await record_stocktake(
            inventory_app, {"sku": "TEA", "product_id": tea.product_id, "counted": 1}
        )
    with pytest.raises(ValidationFailed) as duplicate:
        await record_stocktake(
            inventory_app,
            {"sku": "TEA", "counted": 1},
            {"product_id": tea.product_id, "counted": 2},
        )
    with pytest.raises(ProductNotFound) as unknown:
        await record_stocktake(inventory_app, {"sku": "CUP", "counted": 1})
    with pytest.raises(ProductNotFound):
        await record_stocktake(inventory_app, {"product_id": new_id(), "counted": 1})
    with pytest.raises(WarehouseNotFound):
        await record_stocktake(inventory_app, {"sku": "TEA", "counted": 1}, warehouse_id=new_id())
    with pytest.raises(StocktakeNotFound):
        await inventory_app.stockroom.get_stocktake(STAFF, new_id())

    assert duplicate.value.details["errors"][0]["field"] == "/lines/1"
    assert unknown.value.details == {"sku": "CUP"}
    assert len(await ledger(inventory_app, tea.product_id)) == 1


async def test_sale_reference_is_not_a_transfer_or_stocktake(inventory_app: InventoryApp) -> None:
    tea = await inventory_app.product(stock=3)
    held = await inventory_app.reserve({tea.product_id: 1})
    sale = consume_command(held.reservation_id, {tea.product_id: 1})
    await inventory_app.inventory.consume(ANYONE, sale)

    with pytest.raises(TransferNotFound):
        await inventory_app.stockroom.get_transfer(STAFF, sale.fulfilment_id)
    with pytest.raises(StocktakeNotFound):
        await inventory_app.stockroom.get_stocktake(STAFF, sale.fulfilment_id)
