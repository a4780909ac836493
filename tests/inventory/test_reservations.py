"""The contract suite of `Inventory`: duration, customer limits, partial releases, warehouses."""

from asyncio import gather
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from markethall.inventory.contract import (
    Extend,
    MergeReservations,
    OutOfStock,
    ReservationClosed,
    ReservationStatus,
    ReservationView,
    Reserve,
    TooManyUnits,
    TooManyUnpaidOrders,
)
from markethall.inventory.reservations.contract import ReservationQuery
from markethall.inventory.stock.domain import MAIN_WAREHOUSE
from markethall.shared.kernel.ids import new_id
from markethall.shared.kernel.pagination import PageQuery
from markethall.shared.observability.metrics import STATEMENTS
from tests.inventory.conftest import (
    ANYONE,
    MAX_RESERVED_UNITS,
    MAX_UNPAID_ORDERS,
    STAFF,
    InventoryApp,
    consume_command,
    partial_release_command,
)
from tests.inventory.test_contract import count_errors, run_concurrently
from tests.inventory.warehouse_fixtures import (
    EAST,
    NORTH,
    SOUTH,
    receive_in_warehouse,
    stock_by_warehouse,
)

HELD, COMMITTED, RELEASED, CONSUMED, EXPIRED = (
    ReservationStatus.HELD,
    ReservationStatus.COMMITTED,
    ReservationStatus.RELEASED,
    ReservationStatus.CONSUMED,
    ReservationStatus.EXPIRED,
)


def minutes(count: float) -> timedelta:
    return timedelta(minutes=count)


def extend_command(reservation: ReservationView, until: datetime) -> Extend:
    return Extend(reservation_id=reservation.reservation_id, expires_at=until)


def order_of(
    inventory_app: InventoryApp, customer_id: UUID, requested: dict[UUID, int], **more: Any
) -> Reserve:
    return inventory_app.order(requested, **more).model_copy(update={"customer_id": customer_id})


# Duration


async def test_overdue_reservation_is_expired_before_expiry_job(
    inventory_app: InventoryApp,
) -> None:
    tea = await inventory_app.product(stock=5)
    order = inventory_app.order({tea.product_id: 2}, minutes=1)
    await inventory_app.inventory.reserve(ANYONE, order)
    inventory_app.clock.advance(minutes=2)

    page = await inventory_app.reservations.list_reservations(
        STAFF, ReservationQuery(order_id=order.order_id)
    )
    again = await inventory_app.inventory.reserve(ANYONE, order)

    assert [reservation.status for reservation in page.items] == [EXPIRED]
    assert again.status == EXPIRED


async def test_reservation_lasts_at_most_fifteen_minutes(inventory_app: InventoryApp) -> None:
    tea = await inventory_app.product(stock=5)
    start = inventory_app.clock.now

    late = await inventory_app.reserve({tea.product_id: 1}, minutes=40)
    early = await inventory_app.reserve({tea.product_id: 1}, minutes=5)

    assert minutes(15) < late.expires_at - start < minutes(15.01)
    assert minutes(5) <= early.expires_at - start < minutes(5.01)


async def test_extended_reservation_lasts_at_most_91_days(
    inventory_app: InventoryApp,
) -> None:
    tea = await inventory_app.product(stock=5)
    held = await inventory_app.reserve({tea.product_id: 1}, minutes=40)
    since = held.expires_at - minutes(15)

    longer = await inventory_app.inventory.extend(ANYONE, extend_command(held, since + minutes(20)))
    inventory_app.clock.advance(minutes=19)
    longest = await inventory_app.inventory.extend(
        ANYONE, extend_command(held, since + minutes(91 * 1440 + 50))
    )
    shorter = await inventory_app.inventory.extend(
        ANYONE, extend_command(held, since + minutes(22))
    )

    assert longer.expires_at == since + minutes(20)
    assert longest.expires_at == shorter.expires_at == since + minutes(91 * 1440)
    assert (longest.status, longest.lines) == (HELD, held.lines)


