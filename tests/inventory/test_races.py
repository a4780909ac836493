"""Many at once on a real Postgres, next door and at the end of a slow line: O1 always holds.

What is promised to buyers who race for the last goods: never more is sold than there is; an order
gets all its lines or none; and who was refused wanted more than what is left in the end, so that
no unit stays unsold that somebody small enough has asked for.
"""

import os
from collections.abc import AsyncIterator
from datetime import timedelta
from itertools import cycle, islice
from random import Random
from typing import Any, Final
from uuid import UUID

import pytest

from markethall.inventory.contract import (
    Category,
    CategoryChange,
    Extend,
    Movement,
    NewCategory,
    NewTransfer,
    OutOfStock,
    Product,
    ProductChange,
    Reservation,
    ReservationClosed,
    ReservationStatus,
    Reserve,
    TooManyHolds,
    Transfer,
    WouldGoNegative,
)
from markethall.inventory.domain import MAIN_WAREHOUSE
from markethall.shared.errors import PreconditionFailed
from markethall.shared.ids import new_id
from tests.inventory.arena import Arena, arena, at_once, units, winners
from tests.inventory.carrier import Carrier, counts
from tests.inventory.conftest import ANYONE, OPEN_HOLDS, STAFF, leaving, no_key

FULL = os.environ.get("MARKETHALL_TEST_SWEEP") == "full"
NEAR, FAR = 0.0, 0.02
# a round at the end of the slow line takes seconds
ROUNDS: Final = {NEAR: 20, FAR: 20 if FULL else 1}
SEED = 20261121


@pytest.fixture(params=[NEAR, FAR], ids=["0ms", "20ms"])
async def place(request: pytest.FixtureRequest, database_url: str) -> AsyncIterator[Arena]:
    async with arena(database_url, request.param) as ready:
        yield ready


def rounds(place: Arena) -> range:
    return range(ROUNDS[place.late])


# The last goods


async def test_a_hundred_buyers_of_the_last_unit_buy_one(place: Arena) -> None:
    for _ in rounds(place):
        tea = await place.house.product(stock=1)

        won = winners(await place.reserve(*[{tea.product_id: 1}] * 100))
        for reservation in won:
            await place.sell(reservation)

        assert len(won) == 1
        assert await place.house.shelf(tea.product_id) == (0, 0)
        assert await place.is_true()


async def test_of_the_last_seven_no_unit_is_sold_twice_or_kept_from_who_wants_it(
    place: Arena,
) -> None:
    chance = Random(SEED)  # noqa: S311 - the same race every time
    for _ in rounds(place):
        tea = await place.house.product(stock=7)
        wanted = [chance.randint(1, 6) for _ in range(30)]

        outcomes = await place.reserve(*({tea.product_id: quantity} for quantity in wanted))

        left = 7 - units(winners(outcomes))[tea.product_id]
        refused = [
            n for n, out in zip(wanted, outcomes, strict=True) if isinstance(out, OutOfStock)
        ]
        assert 0 <= left < min(refused)
        assert await place.house.available(tea.product_id) == left
        assert await place.is_true()


async def test_crossed_carts_get_all_or_nothing_and_never_wait_for_each_other(
    place: Arena,
) -> None:
    for _ in rounds(place):
        a, b, c = [(await place.house.product(stock=20)).product_id for _ in range(3)]
        carts = [{a: 1, b: 1}, {b: 1, a: 1}, {b: 1, c: 1}, {c: 1, a: 1}, {c: 1, b: 1, a: 1}]

        won = winners(await place.reserve(*islice(cycle(carts), 100)))

        taken = units(won)
        # each pair of goods was wanted more often than it was there: of each, one is gone
        assert max(taken.values()) == 20
        assert sum(count == 20 for count in taken.values()) >= 2
        assert await place.is_true()


