"""Every implementation of Inventory: how long a hold lasts, how much one may hold, and from where
its goods come.
"""

from asyncio import gather
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from markethall.inventory.contract import (
    Extend,
    OutOfStock,
    Reservation,
    ReservationClosed,
    ReservationQuery,
    ReservationStatus,
    Reserve,
    TooManyHolds,
    TooManyUnits,
)
from markethall.inventory.domain import MAIN_WAREHOUSE
from markethall.shared.ids import new_id
from markethall.shared.metrics import STATEMENTS
from markethall.shared.pages import PageQuery
from tests.inventory.conftest import (
    ANYONE,
    HELD_UNITS,
    OPEN_HOLDS,
    STAFF,
    House,
    giving_back,
    leaving,
)
from tests.inventory.shelves import EAST, NORTH, SOUTH, put_on_shelf, shelves
from tests.inventory.test_contract import refusals, together

HELD, COMMITTED, RELEASED, CONSUMED, EXPIRED = (
    ReservationStatus.HELD,
    ReservationStatus.COMMITTED,
    ReservationStatus.RELEASED,
    ReservationStatus.CONSUMED,
    ReservationStatus.EXPIRED,
)


def minutes(count: float) -> timedelta:
    return timedelta(minutes=count)


def extending(reservation: Reservation, until: datetime) -> Extend:
    return Extend(reservation_id=reservation.reservation_id, expires_at=until)


def of_customer(house: House, customer_id: UUID, wants: dict[UUID, int], **more: Any) -> Reserve:
    return house.order(wants, **more).model_copy(update={"customer_id": customer_id})


# How long


async def test_an_overdue_hold_is_seen_as_expired_before_the_sweeper_comes(house: House) -> None:
    tea = await house.product(stock=5)
    order = house.order({tea.product_id: 2}, minutes=1)
    await house.inventory.reserve(ANYONE, order)
    house.watch.forward(minutes=2)

    page = await house.stockroom.reservations(STAFF, ReservationQuery(order_id=order.order_id))
    again = await house.inventory.reserve(ANYONE, order)

    assert [one.status for one in page.items] == [EXPIRED]
    assert again.status == EXPIRED


async def test_a_hold_ends_fifteen_minutes_after_its_reserve_at_the_latest(house: House) -> None:
    tea = await house.product(stock=5)
    start = house.watch.now

    late = await house.reserve({tea.product_id: 1}, minutes=40)
    early = await house.reserve({tea.product_id: 1}, minutes=5)

    assert minutes(15) < late.expires_at - start < minutes(15.01)
    assert minutes(5) <= early.expires_at - start < minutes(5.01)


async def test_a_hold_is_extended_to_thirty_minutes_after_its_reserve_at_most(
    house: House,
) -> None:
    tea = await house.product(stock=5)
    held = await house.reserve({tea.product_id: 1}, minutes=40)
    since = held.expires_at - minutes(15)

    longer = await house.inventory.extend(ANYONE, extending(held, since + minutes(20)))
    house.watch.forward(minutes=19)
    most = await house.inventory.extend(ANYONE, extending(held, since + minutes(50)))
    shorter = await house.inventory.extend(ANYONE, extending(held, since + minutes(22)))

    assert longer.expires_at == since + minutes(20)
    assert most.expires_at == shorter.expires_at == since + minutes(30)
    assert (most.status, most.lines) == (HELD, held.lines)


async def test_an_extended_hold_keeps_its_goods_when_the_sweeper_comes(house: House) -> None:
    tea = await house.product(stock=5)
    held = await house.reserve({tea.product_id: 3}, minutes=10)
    await house.inventory.extend(ANYONE, extending(held, held.expires_at + minutes(10)))
    house.watch.forward(minutes=15)

    await house.sweep()
    kept = await house.available(tea.product_id)
    house.watch.forward(minutes=6)

    assert kept == 2
    assert await house.available(tea.product_id) == 5


