"""Every implementation of Stockroom keeps these promises."""

from asyncio import gather
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from markethall.inventory.contract import (
    Movement,
    NewStocktake,
    NewTransfer,
    ProductNotFound,
    Reason,
    Stocktake,
    StocktakeNotFound,
    Transfer,
    TransferNotFound,
    Warehouse,
    WarehouseChange,
    WarehouseClosed,
    WarehouseInUse,
    WarehouseNotFound,
    WouldGoNegative,
)
from markethall.inventory.domain import MAIN_WAREHOUSE
from markethall.shared.errors import Invalid
from markethall.shared.ids import new_id
from markethall.shared.pages import PageQuery
from tests.inventory.conftest import ANYONE, STAFF, House, leaving, no_key


async def levels(house: House, product_id: UUID) -> dict[UUID, tuple[int, int, int]]:
    """Per warehouse: on hand, reserved, available."""
    stock = await house.stockroom.stock(STAFF, product_id)
    return {
        one.warehouse_id: (one.on_hand, one.reserved, one.available) for one in stock.warehouses
    }


async def moved(
    house: House, product_id: UUID, to: UUID, quantity: int, *, since: UUID = MAIN_WAREHOUSE
) -> Transfer:
    command = NewTransfer(
        product_id=product_id, from_warehouse_id=since, to_warehouse_id=to, quantity=quantity
    )
    return await house.stockroom.transfer(STAFF, command, no_key())


async def counted(house: House, *lines: dict[str, Any], **fields: Any) -> Stocktake:
    command = NewStocktake.model_validate({"lines": lines} | fields)
    return await house.stockroom.count(STAFF, command, no_key())


async def ledger(house: House, product_id: UUID) -> list[Movement]:
    """The oldest first."""
    page = await house.stockroom.movements(STAFF, product_id, PageQuery(limit=100))
    return list(reversed(page.items))


async def closed(house: House, warehouse: Warehouse) -> Warehouse:
    command = WarehouseChange(active=False)
    seen = {warehouse.version}
    return await house.warehouses.change(STAFF, warehouse.warehouse_id, command, seen)


# Counting


@pytest.mark.parametrize(("on_hand", "reason"), [(0, "adjusted"), (3, "lost"), (3, "counted")])
async def test_a_count_that_finds_what_was_known_is_just_a_count(
    house: House, on_hand: int, reason: str
) -> None:
    tea = await house.product(stock=on_hand)

    movement = await house.adjust(tea.product_id, reason, counted=on_hand)

    assert (movement.delta, movement.on_hand_after) == (0, on_hand)
    assert movement.reason == Reason.COUNTED


async def test_a_count_that_finds_another_number_keeps_its_reason(house: House) -> None:
    tea = await house.product(stock=3)

    movement = await house.adjust(tea.product_id, "damaged", counted=1)

    assert (movement.delta, movement.reason) == (-2, Reason.DAMAGED)


# Several warehouses


async def test_a_shelf_is_there_once_goods_go_there(house: House) -> None:
    tea = await house.product(stock=3)
    other = await house.warehouse()

    before = await levels(house, tea.product_id)
    await house.adjust(tea.product_id, delta=5, warehouse_id=other.warehouse_id)

    assert before == {MAIN_WAREHOUSE: (3, 0, 3)}
    assert await levels(house, tea.product_id) == {
        MAIN_WAREHOUSE: (3, 0, 3),
        other.warehouse_id: (5, 0, 5),
    }
    assert await house.available(tea.product_id) == 8


async def test_nothing_is_taken_from_a_shelf_that_is_not_there(house: House) -> None:
    tea = await house.product(stock=3)
    other = await house.warehouse()

    with pytest.raises(WouldGoNegative) as refusal:
        await house.adjust(tea.product_id, "lost", delta=-1, warehouse_id=other.warehouse_id)

    assert refusal.value.details == {"on_hand": 0, "reserved": 0}
    assert await levels(house, tea.product_id) == {MAIN_WAREHOUSE: (3, 0, 3)}


