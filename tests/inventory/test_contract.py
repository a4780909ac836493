"""The contract suite of `Inventory`. It runs on each storage, in process and over HTTP."""

from asyncio import gather
from collections.abc import Awaitable
from typing import Any, TypeVar
from uuid import UUID

import pytest

from markethall.inventory.catalogue.contract.products import ProductChange
from markethall.inventory.contract import (
    OutOfStock,
    ProductNotFound,
    RequestedLine,
    ReservationClosed,
    ReservationStatus,
    ReservationView,
    Reserve,
)
from markethall.inventory.reservations.contract import ReservationQuery
from markethall.inventory.search.contract import ProductQuery
from markethall.shared.kernel.ids import new_id
from markethall.shared.kernel.money import Money
from markethall.shared.kernel.pagination import PageQuery
from markethall.shared.observability.metrics import STATEMENTS
from tests.inventory.conftest import ANYONE, STAFF, InventoryApp, consume_command

T = TypeVar("T")


async def run_concurrently(*calls: Awaitable[T]) -> list[T | BaseException]:
    return await gather(*calls, return_exceptions=True)


def count_errors(results: list[Any], error_type: type[BaseException]) -> int:
    errors = [result for result in results if isinstance(result, BaseException)]
    assert all(isinstance(error, error_type) for error in errors)
    return len(errors)


# Reserve


async def test_reservation_keeps_price_and_name_at_creation(inventory_app: InventoryApp) -> None:
    tea = await inventory_app.product("TEA", stock=5, name="Sencha")

    reservation = await inventory_app.reserve({tea.product_id: 2})

    line = reservation.lines[0]
    assert reservation.status == ReservationStatus.HELD
    assert (line.product_id, line.sku, line.name, line.quantity) == (
        tea.product_id, "TEA", "Sencha", 2,
    )  # fmt: skip
    assert line.unit_price == Money(amount=1250, currency="EUR")
    assert await inventory_app.main_stock(tea.product_id) == (5, 2)
    assert await inventory_app.available(tea.product_id) == 3


async def test_lines_are_summed_and_ordered_by_product(
    inventory_app: InventoryApp,
) -> None:
    tea, cup = await inventory_app.product(stock=5), await inventory_app.product(stock=5)
    ids = sorted([tea.product_id, cup.product_id])
    command = inventory_app.order({})
    requested = [RequestedLine(product_id=ids[i], quantity=n) for i, n in ((1, 1), (0, 2), (1, 3))]

    reservation = await inventory_app.inventory.reserve(
        ANYONE, command.model_copy(update={"lines": tuple(requested)})
    )

    assert [(line.product_id, line.quantity) for line in reservation.lines] == [
        (ids[0], 2),
        (ids[1], 4),
    ]


async def test_reserve_is_idempotent(inventory_app: InventoryApp) -> None:
    tea = await inventory_app.product(stock=5)
    command = inventory_app.order({tea.product_id: 2})

    first = await inventory_app.inventory.reserve(ANYONE, command)
    new_price = ProductChange.model_validate({"price": {"amount": 9999, "currency": "EUR"}})
    await inventory_app.catalogue.change(STAFF, tea.product_id, new_price, {1})
    second = await inventory_app.inventory.reserve(ANYONE, command)

    assert first == second
    assert await inventory_app.available(tea.product_id) == 3


async def test_concurrent_identical_reserves_create_one_reservation(
    inventory_app: InventoryApp,
) -> None:
    tea = await inventory_app.product(stock=50)
    command = inventory_app.order({tea.product_id: 2})

    results = await gather(*(inventory_app.inventory.reserve(ANYONE, command) for _ in range(20)))

    assert all(result == results[0] for result in results)
    assert await inventory_app.main_stock(tea.product_id) == (50, 2)


async def test_out_of_stock_names_all_lines_and_reserves_nothing(
    inventory_app: InventoryApp,
) -> None:
    tea, cup, pot = [await inventory_app.product(stock=n) for n in (9, 1, 2)]
    requested = {tea.product_id: 1, cup.product_id: 2, pot.product_id: 5}

    with pytest.raises(OutOfStock) as raised:
        await inventory_app.reserve(requested)

    expected = [
        {"product_id": str(product.product_id), "requested": n, "available": available}
        for product, n, available in ((cup, 2, 1), (pot, 5, 2))
    ]
    assert raised.value.details == {
        "lines": sorted(expected, key=lambda line: str(line["product_id"]))
    }
    assert await inventory_app.main_stock(tea.product_id) == (9, 0)