async def test_what_has_ended_is_not_extended(house: House) -> None:
    tea = await house.product(stock=9)
    released, paid, overdue = [await house.reserve({tea.product_id: 1}) for _ in range(3)]
    await house.inventory.release(ANYONE, released.reservation_id)
    await house.inventory.commit(ANYONE, paid.reservation_id)
    house.watch.forward(minutes=16)
    nowhere = overdue.model_copy(update={"reservation_id": new_id()})

    seen = []
    for ended in (released, paid, overdue, nowhere):
        with pytest.raises(ReservationClosed) as refusal:
            await house.inventory.extend(ANYONE, extending(ended, ended.expires_at + minutes(10)))
        seen.append(refusal.value.details["status"])

    assert seen == ["released", "committed", "expired", None]


# How much


async def test_a_customer_has_so_many_open_holds(house: House) -> None:
    tea, buyer = await house.product(stock=50), new_id()
    for _ in range(OPEN_HOLDS):
        await house.inventory.reserve(ANYONE, of_customer(house, buyer, {tea.product_id: 1}))

    with pytest.raises(TooManyHolds) as refusal:
        await house.inventory.reserve(ANYONE, of_customer(house, buyer, {tea.product_id: 1}))

    assert refusal.value.details == {"limit": OPEN_HOLDS, "open": OPEN_HOLDS}
    assert await house.shelf(tea.product_id) == (50, OPEN_HOLDS)
    assert (await house.reserve({tea.product_id: 1})).status == HELD


async def test_only_open_holds_count(house: House) -> None:
    tea, buyer = await house.product(stock=50), new_id()

    async def hold(end: float = 15) -> Reservation:
        command = of_customer(house, buyer, {tea.product_id: 1}, minutes=end)
        return await house.inventory.reserve(ANYONE, command)

    paid, released, overdue = await hold(), await hold(), await hold(5)
    await house.inventory.commit(ANYONE, paid.reservation_id)
    await house.inventory.release(ANYONE, released.reservation_id)
    house.watch.forward(minutes=6)

    again = [await hold() for _ in range(OPEN_HOLDS)]

    assert [one.status for one in again] == [HELD] * OPEN_HOLDS
    assert overdue.status == HELD


async def test_a_repeated_reserve_is_no_further_hold(house: House) -> None:
    tea, buyer = await house.product(stock=50), new_id()
    commands = [of_customer(house, buyer, {tea.product_id: 1}) for _ in range(OPEN_HOLDS)]

    first = [await house.inventory.reserve(ANYONE, command) for command in commands]
    again = [await house.inventory.reserve(ANYONE, command) for command in commands]

    assert first == again


async def test_what_is_paid_already_has_no_limits(house: House) -> None:
    tea, buyer = await house.product(stock=1000), new_id()
    for _ in range(OPEN_HOLDS):
        await house.inventory.reserve(ANYONE, of_customer(house, buyer, {tea.product_id: 1}))
    paid = of_customer(house, buyer, {tea.product_id: HELD_UNITS + 1})

    held = await house.inventory.reserve(ANYONE, paid.model_copy(update={"limited": False}))

    assert held.lines[0].quantity == HELD_UNITS + 1


async def test_a_customer_holds_so_many_units_of_a_product(house: House) -> None:
    tea, cup, buyer = await house.product(stock=500), await house.product(stock=500), new_id()
    first = {tea.product_id: HELD_UNITS - 10, cup.product_id: 1}
    await house.inventory.reserve(ANYONE, of_customer(house, buyer, first))

    more = {tea.product_id: 11, cup.product_id: 11}
    with pytest.raises(TooManyUnits) as refusal:
        await house.inventory.reserve(ANYONE, of_customer(house, buyer, more))
    enough = of_customer(house, buyer, {tea.product_id: 10})
    held = await house.inventory.reserve(ANYONE, enough)

    line = {"product_id": str(tea.product_id), "requested": 11, "held": HELD_UNITS - 10}
    assert refusal.value.details == {"limit": HELD_UNITS, "lines": [line]}
    assert held.status == HELD
    assert await house.shelf(cup.product_id) == (500, 1)