async def test_expiry_job_skips_extended_reservation(inventory_app: InventoryApp) -> None:
    tea = await inventory_app.product(stock=5)
    held = await inventory_app.reserve({tea.product_id: 3}, minutes=10)
    await inventory_app.inventory.extend(
        ANYONE, extend_command(held, held.expires_at + minutes(10))
    )
    inventory_app.clock.advance(minutes=15)

    await inventory_app.run_periodic_jobs()
    available_before_end = await inventory_app.available(tea.product_id)
    inventory_app.clock.advance(minutes=6)

    assert available_before_end == 2
    assert await inventory_app.available(tea.product_id) == 5


async def test_ended_reservation_is_not_extended(inventory_app: InventoryApp) -> None:
    tea = await inventory_app.product(stock=9)
    released, paid, overdue = [await inventory_app.reserve({tea.product_id: 1}) for _ in range(3)]
    await inventory_app.inventory.release(ANYONE, released.reservation_id)
    await inventory_app.inventory.commit(ANYONE, paid.reservation_id)
    inventory_app.clock.advance(minutes=16)
    unknown = overdue.model_copy(update={"reservation_id": new_id()})

    statuses = []
    for ended in (released, paid, overdue, unknown):
        with pytest.raises(ReservationClosed) as raised:
            await inventory_app.inventory.extend(
                ANYONE, extend_command(ended, ended.expires_at + minutes(10))
            )
        statuses.append(raised.value.details["status"])

    assert statuses == ["released", "committed", "expired", None]


# Customer limits


async def test_unpaid_orders_per_customer_are_limited(inventory_app: InventoryApp) -> None:
    tea, buyer = await inventory_app.product(stock=50), new_id()
    for _ in range(MAX_UNPAID_ORDERS):
        await inventory_app.inventory.reserve(
            ANYONE, order_of(inventory_app, buyer, {tea.product_id: 1})
        )

    with pytest.raises(TooManyUnpaidOrders) as raised:
        await inventory_app.inventory.reserve(
            ANYONE, order_of(inventory_app, buyer, {tea.product_id: 1})
        )

    assert raised.value.details == {"limit": MAX_UNPAID_ORDERS, "open": MAX_UNPAID_ORDERS}
    assert await inventory_app.main_stock(tea.product_id) == (50, MAX_UNPAID_ORDERS)
    assert (await inventory_app.reserve({tea.product_id: 1})).status == HELD


async def test_only_open_reservations_count_towards_limit(inventory_app: InventoryApp) -> None:
    tea, buyer = await inventory_app.product(stock=50), new_id()

    async def reserve(end: float = 15) -> ReservationView:
        command = order_of(inventory_app, buyer, {tea.product_id: 1}, minutes=end)
        return await inventory_app.inventory.reserve(ANYONE, command)

    paid, released, overdue = await reserve(), await reserve(), await reserve(5)
    await inventory_app.inventory.commit(ANYONE, paid.reservation_id)
    await inventory_app.inventory.release(ANYONE, released.reservation_id)
    inventory_app.clock.advance(minutes=6)

    again = [await reserve() for _ in range(MAX_UNPAID_ORDERS)]

    assert [reservation.status for reservation in again] == [HELD] * MAX_UNPAID_ORDERS
    assert overdue.status == HELD


async def test_repeated_reserve_does_not_count_twice(inventory_app: InventoryApp) -> None:
    tea, buyer = await inventory_app.product(stock=50), new_id()
    commands = [
        order_of(inventory_app, buyer, {tea.product_id: 1}) for _ in range(MAX_UNPAID_ORDERS)
    ]

    first = [await inventory_app.inventory.reserve(ANYONE, command) for command in commands]
    again = [await inventory_app.inventory.reserve(ANYONE, command) for command in commands]

    assert first == again


async def test_paid_reservation_is_not_limited(inventory_app: InventoryApp) -> None:
    tea, buyer = await inventory_app.product(stock=1000), new_id()
    for _ in range(MAX_UNPAID_ORDERS):
        await inventory_app.inventory.reserve(
            ANYONE, order_of(inventory_app, buyer, {tea.product_id: 1})
        )
    paid = order_of(inventory_app, buyer, {tea.product_id: MAX_RESERVED_UNITS + 1})

    held = await inventory_app.inventory.reserve(ANYONE, paid.model_copy(update={"limited": False}))

    assert held.lines[0].quantity == MAX_RESERVED_UNITS + 1