async def test_rejected_reserve_can_be_retried_with_same_id(inventory_app: InventoryApp) -> None:
    tea = await inventory_app.product(stock=1)
    command = inventory_app.order({tea.product_id: 2})
    with pytest.raises(OutOfStock):
        await inventory_app.inventory.reserve(ANYONE, command)

    await inventory_app.adjust(tea.product_id, delta=1)
    reservation = await inventory_app.inventory.reserve(ANYONE, command)

    assert reservation.status == ReservationStatus.HELD


@pytest.mark.parametrize("status", ["draft", "archived"])
async def test_inactive_product_cannot_be_reserved(
    inventory_app: InventoryApp, status: str
) -> None:
    tea, old = (
        await inventory_app.product(stock=5),
        await inventory_app.product(stock=5, status=status),
    )
    unknown_id = new_id()

    with pytest.raises(ProductNotFound) as raised:
        await inventory_app.reserve({tea.product_id: 1, old.product_id: 1, unknown_id: 1})

    assert set(raised.value.details["product_ids"]) == {str(old.product_id), str(unknown_id)}
    assert await inventory_app.main_stock(tea.product_id) == (5, 0)


async def test_fifty_concurrent_buyers_get_seven_units(inventory_app: InventoryApp) -> None:
    tea = await inventory_app.product(stock=7)

    results = await run_concurrently(
        *(inventory_app.reserve({tea.product_id: 1}) for _ in range(50))
    )

    assert count_errors(results, OutOfStock) == 43
    assert await inventory_app.main_stock(tea.product_id) == (7, 7)


async def test_carts_in_opposite_order_do_not_deadlock(inventory_app: InventoryApp) -> None:
    tea, cup = await inventory_app.product(stock=400), await inventory_app.product(stock=400)

    async def reserve_both(first: UUID, second: UUID) -> ReservationView:
        command = inventory_app.order({})
        requested = (
            RequestedLine(product_id=first, quantity=1),
            RequestedLine(product_id=second, quantity=1),
        )
        return await inventory_app.inventory.reserve(
            ANYONE, command.model_copy(update={"lines": requested})
        )

    for _ in range(20):
        pairs = [(tea.product_id, cup.product_id), (cup.product_id, tea.product_id)] * 10
        results = await run_concurrently(*(reserve_both(*pair) for pair in pairs))
        assert count_errors(results, OutOfStock) == 0

    assert await inventory_app.main_stock(tea.product_id) == (400, 400)
    assert await inventory_app.main_stock(cup.product_id) == (400, 400)


# Expiry


async def test_expired_reservation_is_ignored_before_expiry_job(
    inventory_app: InventoryApp,
) -> None:
    tea = await inventory_app.product(stock=3)
    await inventory_app.reserve({tea.product_id: 3}, minutes=10)
    assert await inventory_app.available(tea.product_id) == 0

    inventory_app.clock.advance(minutes=11)

    assert await inventory_app.available(tea.product_id) == 3
    assert (await inventory_app.reserve({tea.product_id: 2})).status == ReservationStatus.HELD
    assert await inventory_app.main_stock(tea.product_id) == (3, 2)


async def test_expired_reservations_may_be_insufficient(inventory_app: InventoryApp) -> None:
    tea = await inventory_app.product(stock=3)
    await inventory_app.reserve({tea.product_id: 1}, minutes=10)
    await inventory_app.reserve({tea.product_id: 2}, minutes=60)
    inventory_app.clock.advance(minutes=11)

    with pytest.raises(OutOfStock) as raised:
        await inventory_app.reserve({tea.product_id: 2})

    assert raised.value.details["lines"][0]["available"] == 1


async def test_concurrent_buyers_share_expired_stock(inventory_app: InventoryApp) -> None:
    tea, cup = await inventory_app.product(stock=8), await inventory_app.product(stock=8)
    both = {tea.product_id: 1, cup.product_id: 1}
    for _ in range(8):
        await inventory_app.reserve(both, minutes=10)
    inventory_app.clock.advance(minutes=11)

    results = await run_concurrently(
        *(inventory_app.reserve(both) for _ in range(24)), inventory_app.run_periodic_jobs()
    )

    assert count_errors(results, OutOfStock) == 16
    assert await inventory_app.main_stock(tea.product_id) == (8, 8)
    assert await inventory_app.main_stock(cup.product_id) == (8, 8)