async def test_goods_need_a_warehouse_that_is_there_and_open(house: House) -> None:
    tea = await house.product(stock=3)
    shut = await closed(house, await house.warehouse())
    other = await house.warehouse()

    with pytest.raises(WarehouseNotFound):
        await house.adjust(tea.product_id, delta=1, warehouse_id=new_id())
    with pytest.raises(WarehouseClosed) as refusal:
        await house.adjust(tea.product_id, delta=1, warehouse_id=shut.warehouse_id)
    with pytest.raises(ProductNotFound):
        await house.adjust(new_id(), delta=1, warehouse_id=other.warehouse_id)

    assert refusal.value.details == {"warehouse_id": str(shut.warehouse_id)}


async def test_a_warehouse_with_goods_is_not_closed_and_one_that_had_some_is_not_deleted(
    house: House,
) -> None:
    tea = await house.product()
    other = await house.warehouse()
    await house.adjust(tea.product_id, delta=2, warehouse_id=other.warehouse_id)

    with pytest.raises(WarehouseInUse) as refusal:
        await closed(house, other)
    await house.adjust(tea.product_id, "lost", delta=-2, warehouse_id=other.warehouse_id)
    with pytest.raises(WarehouseInUse):
        await house.warehouses.delete(STAFF, other.warehouse_id, {1})
    after = await closed(house, other)

    assert refusal.value.details == {"warehouse_id": str(other.warehouse_id)}
    assert not after.active


async def test_goods_that_come_while_it_is_closed_are_refused_or_keep_it_open(house: House) -> None:
    tea = await house.product()
    for _ in range(5):
        other = await house.warehouse()

        await gather(
            closed(house, other),
            house.adjust(tea.product_id, delta=1, warehouse_id=other.warehouse_id),
            return_exceptions=True,
        )

        active = (await house.warehouses.warehouse(STAFF, other.warehouse_id)).active
        here = (await levels(house, tea.product_id)).get(other.warehouse_id, (0, 0, 0))
        assert here == ((1, 0, 1) if active else (0, 0, 0))


# Transfers


async def test_goods_go_from_one_warehouse_to_another(house: House) -> None:
    tea = await house.product(stock=10)
    other = await house.warehouse()

    transfer = await moved(house, tea.product_id, other.warehouse_id, 4)

    assert await levels(house, tea.product_id) == {
        MAIN_WAREHOUSE: (6, 0, 6),
        other.warehouse_id: (4, 0, 4),
    }
    leaves, arrives = transfer.movements
    assert (leaves.delta, leaves.on_hand_after, leaves.warehouse_id) == (-4, 6, MAIN_WAREHOUSE)
    assert (arrives.delta, arrives.on_hand_after) == (4, 4)
    assert {leaves.reason, arrives.reason} == {Reason.TRANSFERRED}
    assert {leaves.reference, arrives.reference} == {transfer.transfer_id}
    assert (transfer.quantity, transfer.actor) == (4, STAFF.actor.known_as)
    assert await house.stockroom.transfer_made(STAFF, transfer.transfer_id) == transfer
    assert await house.available(tea.product_id) == 10


async def test_a_transfer_is_made_once_per_id(house: House) -> None:
    tea = await house.product(stock=10)
    other = await house.warehouse()
    attempt = no_key()
    command = NewTransfer(
        product_id=tea.product_id,
        from_warehouse_id=MAIN_WAREHOUSE,
        to_warehouse_id=other.warehouse_id,
        quantity=7,
    )

    made = await gather(*(house.stockroom.transfer(STAFF, command, attempt) for _ in range(5)))

    assert made == [made[0]] * 5
    assert made[0].transfer_id == attempt.id
    assert (await levels(house, tea.product_id))[MAIN_WAREHOUSE] == (3, 0, 3)


async def test_what_is_reserved_stays_where_it_is(house: House) -> None:
    tea = await house.product(stock=10)
    other = await house.warehouse()
    await house.reserve({tea.product_id: 4})

    with pytest.raises(WouldGoNegative) as refusal:
        await moved(house, tea.product_id, other.warehouse_id, 7)
    await moved(house, tea.product_id, other.warehouse_id, 6)

    assert refusal.value.details == {"on_hand": 10, "reserved": 4}
    assert (await levels(house, tea.product_id))[MAIN_WAREHOUSE] == (4, 4, 0)


