"""Shipments without a carrier, and shipments that are lost or come back."""

from collections.abc import Awaitable, Callable
from functools import partial
from uuid import UUID

import pytest

from markethall.inventory.contract import (
    OutOfStock,
    ReservationStatus,
    ReservationView,
    Reserve,
)
from markethall.orders.contract import (
    FulfilmentNotFound,
    FulfilmentStatus,
    FulfilOrder,
    InvalidTransition,
    OrderFulfilmentStatus,
    OrderStatus,
    OrderView,
    ReturnShipment,
    TooMuchToCancel,
    TooMuchToFulfil,
)
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.errors import Forbidden
from markethall.shared.kernel.ids import new_id
from markethall.shared.kernel.pagination import CursorInvalid, PageQuery
from tests.orders.conftest import SHIP, STAFF, OrdersApp, attempt_without_key
from tests.orders.test_cancel_lines import cancel, paid_order, ship, stock

LOST, RETURNED = FulfilmentStatus.LOST, FulfilmentStatus.RETURNED_TO_SENDER


async def lose(orders_app: OrdersApp, fulfilment_id: UUID) -> None:
    await orders_app.fulfilments.mark_lost(STAFF, fulfilment_id, attempt_without_key())
    await orders_app.process_events(times=2)


async def take_back(orders_app: OrdersApp, fulfilment_id: UUID, *, restock: bool) -> None:
    command = ReturnShipment(restock=restock, reason="refused")
    await orders_app.fulfilments.mark_returned(STAFF, fulfilment_id, command, attempt_without_key())
    await orders_app.process_events(times=2)


async def deliver(orders_app: OrdersApp, fulfilment_id: UUID) -> None:
    await orders_app.fulfilments.deliver(STAFF, fulfilment_id, attempt_without_key())
    await orders_app.process_events()


def counts(order: OrderView) -> list[tuple[int, int, int, int]]:
    """Return (fulfilled, delivered, failed, cancelled) per line."""
    return [(line.fulfilled, line.delivered, line.failed, line.cancelled) for line in order.lines]


def ship_all(order: OrderView) -> FulfilOrder:
    lines = [{"line_id": line.line_id, "quantity": line.quantity} for line in order.lines]
    return FulfilOrder.model_validate({"lines": lines})


async def test_pick_up_needs_no_carrier(orders_app: OrdersApp) -> None:
    order = await paid_order(orders_app, 1)

    shipped = await orders_app.fulfilments.fulfil(
        STAFF, order.order_id, FulfilOrder(), attempt_without_key()
    )

    read = await orders_app.fulfilments.get_fulfilment(STAFF, shipped.fulfilment_id)
    assert read == shipped
    assert (read.carrier, read.tracking_number) == (None, None)
    assert (await orders_app.read_timeline(order)).items[-1].reason == ""


async def test_buyer_reads_the_shipments_of_an_order_page_by_page(orders_app: OrdersApp) -> None:
    order, other = await paid_order(orders_app, 2, 1), await paid_order(orders_app, 1)
    shipments = [await ship(orders_app, order, line.line_id, 1) for line in order.lines]
    shipments.append(await ship(orders_app, order, order.lines[0].line_id, 1))
    await ship(orders_app, other, other.lines[0].line_id, 1)
    list_page = orders_app.fulfilments.list_fulfilments

    first = await list_page(orders_app.buyer, order.order_id, PageQuery(limit=2))
    second = await list_page(
        orders_app.buyer, order.order_id, PageQuery(limit=2, cursor=first.next_cursor)
    )

    found = (*first.items, *second.items)
    assert [len(first.items), len(second.items), second.next_cursor] == [2, 1, None]
    assert [shipped.fulfilment_id for shipped in found] == sorted(shipments)
    for shipped in found:
        assert await orders_app.fulfilments.get_fulfilment(STAFF, shipped.fulfilment_id) == shipped
    assert (await list_page(STAFF, order.order_id, PageQuery())).items == found
    with pytest.raises(CursorInvalid):
        await list_page(STAFF, other.order_id, PageQuery(cursor=first.next_cursor))


async def test_lost_units_are_neither_delivered_nor_unfulfilled(orders_app: OrdersApp) -> None:
    order = await paid_order(orders_app, 2)
    shipped = await ship(orders_app, order, order.lines[0].line_id, 2)

    await lose(orders_app, shipped)

    after = await orders_app.read_order(order)
    read = await orders_app.fulfilments.get_fulfilment(STAFF, shipped)
    assert (read.status, read.failed_at, read.restocked) == (LOST, orders_app.clock.now, False)
    assert counts(after) == [(0, 0, 2, 0)]
    assert (after.status, after.fulfilment_status) == (
        OrderStatus.PROCESSING,
        OrderFulfilmentStatus.UNFULFILLED,
    )
    assert stock(orders_app, order) == [(3, 3)]
    assert (await orders_app.changes(order))[-1] == "shipment_lost"