async def test_reserved_units_per_customer_are_limited(inventory_app: InventoryApp) -> None:
    tea, cup, buyer = (
        await inventory_app.product(stock=500),
        await inventory_app.product(stock=500),
        new_id(),
    )
    first = {tea.product_id: MAX_RESERVED_UNITS - 10, cup.product_id: 1}
    await inventory_app.inventory.reserve(ANYONE, order_of(inventory_app, buyer, first))

    more = {tea.product_id: 11, cup.product_id: 11}
    with pytest.raises(TooManyUnits) as raised:
        await inventory_app.inventory.reserve(ANYONE, order_of(inventory_app, buyer, more))
    enough = order_of(inventory_app, buyer, {tea.product_id: 10})
    held = await inventory_app.inventory.reserve(ANYONE, enough)

    line = {"product_id": str(tea.product_id), "requested": 11, "held": MAX_RESERVED_UNITS - 10}
    assert raised.value.details == {"limit": MAX_RESERVED_UNITS, "lines": [line]}
    assert held.status == HELD
    assert await inventory_app.main_stock(cup.product_id) == (500, 1)


async def test_units_of_ended_reservations_do_not_count(inventory_app: InventoryApp) -> None:
    tea, buyer = await inventory_app.product(stock=500), new_id()
    all_units = {tea.product_id: MAX_RESERVED_UNITS}
    held = await inventory_app.inventory.reserve(
        ANYONE, order_of(inventory_app, buyer, all_units, minutes=5)
    )
    part = partial_release_command(held.reservation_id, {tea.product_id: 5})
    await inventory_app.inventory.release_part(ANYONE, part)

    five = await inventory_app.inventory.reserve(
        ANYONE, order_of(inventory_app, buyer, {tea.product_id: 5}, minutes=5)
    )
    inventory_app.clock.advance(minutes=6)
    again = await inventory_app.inventory.reserve(ANYONE, order_of(inventory_app, buyer, all_units))

    assert (five.status, again.status) == (HELD, HELD)


async def test_limits_hold_for_concurrent_reserves(inventory_app: InventoryApp) -> None:
    tea, buyer = await inventory_app.product(stock=50), new_id()
    commands = [order_of(inventory_app, buyer, {tea.product_id: 1}) for _ in range(12)]

    results = await run_concurrently(
        *(inventory_app.inventory.reserve(ANYONE, command) for command in commands)
    )

    assert count_errors(results, TooManyUnpaidOrders) == 12 - MAX_UNPAID_ORDERS
    assert await inventory_app.main_stock(tea.product_id) == (50, MAX_UNPAID_ORDERS)


# Partial releases


async def test_partial_release_is_idempotent(inventory_app: InventoryApp) -> None:
    tea, cup = await inventory_app.product(stock=5), await inventory_app.product(stock=5)
    held = await inventory_app.reserve({tea.product_id: 3, cup.product_id: 1})
    part = partial_release_command(held.reservation_id, {tea.product_id: 2})

    first = await inventory_app.inventory.release_part(ANYONE, part)
    again = await inventory_app.inventory.release_part(ANYONE, part)

    line = next(line for line in first.lines if line.product_id == tea.product_id)
    assert first == again
    assert (first.status, line.quantity, line.released) == (HELD, 3, 2)
    assert await inventory_app.main_stock(tea.product_id) == (5, 1)
    assert await inventory_app.main_stock(cup.product_id) == (5, 1)


async def test_concurrent_identical_partial_releases_apply_once(
    inventory_app: InventoryApp,
) -> None:
    tea = await inventory_app.product(stock=9)
    held = await inventory_app.reserve({tea.product_id: 9})
    part = partial_release_command(held.reservation_id, {tea.product_id: 2})

    await gather(*(inventory_app.inventory.release_part(ANYONE, part) for _ in range(10)))

    assert await inventory_app.main_stock(tea.product_id) == (9, 7)