async def test_units_of_holds_that_are_over_do_not_count(house: House) -> None:
    tea, buyer = await house.product(stock=500), new_id()
    all_of_it = {tea.product_id: HELD_UNITS}
    held = await house.inventory.reserve(ANYONE, of_customer(house, buyer, all_of_it, minutes=5))
    some = giving_back(held.reservation_id, {tea.product_id: 5})
    await house.inventory.release_part(ANYONE, some)

    five = await house.inventory.reserve(
        ANYONE, of_customer(house, buyer, {tea.product_id: 5}, minutes=5)
    )
    house.watch.forward(minutes=6)
    again = await house.inventory.reserve(ANYONE, of_customer(house, buyer, all_of_it))

    assert (five.status, again.status) == (HELD, HELD)


async def test_a_customer_who_orders_all_at_once_gets_no_more(house: House) -> None:
    tea, buyer = await house.product(stock=50), new_id()
    commands = [of_customer(house, buyer, {tea.product_id: 1}) for _ in range(12)]

    results = await together(*(house.inventory.reserve(ANYONE, one) for one in commands))

    assert refusals(results, TooManyHolds) == 12 - OPEN_HOLDS
    assert await house.shelf(tea.product_id) == (50, OPEN_HOLDS)


# Parts


async def test_a_part_is_given_back_once(house: House) -> None:
    tea, cup = await house.product(stock=5), await house.product(stock=5)
    held = await house.reserve({tea.product_id: 3, cup.product_id: 1})
    part = giving_back(held.reservation_id, {tea.product_id: 2})

    first = await house.inventory.release_part(ANYONE, part)
    again = await house.inventory.release_part(ANYONE, part)

    line = next(line for line in first.lines if line.product_id == tea.product_id)
    assert first == again
    assert (first.status, line.quantity, line.released) == (HELD, 3, 2)
    assert await house.shelf(tea.product_id) == (5, 1)
    assert await house.shelf(cup.product_id) == (5, 1)


async def test_the_same_part_at_once_is_given_back_once(house: House) -> None:
    tea = await house.product(stock=9)
    held = await house.reserve({tea.product_id: 9})
    part = giving_back(held.reservation_id, {tea.product_id: 2})

    await gather(*(house.inventory.release_part(ANYONE, part) for _ in range(10)))

    assert await house.shelf(tea.product_id) == (9, 7)


async def test_with_its_last_part_a_reservation_ends(house: House) -> None:
    tea = await house.product(stock=9)
    unsent, sent = (
        await house.reserve({tea.product_id: 2}),
        await house.reserve({tea.product_id: 2}),
    )
    await house.inventory.consume(ANYONE, leaving(sent.reservation_id, {tea.product_id: 1}))

    ends = [
        await house.inventory.release_part(
            ANYONE, giving_back(held.reservation_id, {tea.product_id: n})
        )
        for held, n in ((unsent, 2), (sent, 1))
    ]

    assert [end.status for end in ends] == [RELEASED, CONSUMED]
    assert await house.shelf(tea.product_id) == (8, 0)


async def test_no_more_is_given_back_than_is_held(house: House) -> None:
    tea = await house.product(stock=9)
    held = await house.reserve({tea.product_id: 3})
    await house.inventory.consume(ANYONE, leaving(held.reservation_id, {tea.product_id: 1}))

    with pytest.raises(ReservationClosed) as refusal:
        await house.inventory.release_part(
            ANYONE, giving_back(held.reservation_id, {tea.product_id: 3})
        )

    line = {"product_id": str(tea.product_id), "requested": 3, "remaining": 2}
    assert refusal.value.details["lines"] == [line]
    assert await house.shelf(tea.product_id) == (8, 2)


async def test_nothing_is_given_back_of_what_has_ended(house: House) -> None:
    tea = await house.product(stock=9)
    released = await house.reserve({tea.product_id: 1})
    await house.inventory.release(ANYONE, released.reservation_id)

    for reservation_id in (released.reservation_id, new_id()):
        with pytest.raises(ReservationClosed):
            await house.inventory.release_part(
                ANYONE, giving_back(reservation_id, {tea.product_id: 1})
            )

    assert await house.shelf(tea.product_id) == (9, 0)


