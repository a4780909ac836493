"""Test that concurrent commands on Postgres keep the invariants, over a direct or slow connection.

When customers compete for the last units, three rules hold. No more units are sold than are in
stock. An order gets all its lines or none. A request is rejected only if it asks for more than is
left at the end.
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
from markethall.inventory.stock.contract import (
    Movement,
    NewTransfer,
    Transfer,
    WouldGoNegative,
)
from markethall.inventory.stock.domain import MAIN_WAREHOUSE
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
# the latency of the database connection in each direction, in seconds
NEAR, FAR = 0.0, 0.02
# `make test-concurrency` runs all rounds; a round with the slow connection takes seconds
ALL_ROUNDS: Final = 20
ROUNDS: Final = {NEAR: ALL_ROUNDS, FAR: ALL_ROUNDS} if FULL else {NEAR: 5, FAR: 1}
SEED = 20261121


@pytest.fixture(params=[NEAR, FAR], ids=["0ms", "20ms"])
async def setup(request: pytest.FixtureRequest, database_url: str) -> AsyncIterator[RaceSetup]:
    async with open_race_setup(database_url, request.param) as opened:
        yield opened


def rounds(setup: RaceSetup) -> range:
    return range(ROUNDS[setup.latency])


# The last units


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
    random = Random(SEED)
    for _ in rounds(setup):
        tea = await setup.inventory_app.product(stock=7)
        quantities = [random.randint(1, 6) for _ in range(30)]

        outcomes = await setup.reserve(*({tea.product_id: quantity} for quantity in quantities))

        left = 7 - units_by_product(successful_reservations(outcomes))[tea.product_id]
        rejected = [
            quantity
            for quantity, outcome in zip(quantities, outcomes, strict=True)
            if isinstance(outcome, OutOfStock)
        ]
        assert 0 <= left < min(rejected)
        assert await setup.inventory_app.available(tea.product_id) == left
        assert await setup.invariants_hold()


async def test_carts_in_opposite_order_are_atomic_and_do_not_deadlock(
    setup: RaceSetup,
) -> None:
    for _ in rounds(setup):
        a, b, c = [(await setup.inventory_app.product(stock=20)).product_id for _ in range(3)]
        carts = [{a: 1, b: 1}, {b: 1, a: 1}, {b: 1, c: 1}, {c: 1, a: 1}, {c: 1, b: 1, a: 1}]

        won = successful_reservations(await setup.reserve(*islice(cycle(carts), 100)))

        reserved = units_by_product(won)
        # each pair of products was requested more than 20 times, so one product of each pair must
        # be sold out
        assert max(reserved.values()) == 20
        assert sum(count == 20 for count in reserved.values()) >= 2
        assert await setup.invariants_hold()


async def test_concurrent_commands_do_not_deadlock(setup: RaceSetup) -> None:
    """Reserve, commit, release and expire carts concurrently. Carts list products in any order."""
    random = Random(SEED)
    for _ in rounds(setup):
        product_ids = [(await setup.inventory_app.product(stock=15)).product_id for _ in range(3)]
        old = successful_reservations(
            await setup.reserve(*(random_cart(product_ids, random) for _ in range(15)))
        )
        overdue = [
            setup.inventory_app.order(random_cart(product_ids, random), minutes=0.01)
            for _ in range(10)
        ]
        await setup.reserve_all(overdue)
        setup.inventory_app.clock.advance(minutes=1)

        outcomes = await run_concurrently(
            [
                *(
                    setup.inventory_app.inventory.commit(ANYONE, reservation.reservation_id)
                    for reservation in old[::2]
                ),
                *(
                    setup.inventory_app.inventory.release(ANYONE, reservation.reservation_id)
                    for reservation in old
                ),
                *(
                    setup.inventory_app.inventory.commit(ANYONE, order.reservation_id)
                    for order in overdue
                ),
                *(setup.reserve(random_cart(product_ids, random)) for _ in range(20)),
                *(setup.inventory_app.adjust(key, "found", delta=1) for key in product_ids),
                *(setup.inventory_app.run_periodic_jobs() for _ in range(3)),
            ]
        )

        errors = {type(outcome) for outcome in outcomes if isinstance(outcome, BaseException)}
        assert errors <= {OutOfStock, ReservationClosed}
        assert await setup.invariants_hold()


def random_cart(product_ids: list[UUID], random: Random) -> dict[UUID, int]:
    """Return a cart with two or three of the products, in any order."""
    return {key: random.randint(1, 2) for key in random.sample(product_ids, random.randint(2, 3))}


# Expiry, release and extension


async def test_expiry_races_with_commit_and_one_buyer_wins(setup: RaceSetup) -> None:
    for _ in rounds(setup):
        tea = await setup.inventory_app.product(stock=1)
        reservation = await setup.inventory_app.reserve({tea.product_id: 1}, minutes=5)
        setup.inventory_app.clock.advance(minutes=6)

        paid, *others = await run_concurrently(
            [
                setup.inventory_app.inventory.commit(ANYONE, reservation.reservation_id),
                *(setup.inventory_app.reserve({tea.product_id: 1}) for _ in range(5)),
                *(setup.inventory_app.run_periodic_jobs() for _ in range(2)),
            ]
        )

        outcomes = (paid, *others)
        successful = [outcome for outcome in outcomes if isinstance(outcome, ReservationView)]
        rejected = [outcome for outcome in outcomes if isinstance(outcome, OutOfStock)]
        assert (len(successful), len(rejected)) == (1, 5)
        is_committed = await setup.status(reservation.reservation_id) == ReservationStatus.COMMITTED
        assert is_committed == (successful[0] is paid)
        assert await setup.inventory_app.main_stock(tea.product_id) == (1, 1)
        assert await setup.invariants_hold()


async def test_release_races_with_reserve_and_nothing_stays_reserved(
    setup: RaceSetup,
) -> None:
    for _ in rounds(setup):
        tea = await setup.inventory_app.product(stock=5)
        orders = [setup.inventory_app.order({tea.product_id: 1}) for _ in range(5)]

        await run_concurrently(
            call
            for order in orders
            for call in (
                setup.inventory_app.inventory.reserve(ANYONE, order),
                setup.inventory_app.inventory.release(ANYONE, order.reservation_id),
            )
        )

        assert await setup.inventory_app.main_stock(tea.product_id) == (5, 0)
        assert await setup.invariants_hold()


async def test_consume_races_with_release(setup: RaceSetup) -> None:
    for _ in rounds(setup):
        tea = await setup.inventory_app.product(stock=5)
        reservation = await setup.inventory_app.reserve({tea.product_id: 3})

        sent, _ = await run_concurrently(
            [
                setup.inventory_app.inventory.consume(
                    ANYONE, consume_command(reservation.reservation_id, {tea.product_id: 2})
                ),
                setup.inventory_app.inventory.release(ANYONE, reservation.reservation_id),
            ]
        )

        left = 3 if isinstance(sent, ReservationView) else 5
        assert isinstance(sent, ReservationView | ReservationClosed)
        assert await setup.inventory_app.main_stock(tea.product_id) == (left, 0)
        assert await setup.invariants_hold()


async def test_extend_races_with_expiry_and_one_buyer_wins(setup: RaceSetup) -> None:
    for _ in rounds(setup):
        tea = await setup.inventory_app.product(stock=1)
        reservation = await setup.inventory_app.reserve({tea.product_id: 1}, minutes=5)
        # each read of the clock advances it by 1 µs, so some calls run before the expiry, and some
        # after it
        setup.inventory_app.clock.now = reservation.expires_at - timedelta(microseconds=3)
        later = Extend(
            reservation_id=reservation.reservation_id,
            expires_at=reservation.expires_at + timedelta(minutes=5),
        )

        *others, extended, _ = await run_concurrently(
            [
                *(setup.inventory_app.reserve({tea.product_id: 1}) for _ in range(5)),
                setup.inventory_app.inventory.extend(ANYONE, later),
                setup.inventory_app.run_periodic_jobs(),
            ]
        )

        successful = [
            outcome for outcome in (*others, extended) if isinstance(outcome, ReservationView)
        ]
        assert {type(outcome) for outcome in others} <= {ReservationView, OutOfStock}
        assert isinstance(extended, ReservationView | ReservationClosed)
        assert len(successful) <= 1
        assert (
            len(successful) + len(successful_reservations(await setup.reserve({tea.product_id: 1})))
            == 1
        )
        assert await setup.inventory_app.main_stock(tea.product_id) == (1, 1)
        assert await setup.invariants_hold()


# Customer limits


@pytest.mark.parametrize("line_counts", [(1, 1), (1, 2), (2, 2)], ids=str)
async def test_customer_limit_holds_under_concurrency(
    setup: RaceSetup, line_counts: tuple[int, int]
) -> None:
    """One statement reserves a cart with one line. A transaction reserves a cart with two lines."""
    for _ in rounds(setup):
        product_ids = [(await setup.inventory_app.product(stock=50)).product_id for _ in range(2)]
        customer_id = new_id()
        held = [order_of(setup, customer_id, product_ids[:1]) for _ in range(MAX_UNPAID_ORDERS - 1)]
        await setup.reserve_all(held)

        outcomes = await run_concurrently(
            setup.inventory_app.inventory.reserve(
                ANYONE, order_of(setup, customer_id, product_ids[:count])
            )
            for count in line_counts
        )

        assert {type(outcome) for outcome in outcomes} == {ReservationView, TooManyUnpaidOrders}
        assert await setup.invariants_hold()


def order_of(setup: RaceSetup, customer_id: UUID, product_ids: list[UUID]) -> Reserve:
    order = setup.inventory_app.order(dict.fromkeys(product_ids, 1))
    return order.model_copy(update={"customer_id": customer_id})


# Transfers


async def test_transfer_races_with_reserve(setup: RaceSetup) -> None:
    other = (await setup.inventory_app.warehouse()).warehouse_id
    for _ in rounds(setup):
        tea = await setup.inventory_app.product(stock=6)
        command = NewTransfer(
            product_id=tea.product_id,
            from_warehouse_id=MAIN_WAREHOUSE,
            to_warehouse_id=other,
            quantity=3,
        )

        moved, *outcomes = await run_concurrently(
            [
                setup.inventory_app.stockroom.transfer(STAFF, command, no_key()),
                *(setup.inventory_app.reserve({tea.product_id: 1}) for _ in range(8)),
            ]
        )
        later = await setup.reserve(*[{tea.product_id: 1}] * 6)

        assert isinstance(moved, Transfer | WouldGoNegative)
        assert {type(outcome) for outcome in outcomes} <= {ReservationView, OutOfStock}
        won = [outcome for outcome in (*outcomes, *later) if isinstance(outcome, ReservationView)]
        assert units_by_product(won)[tea.product_id] == 6
        assert await setup.inventory_app.available(tea.product_id) == 0
        assert await setup.invariants_hold()


# Changes of limits


async def test_backorder_limit_import_does_not_deadlock_with_reserves(
    setup: RaceSetup,
) -> None:
    other = (await setup.inventory_app.warehouse()).warehouse_id
    import_client = ImportClient(setup.inventory_app)
    for number in rounds(setup):
        products = [await setup.inventory_app.product(stock=30) for _ in range(4)]
        for product in products:
            await setup.inventory_app.adjust(product.product_id, delta=30, warehouse_id=other)
        lines = [f"{p.sku},{number + 1},{number + 2}," for p in reversed(products)]
        # the file also sets the stock on hand of one product
        lines[0] += "31"
        file = "sku,backorder_limit,low_stock_threshold,on_hand\n" + "\n".join(lines) + "\n"
        ids = [product.product_id for product in products]
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
        # this UPDATE writes the new version of the row after the row of the other warehouse, so a
        # table scan returns the two rows in the reverse order of their warehouse ids
        await setup.inventory_app.adjust(tea.product_id, delta=29)

        changed, *outcomes = await run_concurrently(
            [
                change_limits(setup, tea),
                *(setup.reserve({tea.product_id: quantity}) for quantity in [31, 5, 2] * 5),
            ]
        )

        assert isinstance(changed, ProductView)
        assert all(isinstance(outcome, list) for outcome in outcomes)
        assert await setup.invariants_hold()


async def change_limits(setup: RaceSetup, product: ProductView) -> ProductView:
    command = ProductChange(backorder_limit=2, low_stock_threshold=4)
    return await setup.inventory_app.catalogue.change(
        STAFF, product.product_id, command, {product.version}
    )


# Categories


async def test_category_rename_and_move_do_not_deadlock(
    setup: RaceSetup,
) -> None:
    for _ in rounds(setup):
        root, leaf, other_root = [await create_category(setup) for _ in range(3)]
        leaf = await change_category(setup, leaf, parent=root.category)

        outcomes = await run_concurrently(
            change_category(setup, leaf, **fields)
            for fields in ({"name": "Leaf"}, {"parent": other_root.category}) * 5
        )

        assert {type(outcome) for outcome in outcomes} == {CategoryView, PreconditionFailed}


async def create_category(setup: RaceSetup) -> CategoryView:
    command = NewCategory(category=new_id().hex)
    return await setup.inventory_app.categories.create(STAFF, command, no_key())


async def change_category(setup: RaceSetup, category: CategoryView, **fields: Any) -> CategoryView:
    command = CategoryChange.model_validate(fields)
    return await setup.inventory_app.categories.change(
        STAFF, category.category_id, command, {category.version}
    )


# Adjustments


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

        won = len([outcome for outcome in outcomes if isinstance(outcome, ReservationView)])
        assert {type(outcome) for outcome in outcomes} <= {ReservationView, OutOfStock}
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
        later = successful_reservations(await setup.reserve(*[{tea.product_id: 1}] * 5))

        assert isinstance(fourth, ReservationView | OutOfStock)
        on_hand, reserved = await setup.inventory_app.main_stock(tea.product_id)
        assert (on_hand, reserved) == (7, 7)
        assert len(later) <= 4
        assert await setup.invariants_hold()