async def test_last_partial_release_ends_reservation(inventory_app: InventoryApp) -> None:
    tea = await inventory_app.product(stock=9)
    unconsumed, partly_consumed = (
        await inventory_app.reserve({tea.product_id: 2}),
        await inventory_app.reserve({tea.product_id: 2}),
    )
    await inventory_app.inventory.consume(
        ANYONE, consume_command(partly_consumed.reservation_id, {tea.product_id: 1})
    )

    results = [
        await inventory_app.inventory.release_part(
            ANYONE, partial_release_command(held.reservation_id, {tea.product_id: n})
        )
        for held, n in ((unconsumed, 2), (partly_consumed, 1))
    ]

    assert [result.status for result in results] == [RELEASED, CONSUMED]
    assert await inventory_app.main_stock(tea.product_id) == (8, 0)


async def test_partial_release_above_remaining_is_rejected(inventory_app: InventoryApp) -> None:
    tea = await inventory_app.product(stock=9)
    held = await inventory_app.reserve({tea.product_id: 3})
    await inventory_app.inventory.consume(
        ANYONE, consume_command(held.reservation_id, {tea.product_id: 1})
    )

    with pytest.raises(ReservationClosed) as raised:
        await inventory_app.inventory.release_part(
            ANYONE, partial_release_command(held.reservation_id, {tea.product_id: 3})
        )

    line = {"product_id": str(tea.product_id), "requested": 3, "remaining": 2}
    assert raised.value.details["lines"] == [line]
    assert await inventory_app.main_stock(tea.product_id) == (8, 2)


async def test_partial_release_of_ended_reservation_is_rejected(
    inventory_app: InventoryApp,
) -> None:
    tea = await inventory_app.product(stock=9)
    released = await inventory_app.reserve({tea.product_id: 1})
    await inventory_app.inventory.release(ANYONE, released.reservation_id)

    for reservation_id in (released.reservation_id, new_id()):
        with pytest.raises(ReservationClosed):
            await inventory_app.inventory.release_part(
                ANYONE, partial_release_command(reservation_id, {tea.product_id: 1})
            )

    assert await inventory_app.main_stock(tea.product_id) == (9, 0)


# Merges


async def test_merge_moves_all_units_once(inventory_app: InventoryApp) -> None:
    tea, cup = await inventory_app.product(stock=9), await inventory_app.product(stock=5)
    kept, merged = await reserve_twice(
        inventory_app, {tea.product_id: 3}, {tea.product_id: 2, cup.product_id: 1}
    )
    command = merge_command(kept, merged)

    first = await inventory_app.inventory.merge(ANYONE, command)
    again = await inventory_app.inventory.merge(ANYONE, command)

    assert first == again
    assert {line.product_id: line.quantity for line in first.lines} == {
        tea.product_id: 5,
        cup.product_id: 1,
    }
    assert first.status == HELD
    assert await inventory_app.main_stock(tea.product_id) == (9, 5)
    assert await inventory_app.main_stock(cup.product_id) == (5, 1)
    await inventory_app.inventory.release(ANYONE, merged.reservation_id)
    assert await inventory_app.main_stock(tea.product_id) == (9, 5)
    await inventory_app.inventory.release(ANYONE, kept.reservation_id)
    assert await inventory_app.main_stock(tea.product_id) == (9, 0)
    assert await inventory_app.main_stock(cup.product_id) == (5, 0)


async def test_merge_of_held_into_committed_never_expires(inventory_app: InventoryApp) -> None:
    tea = await inventory_app.product(stock=9)
    kept, merged = await reserve_twice(inventory_app, {tea.product_id: 3}, {tea.product_id: 2})
    await inventory_app.inventory.commit(ANYONE, kept.reservation_id)
    await inventory_app.inventory.consume(
        ANYONE, consume_command(kept.reservation_id, {tea.product_id: 1})
    )

    result = await inventory_app.inventory.merge(ANYONE, merge_command(kept, merged))
    inventory_app.clock.advance(minutes=60)
    await inventory_app.run_periodic_jobs()

    [line] = result.lines
    assert (result.status, line.quantity, line.consumed) == (COMMITTED, 5, 1)
    assert await inventory_app.main_stock(tea.product_id) == (8, 4)
    shipped = await inventory_app.inventory.consume(
        ANYONE, consume_command(kept.reservation_id, {tea.product_id: 4})
    )
    assert shipped.status == CONSUMED
    assert await inventory_app.main_stock(tea.product_id) == (4, 0)


