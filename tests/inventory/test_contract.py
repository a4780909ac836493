"""Every implementation of Inventory keeps these promises."""

from asyncio import gather
from collections.abc import Awaitable
from typing import Any, TypeVar
from uuid import UUID

import pytest

from markethall.inventory.contract import (
    OutOfStock,
    ProductChange,
    ProductNotFound,
    ProductQuery,
    Reservation,
    ReservationClosed,
    ReservationQuery,
    ReservationStatus,
    Reserve,
    Want,
)
from markethall.shared.ids import new_id
from markethall.shared.metrics import STATEMENTS
from markethall.shared.money import Money
from markethall.shared.pages import PageQuery
from tests.inventory.conftest import ANYONE, STAFF, House, leaving

T = TypeVar("T")


async def together(*calls: Awaitable[T]) -> list[T | BaseException]:
    return await gather(*calls, return_exceptions=True)


def refusals(results: list[Any], kind: type[BaseException]) -> int:
    other = [r for r in results if isinstance(r, BaseException) and not isinstance(r, kind)]
    assert not other
    return sum(isinstance(result, kind) for result in results)


# Reserve


async def test_a_reservation_keeps_the_price_and_name_of_the_moment(house: House) -> None:
    tea = await house.product("TEA", stock=5, name="Sencha")

    reservation = await house.reserve({tea.product_id: 2})

    line = reservation.lines[0]
    assert reservation.status == ReservationStatus.HELD
    assert (line.product_id, line.sku, line.name, line.quantity) == (
        tea.product_id, "TEA", "Sencha", 2,
    )  # fmt: skip
    assert line.unit_price == Money(amount=1250, currency="EUR")
    assert await house.shelf(tea.product_id) == (5, 2)
    assert await house.available(tea.product_id) == 3


async def test_lines_of_one_product_are_summed_and_lines_stand_in_product_order(
    house: House,
) -> None:
    tea, cup = await house.product(stock=5), await house.product(stock=5)
    ids = sorted([tea.product_id, cup.product_id])
    command = house.order({})
    wants = [Want(product_id=ids[i], quantity=n) for i, n in ((1, 1), (0, 2), (1, 3))]

    reservation = await house.inventory.reserve(
        ANYONE, command.model_copy(update={"lines": tuple(wants)})
    )

    assert [(line.product_id, line.quantity) for line in reservation.lines] == [
        (ids[0], 2),
        (ids[1], 4),
    ]


async def test_a_repeated_reserve_takes_nothing_more(house: House) -> None:
    tea = await house.product(stock=5)
    command = house.order({tea.product_id: 2})

    first = await house.inventory.reserve(ANYONE, command)
    dearer = ProductChange.model_validate({"price": {"amount": 9999, "currency": "EUR"}})
    await house.catalogue.change(STAFF, tea.product_id, dearer, {1})
    second = await house.inventory.reserve(ANYONE, command)

    assert first == second
    assert await house.available(tea.product_id) == 3


async def test_the_same_reserve_twenty_times_at_once_is_one(house: House) -> None:
    tea = await house.product(stock=50)
    command = house.order({tea.product_id: 2})

    results = await gather(*(house.inventory.reserve(ANYONE, command) for _ in range(20)))

    assert all(result == results[0] for result in results)
    assert await house.shelf(tea.product_id) == (50, 2)


async def test_all_short_lines_are_named_and_nothing_is_held(house: House) -> None:
    tea, cup, pot = [await house.product(stock=n) for n in (9, 1, 2)]
    wanted = {tea.product_id: 1, cup.product_id: 2, pot.product_id: 5}

    with pytest.raises(OutOfStock) as refusal:
        await house.reserve(wanted)

    expected = [
        {"product_id": str(product.product_id), "requested": n, "available": there}
        for product, n, there in ((cup, 2, 1), (pot, 5, 2))
    ]
    assert refusal.value.details == {
        "lines": sorted(expected, key=lambda line: str(line["product_id"]))
    }
    assert await house.shelf(tea.product_id) == (9, 0)


async def test_what_was_refused_may_be_reserved_later_under_the_same_id(house: House) -> None:
    tea = await house.product(stock=1)
    command = house.order({tea.product_id: 2})
    with pytest.raises(OutOfStock):
        await house.inventory.reserve(ANYONE, command)

    await house.adjust(tea.product_id, delta=1)
    reservation = await house.inventory.reserve(ANYONE, command)

    assert reservation.status == ReservationStatus.HELD


