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

from markethall.inventory.catalogue.contract.categories import (
    CategoryChange,
    CategoryView,
    NewCategory,
)
from markethall.inventory.catalogue.contract.products import ProductChange, ProductView
from markethall.inventory.contract import (
    Extend,
    OutOfStock,
    ReservationClosed,
    ReservationStatus,
    ReservationView,
    Reserve,
    TooManyUnpaidOrders,
)
from markethall.inventory.stock.contract.movements import (
    Movement,
    NewTransfer,
    Transfer,
    WouldGoNegative,
)
from markethall.inventory.stock.domain.warehouses import MAIN_WAREHOUSE
from markethall.shared.kernel.errors import PreconditionFailed
from markethall.shared.kernel.ids import new_id
from tests.inventory.conftest import ANYONE, MAX_UNPAID_ORDERS, STAFF, consume_command, no_key
from tests.inventory.import_client import ImportClient, counts
from tests.inventory.race_setup import (
    RaceSetup,
    open_race_setup,
    run_concurrently,
    successful_reservations,
    units_by_product,
)

FULL = os.environ.get("MARKETHALL_TEST_SCOPE") == "full"
NEAR, FAR = 0.0, 0.02
# a round at the end of the slow line takes seconds
ROUNDS: Final = {NEAR: 20, FAR: 20 if FULL else 1}
SEED = 20261121


@pytest.fixture(params=[NEAR, FAR], ids=["0ms", "20ms"])
async def setup(request: pytest.FixtureRequest, database_url: str) -> AsyncIterator[RaceSetup]:
    async with open_race_setup(database_url, request.param) as ready:
        yield ready


def rounds(setup: RaceSetup) -> range:
    return range(ROUNDS[setup.latency])


# The last goods


async def test_hundred_concurrent_buyers_of_last_unit_buy_one(setup: RaceSetup) -> None:
    for _ in rounds(setup):
        tea = await setup.inventory_app.product(stock=1)

        won = successful_reservations(await setup.reserve(*[{tea.product_id: 1}] * 100))
        for reservation in won:
            await setup.commit_and_consume(reservation)

        assert len(won) == 1
        assert await setup.inventory_app.main_stock(tea.product_id) == (0, 0)
        assert await setup.invariants_hold()


async def test_last_seven_units_are_sold_exactly_once_each(
    setup: RaceSetup,
) -> None:
    chance = Random(SEED)
    for _ in rounds(setup):
        tea = await setup.inventory_app.product(stock=7)
        wanted = [chance.randint(1, 6) for _ in range(30)]

        outcomes = await setup.reserve(*({tea.product_id: quantity} for quantity in wanted))

        left = 7 - units_by_product(successful_reservations(outcomes))[tea.product_id]
        refused = [
            n for n, out in zip(wanted, outcomes, strict=True) if isinstance(out, OutOfStock)
        ]
        assert 0 <= left < min(refused)
        assert await setup.inventory_app.available(tea.product_id) == left
        assert await setup.invariants_hold()


async def test_carts_in_opposite_order_are_atomic_and_do_not_deadlock(
    setup: RaceSetup,
) -> None:
    for _ in rounds(setup):
        a, b, c = [(await setup.inventory_app.product(stock=20)).product_id for _ in range(3)]
        carts = [{a: 1, b: 1}, {b: 1, a: 1}, {b: 1, c: 1}, {c: 1, a: 1}, {c: 1, b: 1, a: 1}]

        won = successful_reservations(await setup.reserve(*islice(cycle(carts), 100)))

        taken = units_by_product(won)
        # each pair of goods was wanted more often than it was there: of each, one is gone
        assert max(taken.values()) == 20
        assert sum(count == 20 for count in taken.values()) >= 2
        assert await setup.invariants_hold()