async def test_shipment_without_lines_leaves_failed_units_out(orders_app: OrdersApp) -> None:
    order = await paid_order(orders_app, 3)
    shipped = await ship(orders_app, order, order.lines[0].line_id, 2)
    await lose(orders_app, shipped)

    await orders_app.fulfilments.fulfil(STAFF, order.order_id, SHIP, attempt_without_key())
    after = await orders_app.read_order(order)
    with pytest.raises(InvalidTransition) as raised:
        await orders_app.fulfilments.fulfil(STAFF, order.order_id, SHIP, attempt_without_key())

    assert counts(after) == [(1, 0, 2, 0)]
    assert after.fulfilment_status is OrderFulfilmentStatus.PARTIAL
    assert "fulfil" in raised.value.details["allowed"]


@pytest.mark.parametrize("with_reserved", [False, True])
async def test_lost_units_are_shipped_again(orders_app: OrdersApp, with_reserved: bool) -> None:
    order = await paid_order(orders_app, 2)
    line_id = order.lines[0].line_id
    lost = await ship(orders_app, order, line_id, 1 if with_reserved else 2)
    await lose(orders_app, lost)

    again = await ship(orders_app, order, line_id, 2)
    await orders_app.process_events(times=2)
    await deliver(orders_app, again)

    after = await orders_app.read_order(order)
    assert (after.status, counts(after)) == (OrderStatus.COMPLETED, [(2, 2, 0, 0)])
    assert stock(orders_app, order) == [(2, 2)] if with_reserved else [(1, 1)]
    assert {r.status for r in orders_app.fake_inventory.reservations_of(order.order_id)} == {
        ReservationStatus.CONSUMED
    }


async def test_repeated_reshipment_is_one(orders_app: OrdersApp) -> None:
    order = await paid_order(orders_app, 1)
    await lose(orders_app, await ship(orders_app, order, order.lines[0].line_id))
    attempt = attempt_without_key()
    command = ship_all(order)

    first = await orders_app.fulfilments.fulfil(STAFF, order.order_id, command, attempt)
    again = await orders_app.fulfilments.fulfil(STAFF, order.order_id, command, attempt)
    await orders_app.process_events(times=2)

    assert again == first
    assert stock(orders_app, order) == [(3, 3)]


async def test_reshipment_without_stock_is_refused(orders_app: OrdersApp) -> None:
    order = await paid_order(orders_app, 1)
    line = order.lines[0]
    await lose(orders_app, await ship(orders_app, order, line.line_id))
    orders_app.fake_inventory.remove_stock(line.product_id, 4)

    with pytest.raises(OutOfStock):
        await ship(orders_app, order, line.line_id)

    after = await orders_app.read_order(order)
    assert counts(after) == [(0, 0, 1, 0)]
    with pytest.raises(TooMuchToFulfil):
        await ship(orders_app, order, line.line_id, 2)