@pytest.mark.parametrize("status", ["draft", "archived"])
async def test_what_is_not_for_sale_is_not_found(house: House, status: str) -> None:
    tea, old = await house.product(stock=5), await house.product(stock=5, status=status)
    nowhere = new_id()

    with pytest.raises(ProductNotFound) as refusal:
        await house.reserve({tea.product_id: 1, old.product_id: 1, nowhere: 1})

    assert set(refusal.value.details["product_ids"]) == {str(old.product_id), str(nowhere)}
    assert await house.shelf(tea.product_id) == (5, 0)


async def test_fifty_buyers_get_the_seven_that_are_left(house: House) -> None:
    tea = await house.product(stock=7)

    results = await together(*(house.reserve({tea.product_id: 1}) for _ in range(50)))

    assert refusals(results, OutOfStock) == 43
    assert await house.shelf(tea.product_id) == (7, 7)


async def test_crossed_carts_never_wait_for_each_other(house: House) -> None:
    one, two = await house.product(stock=400), await house.product(stock=400)

    async def cart(first: UUID, second: UUID) -> Reservation:
        command = house.order({})
        wants = (Want(product_id=first, quantity=1), Want(product_id=second, quantity=1))
        return await house.inventory.reserve(ANYONE, command.model_copy(update={"lines": wants}))

    for _ in range(20):
        pairs = [(one.product_id, two.product_id), (two.product_id, one.product_id)] * 10
        results = await together(*(cart(*pair) for pair in pairs))
        assert refusals(results, OutOfStock) == 0

    assert await house.shelf(one.product_id) == (400, 400)
    assert await house.shelf(two.product_id) == (400, 400)


# Expiry


async def test_an_expired_hold_counts_no_more_even_before_the_sweeper_comes(house: House) -> None:
    tea = await house.product(stock=3)
    await house.reserve({tea.product_id: 3}, minutes=10)
    assert await house.available(tea.product_id) == 0

    house.watch.forward(minutes=11)

    assert await house.available(tea.product_id) == 3
    assert (await house.reserve({tea.product_id: 2})).status == ReservationStatus.HELD
    assert await house.shelf(tea.product_id) == (3, 2)


async def test_expired_holds_do_not_help_when_they_are_too_few(house: House) -> None:
    tea = await house.product(stock=3)
    await house.reserve({tea.product_id: 1}, minutes=10)
    await house.reserve({tea.product_id: 2}, minutes=60)
    house.watch.forward(minutes=11)

    with pytest.raises(OutOfStock) as refusal:
        await house.reserve({tea.product_id: 2})

    assert refusal.value.details["lines"][0]["available"] == 1


async def test_many_buyers_share_what_expired_holds_give_back(house: House) -> None:
    tea, cup = await house.product(stock=8), await house.product(stock=8)
    both = {tea.product_id: 1, cup.product_id: 1}
    for _ in range(8):
        await house.reserve(both, minutes=10)
    house.watch.forward(minutes=11)

    results = await together(*(house.reserve(both) for _ in range(24)), house.sweep())

    assert refusals(results, OutOfStock) == 16
    assert await house.shelf(tea.product_id) == (8, 8)
    assert await house.shelf(cup.product_id) == (8, 8)


async def test_the_sweeper_gives_back_what_expired_and_nothing_else(house: House) -> None:
    tea = await house.product(stock=200)
    early = [await house.reserve({tea.product_id: 1}, minutes=10) for _ in range(60)]
    late = await house.reserve({tea.product_id: 1}, minutes=20)
    paid = await house.reserve({tea.product_id: 1}, minutes=10)
    await house.inventory.commit(ANYONE, paid.reservation_id)
    house.watch.forward(minutes=11)

    await house.sweep()
    await house.sweep()

    assert await house.shelf(tea.product_id) == (200, 2)
    assert await status(house, early[0]) == ReservationStatus.EXPIRED
    assert await status(house, late) == ReservationStatus.HELD
    assert await status(house, paid) == ReservationStatus.COMMITTED


async def status(house: House, reservation: Reservation) -> ReservationStatus:
    """A repeated reserve tells how the reservation stands."""
    command = Reserve(
        reservation_id=reservation.reservation_id,
        order_id=new_id(),
        customer_id=new_id(),
        lines=(),
        expires_at=reservation.expires_at,
    )
    return (await house.inventory.reserve(ANYONE, command)).status