async def test_concurrent_commands_do_not_deadlock(setup: RaceSetup) -> None:
    """Crossed carts come, pay, change their mind and go overdue, while the sweeper sweeps."""
    chance = Random(SEED)
    for _ in rounds(setup):
        goods = [(await setup.inventory_app.product(stock=15)).product_id for _ in range(3)]
        old = successful_reservations(
            await setup.reserve(*(some(goods, chance) for _ in range(15)))
        )
        latency = [setup.inventory_app.order(some(goods, chance), minutes=0.01) for _ in range(10)]
        await setup.reserve_all(latency)
        setup.inventory_app.clock.advance(minutes=1)

        done = await run_concurrently(
            [
                *(
                    setup.inventory_app.inventory.commit(ANYONE, hold.reservation_id)
                    for hold in old[::2]
                ),
                *(
                    setup.inventory_app.inventory.release(ANYONE, hold.reservation_id)
                    for hold in old
                ),
                *(
                    setup.inventory_app.inventory.commit(ANYONE, hold.reservation_id)
                    for hold in latency
                ),
                *(setup.reserve(some(goods, chance)) for _ in range(20)),
                *(setup.inventory_app.adjust(key, "found", delta=1) for key in goods),
                *(setup.inventory_app.run_periodic_jobs() for _ in range(3)),
            ]
        )

        refusals = {type(one) for one in done if isinstance(one, BaseException)}
        assert refusals <= {OutOfStock, ReservationClosed}
        assert await setup.invariants_hold()


def some(goods: list[UUID], chance: Random) -> dict[UUID, int]:
    """A cart with two or three of the goods, in any order."""
    return {key: chance.randint(1, 2) for key in chance.sample(goods, chance.randint(2, 3))}


# A hold and its time


async def test_expiry_races_with_commit_and_one_buyer_wins(setup: RaceSetup) -> None:
    for _ in rounds(setup):
        tea = await setup.inventory_app.product(stock=1)
        hold = await setup.inventory_app.reserve({tea.product_id: 1}, minutes=5)
        setup.inventory_app.clock.advance(minutes=6)

        paid, *others = await run_concurrently(
            [
                setup.inventory_app.inventory.commit(ANYONE, hold.reservation_id),
                *(setup.inventory_app.reserve({tea.product_id: 1}) for _ in range(5)),
                *(setup.inventory_app.run_periodic_jobs() for _ in range(2)),
            ]
        )

        kept = [one for one in (paid, *others) if isinstance(one, ReservationView)]
        refused = [one for one in (paid, *others) if isinstance(one, OutOfStock)]
        assert (len(kept), len(refused)) == (1, 5)
        is_ours = await setup.status(hold.reservation_id) == ReservationStatus.COMMITTED
        assert is_ours == (kept[0] is paid)
        assert await setup.inventory_app.main_stock(tea.product_id) == (1, 1)
        assert await setup.invariants_hold()


async def test_release_races_with_reserve_and_nothing_stays_reserved(
    setup: RaceSetup,
) -> None:
    for _ in rounds(setup):
        tea = await setup.inventory_app.product(stock=5)
        orders = [setup.inventory_app.order({tea.product_id: 1}) for _ in range(5)]

        await run_concurrently(
            asked
            for order in orders
            for asked in (
                setup.inventory_app.inventory.reserve(ANYONE, order),
                setup.inventory_app.inventory.release(ANYONE, order.reservation_id),
            )
        )

        assert await setup.inventory_app.main_stock(tea.product_id) == (5, 0)
        assert await setup.invariants_hold()


async def test_consume_races_with_release(setup: RaceSetup) -> None:
    for _ in rounds(setup):
        tea = await setup.inventory_app.product(stock=5)
        hold = await setup.inventory_app.reserve({tea.product_id: 3})

        sent, _ = await run_concurrently(
            [
                setup.inventory_app.inventory.consume(
                    ANYONE, consume_command(hold.reservation_id, {tea.product_id: 2})
                ),
                setup.inventory_app.inventory.release(ANYONE, hold.reservation_id),
            ]
        )

        left = 3 if isinstance(sent, ReservationView) else 5
        assert isinstance(sent, ReservationView | ReservationClosed)
        assert await setup.inventory_app.main_stock(tea.product_id) == (left, 0)
        assert await setup.invariants_hold()