async def test_expiry_job_releases_only_expired_reservations(inventory_app: InventoryApp) -> None:
    tea = await inventory_app.product(stock=200)
    early = [await inventory_app.reserve({tea.product_id: 1}, minutes=10) for _ in range(60)]
    late = await inventory_app.reserve({tea.product_id: 1}, minutes=20)
    paid = await inventory_app.reserve({tea.product_id: 1}, minutes=10)
    await inventory_app.inventory.commit(ANYONE, paid.reservation_id)
    inventory_app.clock.advance(minutes=11)

    await inventory_app.run_periodic_jobs()
    await inventory_app.run_periodic_jobs()

    assert await inventory_app.main_stock(tea.product_id) == (200, 2)
    assert await status(inventory_app, early[0]) == ReservationStatus.EXPIRED
    assert await status(inventory_app, late) == ReservationStatus.HELD
    assert await status(inventory_app, paid) == ReservationStatus.COMMITTED


async def status(inventory_app: InventoryApp, reservation: ReservationView) -> ReservationStatus:
    """Repeat `reserve` with the same id, which changes nothing, and return the status."""
    command = Reserve(
        reservation_id=reservation.reservation_id,
        order_id=new_id(),
        customer_id=new_id(),
        lines=(),
        expires_at=reservation.expires_at,
    )
    return (await inventory_app.inventory.reserve(ANYONE, command)).status


# Commit


async def test_committed_reservation_never_expires(inventory_app: InventoryApp) -> None:
    tea = await inventory_app.product(stock=3)
    held = await inventory_app.reserve({tea.product_id: 2}, minutes=10)

    committed = await inventory_app.inventory.commit(ANYONE, held.reservation_id)
    inventory_app.clock.advance(minutes=11)
    await inventory_app.run_periodic_jobs()
    again = await inventory_app.inventory.commit(ANYONE, held.reservation_id)

    assert committed == again
    assert committed.status == ReservationStatus.COMMITTED
    assert committed.lines == held.lines
    assert await inventory_app.main_stock(tea.product_id) == (3, 2)


async def test_overdue_reservation_can_be_committed_before_expiry_job(
    inventory_app: InventoryApp,
) -> None:
    tea = await inventory_app.product(stock=3)
    held = await inventory_app.reserve({tea.product_id: 2}, minutes=10)
    inventory_app.clock.advance(minutes=11)

    committed = await inventory_app.inventory.commit(ANYONE, held.reservation_id)

    assert committed.status == ReservationStatus.COMMITTED
    assert await inventory_app.available(tea.product_id) == 1


async def test_commit_reserves_again_after_expiry(inventory_app: InventoryApp) -> None:
    tea, cup = await inventory_app.product(stock=3), await inventory_app.product(stock=3)
    held = await inventory_app.reserve({tea.product_id: 2, cup.product_id: 3}, minutes=10)
    inventory_app.clock.advance(minutes=11)
    await inventory_app.run_periodic_jobs()

    committed = await inventory_app.inventory.commit(ANYONE, held.reservation_id)

    assert committed.status == ReservationStatus.COMMITTED
    assert await inventory_app.main_stock(tea.product_id) == (3, 2)
    assert await inventory_app.main_stock(cup.product_id) == (3, 3)


async def test_commit_after_expiry_without_stock_is_out_of_stock(
    inventory_app: InventoryApp,
) -> None:
    tea = await inventory_app.product(stock=3)
    held = await inventory_app.reserve({tea.product_id: 2}, minutes=10)
    inventory_app.clock.advance(minutes=11)
    await inventory_app.reserve({tea.product_id: 3}, minutes=60)

    with pytest.raises(OutOfStock) as raised:
        await inventory_app.inventory.commit(ANYONE, held.reservation_id)

    assert raised.value.details["lines"] == [
        {"product_id": str(tea.product_id), "requested": 2, "available": 0}
    ]
    assert await inventory_app.main_stock(tea.product_id) == (3, 3)