async def test_what_expired_holds_have_can_be_moved(house: House) -> None:
    tea = await house.product(stock=10)
    other = await house.warehouse()
    await house.reserve({tea.product_id: 4}, minutes=5)
    house.watch.forward(minutes=6)

    await moved(house, tea.product_id, other.warehouse_id, 10)

    assert (await levels(house, tea.product_id))[other.warehouse_id] == (10, 0, 10)


async def test_a_transfer_that_cannot_be_is_refused(house: House) -> None:
    tea = await house.product(stock=1)
    other = await house.warehouse()
    shut = await closed(house, await house.warehouse())

    with pytest.raises(Invalid):
        await moved(house, tea.product_id, MAIN_WAREHOUSE, 1)
    with pytest.raises(WarehouseNotFound):
        await moved(house, tea.product_id, new_id(), 1)
    with pytest.raises(WarehouseNotFound):
        await moved(house, tea.product_id, MAIN_WAREHOUSE, 1, since=new_id())
    with pytest.raises(WarehouseClosed):
        await moved(house, tea.product_id, shut.warehouse_id, 1)
    with pytest.raises(ProductNotFound):
        await moved(house, new_id(), other.warehouse_id, 1)
    with pytest.raises(WouldGoNegative):
        await moved(house, tea.product_id, MAIN_WAREHOUSE, 1, since=other.warehouse_id)
    with pytest.raises(TransferNotFound):
        await house.stockroom.transfer_made(STAFF, new_id())

    assert await levels(house, tea.product_id) == {MAIN_WAREHOUSE: (1, 0, 1)}


async def test_transfers_both_ways_at_once_never_wait_for_each_other(house: House) -> None:
    tea = await house.product(stock=50)
    other = await house.warehouse()
    await moved(house, tea.product_id, other.warehouse_id, 25)

    await gather(
        *(moved(house, tea.product_id, other.warehouse_id, 1) for _ in range(8)),
        *(
            moved(house, tea.product_id, MAIN_WAREHOUSE, 1, since=other.warehouse_id)
            for _ in range(8)
        ),
        *(house.reserve({tea.product_id: 2}) for _ in range(8)),
    )

    stock = await house.stockroom.stock(STAFF, tea.product_id)
    assert sum(one.on_hand for one in stock.warehouses) == 50
    assert stock.available == 34


# On hand at a time


async def test_what_was_on_hand_at_a_time_is_the_sum_of_what_was_moved_by_then(
    house: House,
) -> None:
    tea = await house.product()
    other = await house.warehouse()
    start = house.watch.now
    house.watch.forward(hours=1)
    await house.adjust(tea.product_id, delta=10)
    house.watch.forward(hours=1)
    await moved(house, tea.product_id, other.warehouse_id, 4)
    house.watch.forward(hours=1)
    await house.adjust(tea.product_id, "counted", counted=5)

    async def then(hours: float) -> tuple[int, list[int]]:
        at = start + timedelta(hours=hours)
        stock = await house.stockroom.stock_at(STAFF, tea.product_id, at)
        assert stock.at == at
        return stock.on_hand, [one.on_hand for one in stock.warehouses]

    assert await then(0.5) == (0, [0, 0])
    assert await then(1.5) == (10, [10, 0])
    assert await then(2.5) == (10, [6, 4])
    assert await then(3.5) == (9, [5, 4])
    with pytest.raises(ProductNotFound):
        await house.stockroom.stock_at(STAFF, new_id(), start)


# Stocktakes


async def test_a_stocktake_says_what_was_found(house: House) -> None:
    tea = await house.product("TEA", stock=10)
    await house.product("CUP", stock=3)

    stocktake = await counted(
        house, {"sku": "cup", "counted": 5}, {"product_id": tea.product_id, "counted": 8}
    )

    assert {(line.sku, line.counted, line.delta) for line in stocktake.lines} == {
        ("TEA", 8, -2),
        ("CUP", 5, 2),
    }
    of_tea = next(line for line in stocktake.lines if line.sku == "TEA")
    last = (await ledger(house, tea.product_id))[-1]
    assert (last.reason, last.delta, last.on_hand_after) == (Reason.COUNTED, -2, 8)
    assert last.reference == stocktake.stocktake_id
    assert of_tea.movement_id == last.movement_id
    assert await house.stockroom.stocktake(STAFF, stocktake.stocktake_id) == stocktake