async def test_extend_races_with_expiry_and_one_buyer_wins(setup: RaceSetup) -> None:
    for _ in rounds(setup):
        tea = await setup.inventory_app.product(stock=1)
        hold = await setup.inventory_app.reserve({tea.product_id: 1}, minutes=5)
        # every look at the clock moves it on: some see the hold before its end, others after it
        setup.inventory_app.clock.now = hold.expires_at - timedelta(microseconds=3)
        later = Extend(
            reservation_id=hold.reservation_id, expires_at=hold.expires_at + timedelta(minutes=5)
        )

        *others, extended, _ = await run_concurrently(
            [
                *(setup.inventory_app.reserve({tea.product_id: 1}) for _ in range(5)),
                setup.inventory_app.inventory.extend(ANYONE, later),
                setup.inventory_app.run_periodic_jobs(),
            ]
        )

        kept = [one for one in (*others, extended) if isinstance(one, ReservationView)]
        assert {type(one) for one in others} <= {ReservationView, OutOfStock}
        assert isinstance(extended, ReservationView | ReservationClosed)
        assert len(kept) <= 1
        assert (
            len(kept) + len(successful_reservations(await setup.reserve({tea.product_id: 1}))) == 1
        )
        assert await setup.inventory_app.main_stock(tea.product_id) == (1, 1)
        assert await setup.invariants_hold()


# What one customer may hold


@pytest.mark.parametrize("kinds", [(1, 1), (1, 2), (2, 2)], ids=str)
async def test_customer_limit_holds_under_concurrency(
    setup: RaceSetup, kinds: tuple[int, int]
) -> None:
    """With one product in the cart and with two: they are reserved in different ways."""
    for _ in rounds(setup):
        goods = [(await setup.inventory_app.product(stock=50)).product_id for _ in range(2)]
        customer_id = new_id()
        held = [order_of(setup, customer_id, goods[:1]) for _ in range(MAX_UNPAID_ORDERS - 1)]
        await setup.reserve_all(held)

        outcomes = await run_concurrently(
            setup.inventory_app.inventory.reserve(
                ANYONE, order_of(setup, customer_id, goods[:count])
            )
            for count in kinds
        )

        assert {type(one) for one in outcomes} == {ReservationView, TooManyUnpaidOrders}
        assert await setup.invariants_hold()


def order_of(setup: RaceSetup, customer_id: UUID, goods: list[UUID]) -> Reserve:
    order = setup.inventory_app.order(dict.fromkeys(goods, 1))
    return order.model_copy(update={"customer_id": customer_id})


# Goods that move while they are sold


async def test_transfer_races_with_reserve(setup: RaceSetup) -> None:
    other = (await setup.inventory_app.warehouse()).warehouse_id
    for _ in rounds(setup):
        tea = await setup.inventory_app.product(stock=6)
        move = NewTransfer(
            product_id=tea.product_id,
            from_warehouse_id=MAIN_WAREHOUSE,
            to_warehouse_id=other,
            quantity=3,
        )

        moved, *outcomes = await run_concurrently(
            [
                setup.inventory_app.stockroom.transfer(STAFF, move, no_key()),
                *(setup.inventory_app.reserve({tea.product_id: 1}) for _ in range(8)),
            ]
        )
        latency = await setup.reserve(*[{tea.product_id: 1}] * 6)

        assert isinstance(moved, Transfer | WouldGoNegative)
        assert {type(one) for one in outcomes} <= {ReservationView, OutOfStock}
        won = [one for one in (*outcomes, *latency) if isinstance(one, ReservationView)]
        assert units_by_product(won)[tea.product_id] == 6
        assert await setup.inventory_app.available(tea.product_id) == 0
        assert await setup.invariants_hold()


# Limits that change while goods are sold


async def test_backorder_limit_import_does_not_deadlock_with_reserves(
    setup: RaceSetup,
) -> None:
    other = (await setup.inventory_app.warehouse()).warehouse_id
    import_client = ImportClient(setup.inventory_app)
    for number in rounds(setup):
        goods = [await setup.inventory_app.product(stock=30) for _ in range(4)]
        for product in goods:
            await setup.inventory_app.adjust(product.product_id, delta=30, warehouse_id=other)
        lines = [f"{p.sku},{number + 1},{number + 2}," for p in reversed(goods)]
        # the last of them is counted too
        lines[0] += "31"
        file = "sku,backorder_limit,low_stock_threshold,on_hand\n" + "\n".join(lines) + "\n"
        ids = [product.product_id for product in goods]
        carts = [dict.fromkeys(ids, 1), dict.fromkeys(reversed(ids), 1)]

        done, *outcomes = await run_concurrently(
            [
                import_client.import_to_end(file),
                *(setup.reserve(cart) for cart in islice(cycle(carts), 40)),
            ]
        )

        assert counts(done) == (4, 0, 4, 0, 0)
        assert all(isinstance(outcome, list) for outcome in outcomes)
        assert await setup.invariants_hold()