async def test_late_commit_uses_stock_of_other_expired_reservations(
    inventory_app: InventoryApp,
) -> None:
    tea = await inventory_app.product(stock=3)
    held = await inventory_app.reserve({tea.product_id: 2}, minutes=10)
    inventory_app.clock.advance(minutes=11)
    await inventory_app.run_periodic_jobs()
    await inventory_app.reserve({tea.product_id: 3}, minutes=5)
    inventory_app.clock.advance(minutes=6)

    committed = await inventory_app.inventory.commit(ANYONE, held.reservation_id)

    assert committed.status == ReservationStatus.COMMITTED
    assert await inventory_app.main_stock(tea.product_id) == (3, 2)


async def test_commit_of_unknown_or_released_reservation_is_rejected(
    inventory_app: InventoryApp,
) -> None:
    tea, unknown_id = await inventory_app.product(stock=3), new_id()
    held = await inventory_app.reserve({tea.product_id: 2})
    await inventory_app.inventory.release(ANYONE, held.reservation_id)

    with pytest.raises(ReservationClosed) as released:
        await inventory_app.inventory.commit(ANYONE, held.reservation_id)
    with pytest.raises(ReservationClosed) as unknown:
        await inventory_app.inventory.commit(ANYONE, unknown_id)

    assert released.value.details["status"] == "released"
    assert unknown.value.details == {"reservation_id": str(unknown_id), "status": None}


async def test_commits_race_with_expiry_and_other_buyers(inventory_app: InventoryApp) -> None:
    tea = await inventory_app.product(stock=10)
    held = [await inventory_app.reserve({tea.product_id: 1}, minutes=10) for _ in range(10)]
    inventory_app.clock.advance(minutes=11)

    results = await run_concurrently(
        *(
            inventory_app.inventory.commit(ANYONE, reservation.reservation_id)
            for reservation in held
        ),
        *(inventory_app.reserve({tea.product_id: 1}) for _ in range(10)),
        inventory_app.run_periodic_jobs(),
        inventory_app.run_periodic_jobs(),
    )

    assert count_errors(results, OutOfStock) == 10
    assert await inventory_app.main_stock(tea.product_id) == (10, 10)


# Consume


async def test_partial_consume_is_idempotent_per_fulfilment(inventory_app: InventoryApp) -> None:
    tea, cup = await inventory_app.product(stock=5), await inventory_app.product(stock=5)
    held = await inventory_app.reserve({tea.product_id: 3, cup.product_id: 1})
    await inventory_app.inventory.commit(ANYONE, held.reservation_id)
    part = consume_command(held.reservation_id, {tea.product_id: 2, cup.product_id: 1})

    first = await inventory_app.inventory.consume(ANYONE, part)
    again = await inventory_app.inventory.consume(ANYONE, part)
    rest = await inventory_app.inventory.consume(
        ANYONE, consume_command(held.reservation_id, {tea.product_id: 1})
    )

    assert first == again
    assert first.status == ReservationStatus.COMMITTED
    assert rest.status == ReservationStatus.CONSUMED
    assert await inventory_app.main_stock(tea.product_id) == (2, 0)
    assert await inventory_app.main_stock(cup.product_id) == (4, 0)


async def test_concurrent_identical_fulfilments_consume_once(inventory_app: InventoryApp) -> None:
    tea = await inventory_app.product(stock=9)
    held = await inventory_app.reserve({tea.product_id: 9})
    part = consume_command(held.reservation_id, {tea.product_id: 2})

    await gather(*(inventory_app.inventory.consume(ANYONE, part) for _ in range(10)))

    assert await inventory_app.main_stock(tea.product_id) == (7, 7)


async def test_concurrent_fulfilments_never_exceed_reserved_quantity(
    inventory_app: InventoryApp,
) -> None:
    tea = await inventory_app.product(stock=20)
    held = await inventory_app.reserve({tea.product_id: 5})
    parts = [consume_command(held.reservation_id, {tea.product_id: 2}) for _ in range(6)]

    results = await run_concurrently(
        *(inventory_app.inventory.consume(ANYONE, part) for part in parts)
    )

    assert count_errors(results, ReservationClosed) == 4
    assert await inventory_app.main_stock(tea.product_id) == (16, 1)