@pytest.mark.parametrize("others", [1, 2])
async def test_reshipment_reserves_what_it_needs_when_the_order_changes_meanwhile(
    orders_app: OrdersApp, others: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the failed unit is reserved again, another request ships one or all units."""
    order = await paid_order(orders_app, 3)
    line_id = order.lines[0].line_id
    await lose(orders_app, await ship(orders_app, order, line_id, 1))
    await lose(orders_app, await ship(orders_app, order, line_id, 1))
    reserve = orders_app.fake_inventory.reserve

    async def reserve_while_another_ships(ctx: CallContext, command: Reserve) -> ReservationView:
        monkeypatch.undo()
        reservation = await reserve(ctx, command)
        await ship(orders_app, order, line_id, others)
        return reservation

    monkeypatch.setattr(orders_app.fake_inventory, "reserve", reserve_while_another_ships)
    shipping = ship(orders_app, order, line_id, 2)
    if others == 1:
        await shipping
    else:
        with pytest.raises(TooMuchToFulfil):
            await shipping
    await orders_app.process_events(times=2)

    after = await orders_app.read_order(order)
    found = (counts(after), stock(orders_app, order))
    expected = {1: ([(3, 0, 0, 0)], [(0, 0)]), 2: ([(2, 0, 1, 0)], [(1, 1)])}
    assert found == expected[others]


async def test_reshipment_that_expired_waits_for_stock(orders_app: OrdersApp) -> None:
    order = await paid_order(orders_app, 1)
    line = order.lines[0]
    await lose(orders_app, await ship(orders_app, order, line.line_id))
    command = ship_all(order)
    await orders_app.fulfilments.fulfil(STAFF, order.order_id, command, attempt_without_key())
    orders_app.clock.now = orders_app.clock.now.replace(hour=15)
    orders_app.fake_inventory.remove_stock(line.product_id, 4)

    await orders_app.process_events()
    waiting = orders_app.fake_inventory.on_hand(line.product_id)
    orders_app.fake_inventory.receive_stock(line.product_id, 1)
    orders_app.clock.now = orders_app.clock.now.replace(hour=16)
    await orders_app.process_events()

    assert (waiting, stock(orders_app, order)) == (0, [(0, 0)])


@pytest.mark.parametrize("restock", [False, True])
async def test_returned_shipment_is_restocked_by_choice(
    orders_app: OrdersApp, restock: bool
) -> None:
    order = await paid_order(orders_app, 2)
    shipped = await ship(orders_app, order, order.lines[0].line_id, 2)

    await take_back(orders_app, shipped, restock=restock)

    read = await orders_app.fulfilments.get_fulfilment(STAFF, shipped)
    assert (read.status, read.restocked) == (RETURNED, restock)
    assert stock(orders_app, order) == ([(5, 5)] if restock else [(3, 3)])
    entry = (await orders_app.read_timeline(order)).items[-1]
    assert (entry.change, entry.reason) == ("shipment_returned", "refused")


async def test_cancelled_failed_units_are_refunded_and_complete_the_order(
    orders_app: OrdersApp,
) -> None:
    order = await paid_order(orders_app, 2)
    line_id = order.lines[0].line_id
    delivered = await ship(orders_app, order, line_id, 1)
    await deliver(orders_app, delivered)
    await lose(orders_app, await ship(orders_app, order, line_id, 1))

    after = await cancel(orders_app, order)

    assert (after.status, counts(after)) == (OrderStatus.COMPLETED, [(1, 1, 0, 1)])
    assert after.fulfilment_status is OrderFulfilmentStatus.DELIVERED
    payment_id = order.payment.payment_id
    assert orders_app.fake_payments.captured_minus_refunded(payment_id) == 1000
    assert stock(orders_app, order) == [(3, 3)]


async def test_order_whose_shipment_is_lost_ends_when_all_units_are_cancelled(
    orders_app: OrdersApp,
) -> None:
    order = await paid_order(orders_app, 1)
    await lose(orders_app, await ship(orders_app, order, order.lines[0].line_id))

    with pytest.raises(InvalidTransition):
        await cancel(orders_app, order, ctx=orders_app.buyer)
    after = await cancel(orders_app, order)

    assert (after.status, after.fulfilment_status) == (
        OrderStatus.COMPLETED,
        OrderFulfilmentStatus.UNFULFILLED,
    )
    assert orders_app.fake_payments.captured_minus_refunded(order.payment.payment_id) == 0


async def test_cancellation_takes_failed_units_first(orders_app: OrdersApp) -> None:
    order = await paid_order(orders_app, 3)
    line_id = order.lines[0].line_id
    await lose(orders_app, await ship(orders_app, order, line_id, 1))

    one = await cancel(orders_app, order, (line_id, 1))
    reserved = stock(orders_app, order)
    two = await cancel(orders_app, order, (line_id, 1))

    assert (counts(one), reserved) == ([(0, 0, 0, 1)], [(4, 2)])
    assert (counts(two), stock(orders_app, order)) == ([(0, 0, 0, 2)], [(4, 3)])
    with pytest.raises(TooMuchToCancel):
        await cancel(orders_app, order, (line_id, 2))


async def test_every_command_after_the_end_of_a_shipment_is_refused(orders_app: OrdersApp) -> None:
    order = await paid_order(orders_app, 3)
    line_id = order.lines[0].line_id
    ends: list[Callable[[OrdersApp, UUID], Awaitable[None]]] = [
        deliver,
        lose,
        partial(take_back, restock=True),
    ]

    for end, status in zip(ends, ("delivered", "lost", "returned_to_sender"), strict=True):
        shipped = await ship(orders_app, order, line_id, 1)
        await end(orders_app, shipped)
        for again in ends:
            with pytest.raises(InvalidTransition) as raised:
                await again(orders_app, shipped)
            assert raised.value.details == {"status": status, "allowed": []}

    assert counts(await orders_app.read_order(order)) == [(1, 1, 2, 0)]


async def test_only_staff_report_lost_shipments(orders_app: OrdersApp) -> None:
    order = await paid_order(orders_app, 1)
    shipped = await ship(orders_app, order, order.lines[0].line_id)

    with pytest.raises(Forbidden):
        await orders_app.fulfilments.mark_lost(orders_app.buyer, shipped, attempt_without_key())
    with pytest.raises(Forbidden):
        await orders_app.fulfilments.mark_returned(
            orders_app.buyer, shipped, ReturnShipment(restock=True), attempt_without_key()
        )
    with pytest.raises(FulfilmentNotFound):
        await orders_app.fulfilments.mark_lost(STAFF, new_id(), attempt_without_key())