async def test_concurrent_identical_merges_apply_once(inventory_app: InventoryApp) -> None:
    tea, cup = await inventory_app.product(stock=9), await inventory_app.product(stock=9)
    both = {tea.product_id: 2, cup.product_id: 3}
    kept, merged = await reserve_twice(inventory_app, both, both)

    await gather(
        *(inventory_app.inventory.merge(ANYONE, merge_command(kept, merged)) for _ in range(10))
    )

    assert await inventory_app.main_stock(tea.product_id) == (9, 4)
    assert await inventory_app.main_stock(cup.product_id) == (9, 6)


@pytest.mark.parametrize("ended", ["kept", "merged"])
async def test_merge_of_an_ended_reservation_is_rejected(
    inventory_app: InventoryApp, ended: str
) -> None:
    tea = await inventory_app.product(stock=9)
    kept, merged = await reserve_twice(inventory_app, {tea.product_id: 3}, {tea.product_id: 2})
    if ended == "kept":
        await inventory_app.inventory.release(ANYONE, kept.reservation_id)
    else:
        await inventory_app.inventory.commit(ANYONE, kept.reservation_id)
        inventory_app.clock.advance(minutes=31)
        await inventory_app.run_periodic_jobs()

    with pytest.raises(ReservationClosed) as raised:
        await inventory_app.inventory.merge(ANYONE, merge_command(kept, merged))

    closed = kept if ended == "kept" else merged
    assert raised.value.details["reservation_id"] == str(closed.reservation_id)
    assert await inventory_app.main_stock(tea.product_id) == (9, 2 if ended == "kept" else 3)


async def test_reservations_of_two_orders_are_not_merged(inventory_app: InventoryApp) -> None:
    tea = await inventory_app.product(stock=9)
    one, other = [await inventory_app.reserve({tea.product_id: n}) for n in (2, 3)]

    for command in (
        merge_command(one, other),
        merge_command(one, one),
        MergeReservations(reservation_id=one.reservation_id, merged_reservation_id=new_id()),
    ):
        with pytest.raises(ReservationClosed):
            await inventory_app.inventory.merge(ANYONE, command)

    assert await inventory_app.main_stock(tea.product_id) == (9, 5)


async def reserve_twice(
    inventory_app: InventoryApp, first: dict[UUID, int], second: dict[UUID, int]
) -> tuple[ReservationView, ReservationView]:
    """Make two reservations of one order."""
    command = inventory_app.order(first)
    more = inventory_app.order(second).model_copy(update={"order_id": command.order_id})
    return (
        await inventory_app.inventory.reserve(ANYONE, command),
        await inventory_app.inventory.reserve(ANYONE, more),
    )


def merge_command(kept: ReservationView, merged: ReservationView) -> MergeReservations:
    return MergeReservations(
        reservation_id=kept.reservation_id, merged_reservation_id=merged.reservation_id
    )


async def test_late_commit_reserves_only_remaining_quantity(inventory_app: InventoryApp) -> None:
    tea = await inventory_app.product(stock=5)
    held = await inventory_app.reserve({tea.product_id: 4})
    await inventory_app.inventory.release_part(
        ANYONE, partial_release_command(held.reservation_id, {tea.product_id: 3})
    )
    inventory_app.clock.advance(minutes=16)
    await inventory_app.run_periodic_jobs()

    committed = await inventory_app.inventory.commit(ANYONE, held.reservation_id)

    assert (committed.lines[0].quantity, committed.lines[0].released) == (4, 3)
    assert await inventory_app.main_stock(tea.product_id) == (5, 1)


# Warehouses


async def test_main_warehouse_is_used_first(inventory_app: InventoryApp) -> None:
    tea = await inventory_app.product(stock=5)
    await receive_in_warehouse(inventory_app, tea.product_id, EAST, 9)

    await inventory_app.reserve({tea.product_id: 5})

    assert await stock_by_warehouse(inventory_app, tea.product_id) == {
        MAIN_WAREHOUSE: (5, 5),
        EAST: (9, 0),
    }