# Commit


async def test_what_is_committed_never_expires(house: House) -> None:
    tea = await house.product(stock=3)
    held = await house.reserve({tea.product_id: 2}, minutes=10)

    committed = await house.inventory.commit(ANYONE, held.reservation_id)
    house.watch.forward(minutes=11)
    await house.sweep()
    again = await house.inventory.commit(ANYONE, held.reservation_id)

    assert committed == again
    assert committed.status == ReservationStatus.COMMITTED
    assert committed.lines == held.lines
    assert await house.shelf(tea.product_id) == (3, 2)


async def test_a_hold_that_was_overdue_but_not_yet_swept_is_committed(house: House) -> None:
    tea = await house.product(stock=3)
    held = await house.reserve({tea.product_id: 2}, minutes=10)
    house.watch.forward(minutes=11)

    committed = await house.inventory.commit(ANYONE, held.reservation_id)

    assert committed.status == ReservationStatus.COMMITTED
    assert await house.available(tea.product_id) == 1


async def test_an_expired_hold_is_taken_again_when_the_goods_are_there(house: House) -> None:
    tea, cup = await house.product(stock=3), await house.product(stock=3)
    held = await house.reserve({tea.product_id: 2, cup.product_id: 3}, minutes=10)
    house.watch.forward(minutes=11)
    await house.sweep()

    committed = await house.inventory.commit(ANYONE, held.reservation_id)

    assert committed.status == ReservationStatus.COMMITTED
    assert await house.shelf(tea.product_id) == (3, 2)
    assert await house.shelf(cup.product_id) == (3, 3)


async def test_an_expired_hold_whose_goods_are_gone_is_out_of_stock(house: House) -> None:
    tea = await house.product(stock=3)
    held = await house.reserve({tea.product_id: 2}, minutes=10)
    house.watch.forward(minutes=11)
    await house.reserve({tea.product_id: 3}, minutes=60)

    with pytest.raises(OutOfStock) as refusal:
        await house.inventory.commit(ANYONE, held.reservation_id)

    assert refusal.value.details["lines"] == [
        {"product_id": str(tea.product_id), "requested": 2, "available": 0}
    ]
    assert await house.shelf(tea.product_id) == (3, 3)


async def test_a_late_commit_takes_what_other_expired_holds_have(house: House) -> None:
    tea = await house.product(stock=3)
    held = await house.reserve({tea.product_id: 2}, minutes=10)
    house.watch.forward(minutes=11)
    await house.sweep()
    await house.reserve({tea.product_id: 3}, minutes=5)
    house.watch.forward(minutes=6)

    committed = await house.inventory.commit(ANYONE, held.reservation_id)

    assert committed.status == ReservationStatus.COMMITTED
    assert await house.shelf(tea.product_id) == (3, 2)


async def test_what_was_never_reserved_or_is_released_cannot_be_committed(house: House) -> None:
    tea, nowhere = await house.product(stock=3), new_id()
    held = await house.reserve({tea.product_id: 2})
    await house.inventory.release(ANYONE, held.reservation_id)

    with pytest.raises(ReservationClosed) as released:
        await house.inventory.commit(ANYONE, held.reservation_id)
    with pytest.raises(ReservationClosed) as unknown:
        await house.inventory.commit(ANYONE, nowhere)

    assert released.value.details["status"] == "released"
    assert unknown.value.details == {"reservation_id": str(nowhere), "status": None}


async def test_commits_race_with_expiry_and_other_buyers(house: House) -> None:
    tea = await house.product(stock=10)
    held = [await house.reserve({tea.product_id: 1}, minutes=10) for _ in range(10)]
    house.watch.forward(minutes=11)

    results = await together(
        *(house.inventory.commit(ANYONE, one.reservation_id) for one in held),
        *(house.reserve({tea.product_id: 1}) for _ in range(10)),
        house.sweep(),
        house.sweep(),
    )

    assert refusals(results, OutOfStock) == 10
    assert await house.shelf(tea.product_id) == (10, 10)


# Consume