async def test_everything_at_once_never_waits_for_itself(place: Arena) -> None:
    """Crossed carts come, pay, change their mind and go overdue, while the sweeper sweeps."""
    chance = Random(SEED)  # noqa: S311 - the same race every time
    for _ in rounds(place):
        goods = [(await place.house.product(stock=15)).product_id for _ in range(3)]
        old = winners(await place.reserve(*(some(goods, chance) for _ in range(15))))
        late = [place.house.order(some(goods, chance), minutes=0.01) for _ in range(10)]
        await place.reserve_all(late)
        place.house.watch.forward(minutes=1)

        done = await at_once(
            [
                *(place.house.inventory.commit(ANYONE, hold.reservation_id) for hold in old[::2]),
                *(place.house.inventory.release(ANYONE, hold.reservation_id) for hold in old),
                *(place.house.inventory.commit(ANYONE, hold.reservation_id) for hold in late),
                *(place.reserve(some(goods, chance)) for _ in range(20)),
                *(place.house.adjust(key, "found", delta=1) for key in goods),
                *(place.house.sweep() for _ in range(3)),
            ]
        )

        refusals = {type(one) for one in done if isinstance(one, BaseException)}
        assert refusals <= {OutOfStock, ReservationClosed}
        assert await place.is_true()


def some(goods: list[UUID], chance: Random) -> dict[UUID, int]:
    """A cart with two or three of the goods, in any order."""
    return {key: chance.randint(1, 2) for key in chance.sample(goods, chance.randint(2, 3))}


# A hold and its time


async def test_expiry_races_with_paying_and_one_buyer_has_the_goods(place: Arena) -> None:
    for _ in rounds(place):
        tea = await place.house.product(stock=1)
        hold = await place.house.reserve({tea.product_id: 1}, minutes=5)
        place.house.watch.forward(minutes=6)

        paid, *others = await at_once(
            [
                place.house.inventory.commit(ANYONE, hold.reservation_id),
                *(place.house.reserve({tea.product_id: 1}) for _ in range(5)),
                *(place.house.sweep() for _ in range(2)),
            ]
        )

        kept = [one for one in (paid, *others) if isinstance(one, Reservation)]
        refused = [one for one in (paid, *others) if isinstance(one, OutOfStock)]
        assert (len(kept), len(refused)) == (1, 5)
        is_ours = await place.status(hold.reservation_id) == ReservationStatus.COMMITTED
        assert is_ours == (kept[0] is paid)
        assert await place.house.shelf(tea.product_id) == (1, 1)
        assert await place.is_true()


async def test_a_release_races_with_its_own_reserve_and_nothing_stays_reserved(
    place: Arena,
) -> None:
    for _ in rounds(place):
        tea = await place.house.product(stock=5)
        orders = [place.house.order({tea.product_id: 1}) for _ in range(5)]

        await at_once(
            asked
            for order in orders
            for asked in (
                place.house.inventory.reserve(ANYONE, order),
                place.house.inventory.release(ANYONE, order.reservation_id),
            )
        )

        assert await place.house.shelf(tea.product_id) == (5, 0)
        assert await place.is_true()


async def test_goods_that_leave_race_with_their_release(place: Arena) -> None:
    for _ in rounds(place):
        tea = await place.house.product(stock=5)
        hold = await place.house.reserve({tea.product_id: 3})

        sent, _ = await at_once(
            [
                place.house.inventory.consume(
                    ANYONE, leaving(hold.reservation_id, {tea.product_id: 2})
                ),
                place.house.inventory.release(ANYONE, hold.reservation_id),
            ]
        )

        left = 3 if isinstance(sent, Reservation) else 5
        assert isinstance(sent, Reservation | ReservationClosed)
        assert await place.house.shelf(tea.product_id) == (left, 0)
        assert await place.is_true()