async def test_threshold_change_does_not_deadlock_with_reserves(
    setup: RaceSetup,
) -> None:
    other = (await setup.inventory_app.warehouse()).warehouse_id
    for _ in rounds(setup):
        tea = await setup.inventory_app.product(stock=1)
        await setup.inventory_app.adjust(tea.product_id, delta=30, warehouse_id=other)
        # its row lies behind the other now
        await setup.inventory_app.adjust(tea.product_id, delta=29)

        changed, *outcomes = await run_concurrently(
            [
                limited(setup, tea),
                *(setup.reserve({tea.product_id: quantity}) for quantity in [31, 5, 2] * 5),
            ]
        )

        assert isinstance(changed, ProductView)
        assert all(isinstance(outcome, list) for outcome in outcomes)
        assert await setup.invariants_hold()


async def limited(setup: RaceSetup, product: ProductView) -> ProductView:
    """Its limits, changed."""
    command = ProductChange(backorder_limit=2, low_stock_threshold=4)
    return await setup.inventory_app.catalogue.change(
        STAFF, product.product_id, command, {product.version}
    )


# Categories


async def test_category_rename_and_move_do_not_deadlock(
    setup: RaceSetup,
) -> None:
    for _ in rounds(setup):
        root, leaf, there = [await category(setup) for _ in range(3)]
        leaf = await changed_to(setup, leaf, parent=root.category)

        outcomes = await run_concurrently(
            changed_to(setup, leaf, **fields)
            for fields in ({"name": "Leaf"}, {"parent": there.category}) * 5
        )

        assert {type(one) for one in outcomes} == {CategoryView, PreconditionFailed}


async def category(setup: RaceSetup) -> CategoryView:
    command = NewCategory(category=new_id().hex)
    return await setup.inventory_app.categories.create(STAFF, command, no_key())


async def changed_to(setup: RaceSetup, category: CategoryView, **fields: Any) -> CategoryView:
    command = CategoryChange.model_validate(fields)
    return await setup.inventory_app.categories.change(
        STAFF, category.category_id, command, {category.version}
    )


# Stock that is counted while it is sold


async def test_adjustment_races_with_reserves_without_overselling(
    setup: RaceSetup,
) -> None:
    for number in rounds(setup):
        tea = await setup.inventory_app.product(stock=5)
        change: dict[str, Any] = {"delta": -3} if number % 2 else {"counted": 2}

        lost, *outcomes = await run_concurrently(
            [
                setup.inventory_app.adjust(tea.product_id, "counted", **change),
                *(setup.inventory_app.reserve({tea.product_id: 1}) for _ in range(8)),
            ]
        )

        won = len([one for one in outcomes if isinstance(one, ReservationView)])
        assert {type(one) for one in outcomes} <= {ReservationView, OutOfStock}
        if isinstance(lost, Movement):
            assert (won, await setup.inventory_app.main_stock(tea.product_id)) == (2, (2, 2))
        else:
            assert isinstance(lost, WouldGoNegative)
            assert (won, await setup.inventory_app.main_stock(tea.product_id)) == (5, (5, 5))
        assert await setup.invariants_hold()


async def test_stock_received_during_race_is_sold(setup: RaceSetup) -> None:
    for _ in rounds(setup):
        tea = await setup.inventory_app.product(stock=3)

        *_, fourth = await run_concurrently(
            [
                *(setup.inventory_app.reserve({tea.product_id: 1}) for _ in range(10)),
                *(setup.inventory_app.adjust(tea.product_id, delta=1) for _ in range(4)),
                setup.inventory_app.reserve({tea.product_id: 1}),
            ]
        )
        latency = successful_reservations(await setup.reserve(*[{tea.product_id: 1}] * 5))

        assert isinstance(fourth, ReservationView | OutOfStock)
        on_hand, reserved = await setup.inventory_app.main_stock(tea.product_id)
        assert (on_hand, reserved) == (7, 7)
        assert len(latency) <= 4
        assert await setup.invariants_hold()