async def test_a_count_that_finds_what_was_expected_is_in_the_ledger_too(house: House) -> None:
    tea = await house.product("TEA", stock=10)

    stocktake = await counted(house, {"sku": "TEA", "counted": 10})

    assert stocktake.lines[0].delta == 0
    assert (await ledger(house, tea.product_id))[-1].reason == Reason.COUNTED


async def test_another_warehouse_is_counted_too(house: House) -> None:
    tea = await house.product("TEA", stock=10)
    other = await house.warehouse()

    stocktake = await counted(
        house, {"sku": "TEA", "counted": 6}, warehouse_id=other.warehouse_id, note="found some"
    )

    assert (stocktake.warehouse_id, stocktake.note) == (other.warehouse_id, "found some")
    assert (await levels(house, tea.product_id))[other.warehouse_id] == (6, 0, 6)


async def test_no_line_is_taken_over_when_one_says_less_than_is_reserved(house: House) -> None:
    tea, cup = await house.product("TEA", stock=10), await house.product("CUP", stock=3)
    await house.reserve({cup.product_id: 2})

    with pytest.raises(WouldGoNegative) as refusal:
        await counted(house, {"sku": "TEA", "counted": 8}, {"sku": "CUP", "counted": 1})

    assert refusal.value.details == {
        "lines": [{"product_id": str(cup.product_id), "counted": 1, "on_hand": 3, "reserved": 2}]
    }
    assert await house.shelf(tea.product_id) == (10, 0)


async def test_what_expired_holds_have_does_not_stand_in_the_way_of_a_count(house: House) -> None:
    cup = await house.product("CUP", stock=3)
    await house.reserve({cup.product_id: 2}, minutes=5)
    house.watch.forward(minutes=6)

    await counted(house, {"sku": "CUP", "counted": 1})

    assert await house.shelf(cup.product_id) == (1, 0)


async def test_a_stocktake_is_made_once_per_id(house: House) -> None:
    tea = await house.product("TEA", stock=10)
    attempt = no_key()
    command = NewStocktake.model_validate({"lines": [{"sku": "TEA", "counted": 7}]})

    made = await gather(*(house.stockroom.count(STAFF, command, attempt) for _ in range(5)))

    assert made == [made[0]] * 5
    assert len(await ledger(house, tea.product_id)) == 2


async def test_a_stocktake_that_cannot_be_is_refused(house: House) -> None:
    tea = await house.product("TEA", stock=1)

    with pytest.raises(Invalid):
        await counted(house, {"counted": 1})
    with pytest.raises(Invalid):
        await counted(house, {"sku": "TEA", "product_id": tea.product_id, "counted": 1})
    with pytest.raises(Invalid) as twice:
        await counted(
            house, {"sku": "TEA", "counted": 1}, {"product_id": tea.product_id, "counted": 2}
        )
    with pytest.raises(ProductNotFound) as unnamed:
        await counted(house, {"sku": "CUP", "counted": 1})
    with pytest.raises(ProductNotFound):
        await counted(house, {"product_id": new_id(), "counted": 1})
    with pytest.raises(WarehouseNotFound):
        await counted(house, {"sku": "TEA", "counted": 1}, warehouse_id=new_id())
    with pytest.raises(StocktakeNotFound):
        await house.stockroom.stocktake(STAFF, new_id())

    assert twice.value.details["errors"][0]["field"] == "/lines/1"
    assert unnamed.value.details == {"sku": "CUP"}
    assert len(await ledger(house, tea.product_id)) == 1


async def test_a_sale_is_neither_a_transfer_nor_a_stocktake(house: House) -> None:
    tea = await house.product(stock=3)
    held = await house.reserve({tea.product_id: 1})
    sale = leaving(held.reservation_id, {tea.product_id: 1})
    await house.inventory.consume(ANYONE, sale)

    with pytest.raises(TransferNotFound):
        await house.stockroom.transfer_made(STAFF, sale.fulfilment_id)
    with pytest.raises(StocktakeNotFound):
        await house.stockroom.stocktake(STAFF, sale.fulfilment_id)