async def test_a_late_commit_takes_only_what_is_still_wanted(house: House) -> None:
    tea = await house.product(stock=5)
    held = await house.reserve({tea.product_id: 4})
    await house.inventory.release_part(
        ANYONE, giving_back(held.reservation_id, {tea.product_id: 3})
    )
    house.watch.forward(minutes=16)
    await house.sweep()

    committed = await house.inventory.commit(ANYONE, held.reservation_id)

    assert (committed.lines[0].quantity, committed.lines[0].released) == (4, 3)
    assert await house.shelf(tea.product_id) == (5, 1)


# From where


async def test_all_comes_from_the_main_warehouse_while_it_can(house: House) -> None:
    tea = await house.product(stock=5)
    await put_on_shelf(house, tea.product_id, EAST, 9)

    await house.reserve({tea.product_id: 5})

    assert await shelves(house, tea.product_id) == {MAIN_WAREHOUSE: (5, 5), EAST: (9, 0)}


async def test_one_warehouse_that_has_all_is_better_than_two(house: House) -> None:
    tea, cup = await house.product(stock=2), await house.product(stock=2)
    for product in (tea, cup):
        await put_on_shelf(house, product.product_id, EAST, 1)
        await put_on_shelf(house, product.product_id, SOUTH, 4)

    await house.reserve({tea.product_id: 3, cup.product_id: 1})

    for product, units in ((tea, 3), (cup, 1)):
        assert await shelves(house, product.product_id) == {
            MAIN_WAREHOUSE: (2, 0),
            EAST: (1, 0),
            SOUTH: (4, units),
        }


async def test_of_as_many_warehouses_those_with_the_lower_priority_are_better(
    house: House,
) -> None:
    tea = await house.product(stock=1)
    for place in (NORTH, EAST, SOUTH):
        await put_on_shelf(house, tea.product_id, place, 4)

    await house.reserve({tea.product_id: 3})

    reserved = {key: held for key, (_, held) in (await shelves(house, tea.product_id)).items()}
    assert reserved == {MAIN_WAREHOUSE: 0, NORTH: 0, EAST: 0, SOUTH: 3}


async def test_a_product_from_two_warehouses_is_one_line(house: House) -> None:
    tea = await house.product(stock=2)
    await put_on_shelf(house, tea.product_id, EAST, 3)

    held = await house.reserve({tea.product_id: 4})

    assert [line.quantity for line in held.lines] == [4]
    assert await shelves(house, tea.product_id) == {MAIN_WAREHOUSE: (2, 2), EAST: (3, 2)}
    assert await house.available(tea.product_id) == 1


async def test_goods_of_two_warehouses_leave_and_come_back(house: House) -> None:
    tea = await house.product(stock=2)
    await put_on_shelf(house, tea.product_id, EAST, 3)
    held = await house.reserve({tea.product_id: 4})
    part = leaving(held.reservation_id, {tea.product_id: 3})

    await house.inventory.consume(ANYONE, part)
    again = await house.inventory.consume(ANYONE, part)
    after = await shelves(house, tea.product_id)
    await house.inventory.release(ANYONE, held.reservation_id)

    assert again.lines[0].consumed == 3
    assert after == {MAIN_WAREHOUSE: (0, 0), EAST: (2, 1)}
    assert await shelves(house, tea.product_id) == {MAIN_WAREHOUSE: (0, 0), EAST: (2, 0)}
    page = await house.stockroom.movements(STAFF, tea.product_id, PageQuery())
    sold = {(one.warehouse_id, one.delta) for one in page.items if one.reason == "sold"}
    assert sold == {(MAIN_WAREHOUSE, -2), (EAST, -1)}


async def test_a_part_given_back_goes_where_it_came_from(house: House) -> None:
    tea = await house.product(stock=2)
    await put_on_shelf(house, tea.product_id, EAST, 3)
    held = await house.reserve({tea.product_id: 5})

    part = giving_back(held.reservation_id, {tea.product_id: 3})
    given = await house.inventory.release_part(ANYONE, part)

    assert (given.lines[0].quantity, given.lines[0].released) == (5, 3)
    assert await shelves(house, tea.product_id) == {MAIN_WAREHOUSE: (2, 0), EAST: (3, 2)}