async def test_goods_leave_in_parts_each_fulfilment_once(house: House) -> None:
    tea, cup = await house.product(stock=5), await house.product(stock=5)
    held = await house.reserve({tea.product_id: 3, cup.product_id: 1})
    await house.inventory.commit(ANYONE, held.reservation_id)
    part = leaving(held.reservation_id, {tea.product_id: 2, cup.product_id: 1})

    first = await house.inventory.consume(ANYONE, part)
    again = await house.inventory.consume(ANYONE, part)
    rest = await house.inventory.consume(ANYONE, leaving(held.reservation_id, {tea.product_id: 1}))

    assert first == again
    assert first.status == ReservationStatus.COMMITTED
    assert rest.status == ReservationStatus.CONSUMED
    assert await house.shelf(tea.product_id) == (2, 0)
    assert await house.shelf(cup.product_id) == (4, 0)


async def test_a_fulfilment_repeated_at_once_takes_the_goods_once(house: House) -> None:
    tea = await house.product(stock=9)
    held = await house.reserve({tea.product_id: 9})
    part = leaving(held.reservation_id, {tea.product_id: 2})

    await gather(*(house.inventory.consume(ANYONE, part) for _ in range(10)))

    assert await house.shelf(tea.product_id) == (7, 7)


async def test_different_fulfilments_at_once_take_no_more_than_was_reserved(house: House) -> None:
    tea = await house.product(stock=20)
    held = await house.reserve({tea.product_id: 5})
    parts = [leaving(held.reservation_id, {tea.product_id: 2}) for _ in range(6)]

    results = await together(*(house.inventory.consume(ANYONE, part) for part in parts))

    assert refusals(results, ReservationClosed) == 4
    assert await house.shelf(tea.product_id) == (16, 1)


async def test_sold_goods_stand_in_the_ledger_with_their_fulfilment(house: House) -> None:
    tea = await house.product(stock=5)
    held = await house.reserve({tea.product_id: 3})
    part = leaving(held.reservation_id, {tea.product_id: 3})

    await house.inventory.consume(STAFF, part)

    page = await house.stockroom.movements(STAFF, tea.product_id, PageQuery())
    sold, received = page.items
    assert (sold.delta, sold.on_hand_after, sold.reason) == (-3, 2, "sold")
    assert (sold.reference, sold.actor) == (part.fulfilment_id, STAFF.actor.known_as)
    assert (received.delta, received.on_hand_after, received.reference) == (5, 5, None)


async def test_a_hold_that_goods_have_left_is_committed(house: House) -> None:
    tea = await house.product(stock=5)
    held = await house.reserve({tea.product_id: 3}, minutes=10)

    part = await house.inventory.consume(ANYONE, leaving(held.reservation_id, {tea.product_id: 1}))
    house.watch.forward(minutes=11)
    await house.sweep()

    assert part.status == ReservationStatus.COMMITTED
    assert await house.shelf(tea.product_id) == (4, 2)


async def test_more_than_is_reserved_cannot_leave(house: House) -> None:
    tea, cup = await house.product(stock=5), await house.product(stock=5)
    held = await house.reserve({tea.product_id: 3})

    with pytest.raises(ReservationClosed) as refusal:
        await house.inventory.consume(
            ANYONE, leaving(held.reservation_id, {tea.product_id: 4, cup.product_id: 1})
        )

    lines = {line["product_id"]: line["remaining"] for line in refusal.value.details["lines"]}
    assert lines == {str(tea.product_id): 3, str(cup.product_id): 0}
    assert await house.shelf(tea.product_id) == (5, 3)


async def test_nothing_leaves_a_reservation_that_has_ended(house: House) -> None:
    tea = await house.product(stock=9)
    released, expired, used = [
        await house.reserve({tea.product_id: 1}, minutes=n) for n in (60, 10, 60)
    ]
    await house.inventory.release(ANYONE, released.reservation_id)
    await house.inventory.consume(ANYONE, leaving(used.reservation_id, {tea.product_id: 1}))
    house.watch.forward(minutes=11)
    await house.sweep()

    seen = []
    for reservation_id in (
        released.reservation_id, expired.reservation_id, used.reservation_id, new_id(),
    ):  # fmt: skip
        with pytest.raises(ReservationClosed) as refusal:
            await house.inventory.consume(ANYONE, leaving(reservation_id, {tea.product_id: 1}))
        seen.append(refusal.value.details["status"])

    assert seen == ["released", "expired", "consumed", None]


# Release


async def test_release_gives_back_once(house: House) -> None:
    tea = await house.product(stock=5)
    held = await house.reserve({tea.product_id: 3})

    first = await house.inventory.release(ANYONE, held.reservation_id)
    again = await house.inventory.release(ANYONE, held.reservation_id)

    assert first == again
    assert first.status == ReservationStatus.RELEASED
    assert await house.shelf(tea.product_id) == (5, 0)