async def test_an_extension_races_with_the_end_and_one_buyer_has_the_goods(place: Arena) -> None:
    for _ in rounds(place):
        tea = await place.house.product(stock=1)
        hold = await place.house.reserve({tea.product_id: 1}, minutes=5)
        # every look at the clock moves it on: some see the hold before its end, others after it
        place.house.watch.now = hold.expires_at - timedelta(microseconds=3)
        later = Extend(
            reservation_id=hold.reservation_id, expires_at=hold.expires_at + timedelta(minutes=5)
        )

        *others, extended, _ = await at_once(
            [
                *(place.house.reserve({tea.product_id: 1}) for _ in range(5)),
                place.house.inventory.extend(ANYONE, later),
                place.house.sweep(),
            ]
        )

        kept = [one for one in (*others, extended) if isinstance(one, Reservation)]
        assert {type(one) for one in others} <= {Reservation, OutOfStock}
        assert isinstance(extended, Reservation | ReservationClosed)
        assert len(kept) <= 1
        assert len(kept) + len(winners(await place.reserve({tea.product_id: 1}))) == 1
        assert await place.house.shelf(tea.product_id) == (1, 1)
        assert await place.is_true()


# What one customer may hold


@pytest.mark.parametrize("kinds", [(1, 1), (1, 2), (2, 2)], ids=str)
async def test_a_customer_who_may_hold_one_more_gets_one_more(
    place: Arena, kinds: tuple[int, int]
) -> None:
    """With one product in the cart and with two: they are reserved in different ways."""
    for _ in rounds(place):
        goods = [(await place.house.product(stock=50)).product_id for _ in range(2)]
        customer_id = new_id()
        held = [order_of(place, customer_id, goods[:1]) for _ in range(OPEN_HOLDS - 1)]
        await place.reserve_all(held)

        outcomes = await at_once(
            place.house.inventory.reserve(ANYONE, order_of(place, customer_id, goods[:count]))
            for count in kinds
        )

        assert {type(one) for one in outcomes} == {Reservation, TooManyHolds}
        assert await place.is_true()


def order_of(place: Arena, customer_id: UUID, goods: list[UUID]) -> Reserve:
    order = place.house.order(dict.fromkeys(goods, 1))
    return order.model_copy(update={"customer_id": customer_id})


# Goods that move while they are sold


async def test_goods_that_move_to_another_warehouse_are_sold_from_there(place: Arena) -> None:
    other = (await place.house.warehouse()).warehouse_id
    for _ in rounds(place):
        tea = await place.house.product(stock=6)
        move = NewTransfer(
            product_id=tea.product_id,
            from_warehouse_id=MAIN_WAREHOUSE,
            to_warehouse_id=other,
            quantity=3,
        )

        moved, *outcomes = await at_once(
            [
                place.house.stockroom.transfer(STAFF, move, no_key()),
                *(place.house.reserve({tea.product_id: 1}) for _ in range(8)),
            ]
        )
        late = await place.reserve(*[{tea.product_id: 1}] * 6)

        assert isinstance(moved, Transfer | WouldGoNegative)
        assert {type(one) for one in outcomes} <= {Reservation, OutOfStock}
        won = [one for one in (*outcomes, *late) if isinstance(one, Reservation)]
        assert units(won)[tea.product_id] == 6
        assert await place.house.available(tea.product_id) == 0
        assert await place.is_true()


# Limits that change while goods are sold


async def test_an_import_of_limits_and_crossed_carts_never_wait_for_each_other(
    place: Arena,
) -> None:
    other = (await place.house.warehouse()).warehouse_id
    carrier = Carrier(place.house)
    for number in rounds(place):
        goods = [await place.house.product(stock=30) for _ in range(4)]
        for product in goods:
            await place.house.adjust(product.product_id, delta=30, warehouse_id=other)
        lines = [f"{p.sku},{number + 1},{number + 2}," for p in reversed(goods)]
        # the last of them is counted too
        lines[0] += "31"
        file = "sku,backorder_limit,low_stock_threshold,on_hand\n" + "\n".join(lines) + "\n"
        ids = [product.product_id for product in goods]
        carts = [dict.fromkeys(ids, 1), dict.fromkeys(reversed(ids), 1)]

        done, *outcomes = await at_once(
            [
                carrier.bring(file),
                *(place.reserve(cart) for cart in islice(cycle(carts), 40)),
            ]
        )

        assert counts(done) == (4, 0, 4, 0, 0)
        assert all(isinstance(outcome, list) for outcome in outcomes)
        assert await place.is_true()