async def test_one_warehouse_is_preferred_to_two(inventory_app: InventoryApp) -> None:
    tea, cup = await inventory_app.product(stock=2), await inventory_app.product(stock=2)
    for product in (tea, cup):
        await receive_in_warehouse(inventory_app, product.product_id, EAST, 1)
        await receive_in_warehouse(inventory_app, product.product_id, SOUTH, 4)

    await inventory_app.reserve({tea.product_id: 3, cup.product_id: 1})

    for product, quantity in ((tea, 3), (cup, 1)):
        assert await stock_by_warehouse(inventory_app, product.product_id) == {
            MAIN_WAREHOUSE: (2, 0),
            EAST: (1, 0),
            SOUTH: (4, quantity),
        }


async def test_lower_priority_number_wins_for_equal_warehouse_count(
    inventory_app: InventoryApp,
) -> None:
    tea = await inventory_app.product(stock=1)
    for warehouse_id in (NORTH, EAST, SOUTH):
        await receive_in_warehouse(inventory_app, tea.product_id, warehouse_id, 4)

    await inventory_app.reserve({tea.product_id: 3})

    reserved = {
        warehouse_id: quantity
        for warehouse_id, (_, quantity) in (
            await stock_by_warehouse(inventory_app, tea.product_id)
        ).items()
    }
    assert reserved == {MAIN_WAREHOUSE: 0, NORTH: 0, EAST: 0, SOUTH: 3}


async def test_product_from_two_warehouses_is_one_line(inventory_app: InventoryApp) -> None:
    tea = await inventory_app.product(stock=2)
    await receive_in_warehouse(inventory_app, tea.product_id, EAST, 3)

    held = await inventory_app.reserve({tea.product_id: 4})

    assert [line.quantity for line in held.lines] == [4]
    assert await stock_by_warehouse(inventory_app, tea.product_id) == {
        MAIN_WAREHOUSE: (2, 2),
        EAST: (3, 2),
    }
    assert await inventory_app.available(tea.product_id) == 1


async def test_consume_and_release_across_two_warehouses(inventory_app: InventoryApp) -> None:
    tea = await inventory_app.product(stock=2)
    await receive_in_warehouse(inventory_app, tea.product_id, EAST, 3)
    held = await inventory_app.reserve({tea.product_id: 4})
    part = consume_command(held.reservation_id, {tea.product_id: 3})

    await inventory_app.inventory.consume(ANYONE, part)
    again = await inventory_app.inventory.consume(ANYONE, part)
    after = await stock_by_warehouse(inventory_app, tea.product_id)
    await inventory_app.inventory.release(ANYONE, held.reservation_id)

    assert again.lines[0].consumed == 3
    assert after == {MAIN_WAREHOUSE: (0, 0), EAST: (2, 1)}
    assert await stock_by_warehouse(inventory_app, tea.product_id) == {
        MAIN_WAREHOUSE: (0, 0),
        EAST: (2, 0),
    }
    page = await inventory_app.stockroom.list_movements(STAFF, tea.product_id, PageQuery())
    sold = {
        (movement.warehouse_id, movement.delta)
        for movement in page.items
        if movement.reason == "sold"
    }
    assert sold == {(MAIN_WAREHOUSE, -2), (EAST, -1)}


async def test_partial_release_returns_to_source_warehouse(inventory_app: InventoryApp) -> None:
    tea = await inventory_app.product(stock=2)
    await receive_in_warehouse(inventory_app, tea.product_id, EAST, 3)
    held = await inventory_app.reserve({tea.product_id: 5})

    part = partial_release_command(held.reservation_id, {tea.product_id: 3})
    result = await inventory_app.inventory.release_part(ANYONE, part)

    assert (result.lines[0].quantity, result.lines[0].released) == (5, 3)
    assert await stock_by_warehouse(inventory_app, tea.product_id) == {
        MAIN_WAREHOUSE: (2, 0),
        EAST: (3, 2),
    }


async def test_availability_sums_all_warehouses(inventory_app: InventoryApp) -> None:
    tea = await inventory_app.product(stock=2)
    await receive_in_warehouse(inventory_app, tea.product_id, EAST, 3)

    with pytest.raises(OutOfStock) as raised:
        await inventory_app.reserve({tea.product_id: 6})

    line = {"product_id": str(tea.product_id), "requested": 6, "available": 5}
    assert raised.value.details["lines"] == [line]
    assert await stock_by_warehouse(inventory_app, tea.product_id) == {
        MAIN_WAREHOUSE: (2, 0),
        EAST: (3, 0),
    }