async def test_sale_movement_references_fulfilment(inventory_app: InventoryApp) -> None:
    tea = await inventory_app.product(stock=5)
    held = await inventory_app.reserve({tea.product_id: 3})
    part = consume_command(held.reservation_id, {tea.product_id: 3})

    await inventory_app.inventory.consume(STAFF, part)

    page = await inventory_app.stockroom.list_movements(STAFF, tea.product_id, PageQuery())
    sold, received = page.items
    assert (sold.delta, sold.on_hand_after, sold.reason) == (-3, 2, "sold")
    assert (sold.reference, sold.actor) == (part.fulfilment_id, STAFF.actor.audit_name)
    assert (received.delta, received.on_hand_after, received.reference) == (5, 5, None)


async def test_consume_commits_held_reservation(inventory_app: InventoryApp) -> None:
    tea = await inventory_app.product(stock=5)
    held = await inventory_app.reserve({tea.product_id: 3}, minutes=10)

    part = await inventory_app.inventory.consume(
        ANYONE, consume_command(held.reservation_id, {tea.product_id: 1})
    )
    inventory_app.clock.advance(minutes=11)
    await inventory_app.run_periodic_jobs()

    assert part.status == ReservationStatus.COMMITTED
    assert await inventory_app.main_stock(tea.product_id) == (4, 2)


async def test_consume_above_reserved_quantity_is_rejected(inventory_app: InventoryApp) -> None:
    tea, cup = await inventory_app.product(stock=5), await inventory_app.product(stock=5)
    held = await inventory_app.reserve({tea.product_id: 3})

    with pytest.raises(ReservationClosed) as raised:
        await inventory_app.inventory.consume(
            ANYONE, consume_command(held.reservation_id, {tea.product_id: 4, cup.product_id: 1})
        )

    lines = {line["product_id"]: line["remaining"] for line in raised.value.details["lines"]}
    assert lines == {str(tea.product_id): 3, str(cup.product_id): 0}
    assert await inventory_app.main_stock(tea.product_id) == (5, 3)


async def test_consume_of_ended_reservation_is_rejected(inventory_app: InventoryApp) -> None:
    tea = await inventory_app.product(stock=9)
    released, expired, used = [
        await inventory_app.reserve({tea.product_id: 1}, minutes=n) for n in (60, 10, 60)
    ]
    await inventory_app.inventory.release(ANYONE, released.reservation_id)
    await inventory_app.inventory.consume(
        ANYONE, consume_command(used.reservation_id, {tea.product_id: 1})
    )
    inventory_app.clock.advance(minutes=11)
    await inventory_app.run_periodic_jobs()

    statuses = []
    for reservation_id in (
        released.reservation_id, expired.reservation_id, used.reservation_id, new_id(),
    ):  # fmt: skip
        with pytest.raises(ReservationClosed) as raised:
            await inventory_app.inventory.consume(
                ANYONE, consume_command(reservation_id, {tea.product_id: 1})
            )
        statuses.append(raised.value.details["status"])

    assert statuses == ["released", "expired", "consumed", None]


# Release


async def test_release_is_idempotent(inventory_app: InventoryApp) -> None:
    tea = await inventory_app.product(stock=5)
    held = await inventory_app.reserve({tea.product_id: 3})

    first = await inventory_app.inventory.release(ANYONE, held.reservation_id)
    again = await inventory_app.inventory.release(ANYONE, held.reservation_id)

    assert first == again
    assert first.status == ReservationStatus.RELEASED
    assert await inventory_app.main_stock(tea.product_id) == (5, 0)


async def test_release_returns_unconsumed_quantity(inventory_app: InventoryApp) -> None:
    tea = await inventory_app.product(stock=5)
    held = await inventory_app.reserve({tea.product_id: 3})
    part = consume_command(held.reservation_id, {tea.product_id: 1})
    await inventory_app.inventory.consume(ANYONE, part)

    released = await inventory_app.inventory.release(ANYONE, held.reservation_id)
    again = await inventory_app.inventory.consume(ANYONE, part)

    assert released.status == again.status == ReservationStatus.RELEASED
    assert await inventory_app.main_stock(tea.product_id) == (4, 0)