async def test_a_new_threshold_and_carts_from_two_warehouses_never_wait_for_each_other(
    place: Arena,
) -> None:
    other = (await place.house.warehouse()).warehouse_id
    for _ in rounds(place):
        tea = await place.house.product(stock=1)
        await place.house.adjust(tea.product_id, delta=30, warehouse_id=other)
        # its row lies behind the other now
        await place.house.adjust(tea.product_id, delta=29)

        changed, *outcomes = await at_once(
            [
                limited(place, tea),
                *(place.reserve({tea.product_id: quantity}) for quantity in [31, 5, 2] * 5),
            ]
        )

        assert isinstance(changed, Product)
        assert all(isinstance(outcome, list) for outcome in outcomes)
        assert await place.is_true()


async def limited(place: Arena, product: Product) -> Product:
    """Its limits, changed."""
    command = ProductChange(backorder_limit=2, low_stock_threshold=4)
    return await place.house.catalogue.change(STAFF, product.product_id, command, {product.version})


# Categories


async def test_a_name_and_a_place_of_one_category_change_without_waiting_for_each_other(
    place: Arena,
) -> None:
    for _ in rounds(place):
        root, leaf, there = [await category(place) for _ in range(3)]
        leaf = await changed_to(place, leaf, parent=root.category)

        outcomes = await at_once(
            changed_to(place, leaf, **fields)
            for fields in ({"name": "Leaf"}, {"parent": there.category}) * 5
        )

        assert {type(one) for one in outcomes} == {Category, PreconditionFailed}


async def category(place: Arena) -> Category:
    command = NewCategory(category=new_id().hex)
    return await place.house.categories.create(STAFF, command, no_key())


async def changed_to(place: Arena, category: Category, **fields: Any) -> Category:
    command = CategoryChange.model_validate(fields)
    return await place.house.categories.change(
        STAFF, category.category_id, command, {category.version}
    )


# Stock that is counted while it is sold


async def test_an_adjustment_races_with_buyers_and_nobody_is_promised_what_is_gone(
    place: Arena,
) -> None:
    for number in rounds(place):
        tea = await place.house.product(stock=5)
        change: dict[str, Any] = {"delta": -3} if number % 2 else {"counted": 2}

        lost, *outcomes = await at_once(
            [
                place.house.adjust(tea.product_id, "counted", **change),
                *(place.house.reserve({tea.product_id: 1}) for _ in range(8)),
            ]
        )

        won = len([one for one in outcomes if isinstance(one, Reservation)])
        assert {type(one) for one in outcomes} <= {Reservation, OutOfStock}
        if isinstance(lost, Movement):
            assert (won, await place.house.shelf(tea.product_id)) == (2, (2, 2))
        else:
            assert isinstance(lost, WouldGoNegative)
            assert (won, await place.house.shelf(tea.product_id)) == (5, (5, 5))
        assert await place.is_true()


async def test_goods_that_arrive_while_buyers_race_are_sold_too(place: Arena) -> None:
    for _ in rounds(place):
        tea = await place.house.product(stock=3)

        *_, fourth = await at_once(
            [
                *(place.house.reserve({tea.product_id: 1}) for _ in range(10)),
                *(place.house.adjust(tea.product_id, delta=1) for _ in range(4)),
                place.house.reserve({tea.product_id: 1}),
            ]
        )
        late = winners(await place.reserve(*[{tea.product_id: 1}] * 5))

        assert isinstance(fourth, Reservation | OutOfStock)
        on_hand, reserved = await place.house.shelf(tea.product_id)
        assert (on_hand, reserved) == (7, 7)
        assert len(late) <= 4
        assert await place.is_true()