async def test_expiry_releases_in_every_warehouse(inventory_app: InventoryApp) -> None:
    tea = await inventory_app.product(stock=2)
    await receive_in_warehouse(inventory_app, tea.product_id, EAST, 3)
    await inventory_app.reserve({tea.product_id: 5}, minutes=5)
    inventory_app.clock.advance(minutes=6)

    held = await inventory_app.reserve({tea.product_id: 4})

    assert held.status == HELD
    assert await inventory_app.available(tea.product_id) == 1


async def test_late_commit_allocates_from_any_warehouse(inventory_app: InventoryApp) -> None:
    tea, cup = await inventory_app.product(stock=2), await inventory_app.product(stock=2)
    held = await inventory_app.reserve({tea.product_id: 2, cup.product_id: 1})
    inventory_app.clock.advance(minutes=16)
    await inventory_app.reserve({tea.product_id: 1})
    await receive_in_warehouse(inventory_app, tea.product_id, NORTH, 9)

    committed = await inventory_app.inventory.commit(ANYONE, held.reservation_id)

    assert (committed.status, committed.lines) == (COMMITTED, held.lines)
    main, north = (await stock_by_warehouse(inventory_app, tea.product_id)).values()
    assert main[1] + north[1] == 3
    assert await inventory_app.main_stock(cup.product_id) == (2, 1)


async def test_late_commit_from_other_warehouse_keeps_released_quantity(
    inventory_app: InventoryApp,
) -> None:
    product_ids = sorted([(await inventory_app.product(stock=2)).product_id for _ in range(3)])
    first, tea, last = product_ids
    held = await inventory_app.reserve(dict.fromkeys(product_ids, 2))
    released = {first: 2, last: 2}
    await inventory_app.inventory.release_part(
        ANYONE, partial_release_command(held.reservation_id, released)
    )
    inventory_app.clock.advance(minutes=16)
    await inventory_app.reserve({tea: 1})
    await receive_in_warehouse(inventory_app, tea, NORTH, 9)

    await inventory_app.inventory.commit(ANYONE, held.reservation_id)
    again = await inventory_app.inventory.commit(ANYONE, held.reservation_id)

    assert [(line.product_id, line.quantity, line.released) for line in again.lines] == [
        (first, 2, 2), (tea, 2, 0), (last, 2, 2),
    ]  # fmt: skip
    assert [await inventory_app.main_stock(key) for key in (first, last)] == [(2, 0), (2, 0)]


async def test_concurrent_buyers_share_stock_of_two_warehouses(inventory_app: InventoryApp) -> None:
    tea, cup = await inventory_app.product(stock=5), await inventory_app.product(stock=4)
    await receive_in_warehouse(inventory_app, tea.product_id, EAST, 5)
    await receive_in_warehouse(inventory_app, cup.product_id, EAST, 6)

    results = await run_concurrently(
        *(inventory_app.reserve({tea.product_id: 1, cup.product_id: 1}) for _ in range(16))
    )

    sold = 16 - count_errors(results, OutOfStock)
    assert sold == sum(
        reserved
        for _, reserved in (await stock_by_warehouse(inventory_app, tea.product_id)).values()
    )
    assert sold == sum(
        reserved
        for _, reserved in (await stock_by_warehouse(inventory_app, cup.product_id)).values()
    )
    assert 4 <= sold <= 10


async def test_second_warehouse_costs_one_more_statement(sql_inventory_app: InventoryApp) -> None:
    inventory_app = sql_inventory_app
    tea = await inventory_app.product(stock=1)
    await receive_in_warehouse(inventory_app, tea.product_id, EAST, 3)
    before = STATEMENTS._value.get()

    await inventory_app.reserve({tea.product_id: 2})

    # 1 single statement; 3 in a transaction that inserts the reservation, checks the limits and
    # reserves; 1 read of all stock rows; 3 in a second transaction, for the other warehouse
    assert STATEMENTS._value.get() - before == 1 + 3 + 1 + 3