async def test_release_gives_back_what_has_not_left(house: House) -> None:
    tea = await house.product(stock=5)
    held = await house.reserve({tea.product_id: 3})
    part = leaving(held.reservation_id, {tea.product_id: 1})
    await house.inventory.consume(ANYONE, part)

    released = await house.inventory.release(ANYONE, held.reservation_id)
    again = await house.inventory.consume(ANYONE, part)

    assert released.status == again.status == ReservationStatus.RELEASED
    assert await house.shelf(tea.product_id) == (4, 0)


async def test_what_is_consumed_stays_consumed(house: House) -> None:
    tea = await house.product(stock=5)
    held = await house.reserve({tea.product_id: 3})
    await house.inventory.consume(ANYONE, leaving(held.reservation_id, {tea.product_id: 3}))

    released = await house.inventory.release(ANYONE, held.reservation_id)

    assert released.status == ReservationStatus.CONSUMED
    assert await house.shelf(tea.product_id) == (2, 0)


async def test_a_late_reserve_never_wins_over_its_release(house: House) -> None:
    tea = await house.product(stock=5)
    command = house.order({tea.product_id: 3})

    tombstone = await house.inventory.release(ANYONE, command.reservation_id)
    late = await house.inventory.reserve(ANYONE, command)

    assert tombstone == late
    assert (late.status, late.lines, late.order_id) == (ReservationStatus.RELEASED, (), None)
    assert await house.shelf(tea.product_id) == (5, 0)


async def test_reserve_and_release_at_once_leave_nothing_reserved(house: House) -> None:
    tea = await house.product(stock=50)
    commands = [house.order({tea.product_id: 1}) for _ in range(20)]

    results = await together(
        *(house.inventory.reserve(ANYONE, command) for command in commands),
        *(house.inventory.release(ANYONE, command.reservation_id) for command in commands),
    )

    assert refusals(results, OutOfStock) == 0
    assert await house.shelf(tea.product_id) == (50, 0)


async def test_commit_and_release_at_once_agree(house: House) -> None:
    tea = await house.product(stock=50)
    held = [await house.reserve({tea.product_id: 1}) for _ in range(20)]

    results = await together(
        *(house.inventory.commit(ANYONE, one.reservation_id) for one in held),
        *(house.inventory.release(ANYONE, one.reservation_id) for one in held),
    )

    assert refusals(results, ReservationClosed) <= 20
    assert await house.shelf(tea.product_id) == (50, 0)


# For staff


async def test_the_reservations_of_an_order_are_listed(house: House) -> None:
    tea = await house.product(stock=50)
    order_id = new_id()
    made = [house.order({tea.product_id: n}) for n in (1, 2, 3)]
    for command in made:
        await house.inventory.reserve(ANYONE, command.model_copy(update={"order_id": order_id}))
    await house.reserve({tea.product_id: 4})

    first = await house.stockroom.reservations(STAFF, ReservationQuery(order_id=order_id, limit=2))
    second = await house.stockroom.reservations(
        STAFF, ReservationQuery(order_id=order_id, limit=2, cursor=first.next_cursor)
    )

    quantities = [one.lines[0].quantity for page in (first, second) for one in page.items]
    assert sorted(quantities) == [1, 2, 3]
    assert second.next_cursor is None


# What it costs


async def test_the_statements_of_a_purchase_are_few(sql_house: House) -> None:
    house = sql_house
    tea, cup = await house.product(stock=5), await house.product(stock=5)

    async def cost(work: Awaitable[T]) -> tuple[T, float]:
        before = STATEMENTS._value.get()
        result = await work
        return result, STATEMENTS._value.get() - before

    held, reserve = await cost(house.reserve({tea.product_id: 1}))
    _, reserve_two = await cost(house.reserve({tea.product_id: 1, cup.product_id: 1}))
    _, commit = await cost(house.inventory.commit(ANYONE, held.reservation_id))
    _, product = await cost(house.catalogue.product_body(ANYONE, tea.product_id))
    _, cached = await cost(house.catalogue.product_body(ANYONE, tea.product_id))
    _, page = await cost(house.catalogue.page_body(ANYONE, ProductQuery(in_stock=True)))

    assert (reserve, reserve_two, commit, product, cached, page) == (1, 4, 1, 1, 0, 1)