async def test_what_all_warehouses_have_is_what_there_is(house: House) -> None:
    tea = await house.product(stock=2)
    await put_on_shelf(house, tea.product_id, EAST, 3)

    with pytest.raises(OutOfStock) as refusal:
        await house.reserve({tea.product_id: 6})

    line = {"product_id": str(tea.product_id), "requested": 6, "available": 5}
    assert refusal.value.details["lines"] == [line]
    assert await shelves(house, tea.product_id) == {MAIN_WAREHOUSE: (2, 0), EAST: (3, 0)}


async def test_expired_holds_give_back_in_every_warehouse(house: House) -> None:
    tea = await house.product(stock=2)
    await put_on_shelf(house, tea.product_id, EAST, 3)
    await house.reserve({tea.product_id: 5}, minutes=5)
    house.watch.forward(minutes=6)

    held = await house.reserve({tea.product_id: 4})

    assert held.status == HELD
    assert await house.available(tea.product_id) == 1


async def test_a_late_commit_takes_its_goods_from_wherever_they_are(house: House) -> None:
    tea, cup = await house.product(stock=2), await house.product(stock=2)
    held = await house.reserve({tea.product_id: 2, cup.product_id: 1})
    house.watch.forward(minutes=16)
    await house.reserve({tea.product_id: 1})
    await put_on_shelf(house, tea.product_id, NORTH, 9)

    committed = await house.inventory.commit(ANYONE, held.reservation_id)

    assert (committed.status, committed.lines) == (COMMITTED, held.lines)
    main, north = (await shelves(house, tea.product_id)).values()
    assert main[1] + north[1] == 3
    assert await house.shelf(cup.product_id) == (2, 1)


async def test_a_late_commit_from_elsewhere_keeps_what_was_given_back_whole(house: House) -> None:
    goods = sorted([(await house.product(stock=2)).product_id for _ in range(3)])
    first, tea, last = goods
    held = await house.reserve(dict.fromkeys(goods, 2))
    back = {first: 2, last: 2}
    await house.inventory.release_part(ANYONE, giving_back(held.reservation_id, back))
    house.watch.forward(minutes=16)
    await house.reserve({tea: 1})
    await put_on_shelf(house, tea, NORTH, 9)

    await house.inventory.commit(ANYONE, held.reservation_id)
    seen = await house.inventory.commit(ANYONE, held.reservation_id)

    assert [(line.product_id, line.quantity, line.released) for line in seen.lines] == [
        (first, 2, 2), (tea, 2, 0), (last, 2, 2),
    ]  # fmt: skip
    assert [await house.shelf(key) for key in (first, last)] == [(2, 0), (2, 0)]


async def test_many_buyers_share_what_two_warehouses_have(house: House) -> None:
    tea, cup = await house.product(stock=5), await house.product(stock=4)
    await put_on_shelf(house, tea.product_id, EAST, 5)
    await put_on_shelf(house, cup.product_id, EAST, 6)

    results = await together(
        *(house.reserve({tea.product_id: 1, cup.product_id: 1}) for _ in range(16))
    )

    sold = 16 - refusals(results, OutOfStock)
    assert sold == sum(reserved for _, reserved in (await shelves(house, tea.product_id)).values())
    assert sold == sum(reserved for _, reserved in (await shelves(house, cup.product_id)).values())
    assert 4 <= sold <= 10


async def test_another_warehouse_costs_one_look_more(sql_house: House) -> None:
    house = sql_house
    tea = await house.product(stock=1)
    await put_on_shelf(house, tea.product_id, EAST, 3)
    before = STATEMENTS._value.get()

    await house.reserve({tea.product_id: 2})

    # all at once; then twice: open, count and take; in between one look at all shelves
    assert STATEMENTS._value.get() - before == 1 + 3 + 1 + 3