async def test_consumed_reservation_stays_consumed(inventory_app: InventoryApp) -> None:
    tea = await inventory_app.product(stock=5)
    held = await inventory_app.reserve({tea.product_id: 3})
    await inventory_app.inventory.consume(
        ANYONE, consume_command(held.reservation_id, {tea.product_id: 3})
    )

    released = await inventory_app.inventory.release(ANYONE, held.reservation_id)

    assert released.status == ReservationStatus.CONSUMED
    assert await inventory_app.main_stock(tea.product_id) == (2, 0)


async def test_reserve_after_release_stays_released(inventory_app: InventoryApp) -> None:
    tea = await inventory_app.product(stock=5)
    command = inventory_app.order({tea.product_id: 3})

    tombstone = await inventory_app.inventory.release(ANYONE, command.reservation_id)
    late = await inventory_app.inventory.reserve(ANYONE, command)

    assert tombstone == late
    assert (late.status, late.lines, late.order_id) == (ReservationStatus.RELEASED, (), None)
    assert await inventory_app.main_stock(tea.product_id) == (5, 0)


async def test_reserve_and_release_race_leaves_nothing_reserved(
    inventory_app: InventoryApp,
) -> None:
    tea = await inventory_app.product(stock=50)
    commands = [inventory_app.order({tea.product_id: 1}) for _ in range(20)]

    results = await run_concurrently(
        *(inventory_app.inventory.reserve(ANYONE, command) for command in commands),
        *(inventory_app.inventory.release(ANYONE, command.reservation_id) for command in commands),
    )

    assert count_errors(results, OutOfStock) == 0
    assert await inventory_app.main_stock(tea.product_id) == (50, 0)


async def test_commit_and_release_race_has_one_outcome(inventory_app: InventoryApp) -> None:
    tea = await inventory_app.product(stock=50)
    held = [await inventory_app.reserve({tea.product_id: 1}) for _ in range(20)]

    results = await run_concurrently(
        *(
            inventory_app.inventory.commit(ANYONE, reservation.reservation_id)
            for reservation in held
        ),
        *(
            inventory_app.inventory.release(ANYONE, reservation.reservation_id)
            for reservation in held
        ),
    )

    assert count_errors(results, ReservationClosed) <= 20
    assert await inventory_app.main_stock(tea.product_id) == (50, 0)


# Queries of staff


async def test_reservations_of_an_order_are_paginated(inventory_app: InventoryApp) -> None:
    tea = await inventory_app.product(stock=50)
    order_id = new_id()
    commands = [inventory_app.order({tea.product_id: n}) for n in (1, 2, 3)]
    for command in commands:
        await inventory_app.inventory.reserve(
            ANYONE, command.model_copy(update={"order_id": order_id})
        )
    await inventory_app.reserve({tea.product_id: 4})

    first = await inventory_app.reservations.list_reservations(
        STAFF, ReservationQuery(order_id=order_id, limit=2)
    )
    second = await inventory_app.reservations.list_reservations(
        STAFF, ReservationQuery(order_id=order_id, limit=2, cursor=first.next_cursor)
    )

    quantities = [
        reservation.lines[0].quantity for page in (first, second) for reservation in page.items
    ]
    assert sorted(quantities) == [1, 2, 3]
    assert second.next_cursor is None


# Number of statements


async def test_purchase_statement_count_is_bounded(sql_inventory_app: InventoryApp) -> None:
    inventory_app = sql_inventory_app
    tea, cup = await inventory_app.product(stock=5), await inventory_app.product(stock=5)

    async def count_statements(work: Awaitable[T]) -> tuple[T, float]:
        before = STATEMENTS._value.get()
        result = await work
        return result, STATEMENTS._value.get() - before

    held, reserve = await count_statements(inventory_app.reserve({tea.product_id: 1}))
    _, reserve_two = await count_statements(
        inventory_app.reserve({tea.product_id: 1, cup.product_id: 1})
    )
    _, commit = await count_statements(inventory_app.inventory.commit(ANYONE, held.reservation_id))
    _, product = await count_statements(
        inventory_app.catalogue.render_product(ANYONE, tea.product_id)
    )
    _, cached = await count_statements(
        inventory_app.catalogue.render_product(ANYONE, tea.product_id)
    )
    _, page = await count_statements(
        inventory_app.product_search.render_product_page(ANYONE, ProductQuery(in_stock=True))
    )

    assert (reserve, reserve_two, commit, product, cached, page) == (1, 4, 1, 1, 0, 1)
