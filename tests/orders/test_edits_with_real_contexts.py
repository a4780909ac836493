"""Edits of orders with the real contexts `inventory`, `payments` and `users`, on each storage."""

from asyncio import gather
from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from markethall.orders.contract import EditOrder, OrderStatus, OrderView
from markethall.payments.contract.api import PaymentQuery, PaymentView
from markethall.shared.kernel.integrity import Findings
from tests.containers import orders_of, payments_of
from tests.orders.conftest import CANCEL, SHIP, STAFF, attempt_without_key
from tests.orders.test_with_real_contexts import ContextsApp, contexts_app, settings

__all__ = ["contexts_app", "settings"]  # fixtures
DAY = timedelta(days=1)


async def edit(app: ContextsApp, order: OrderView, product_id: UUID, quantity: int) -> OrderView:
    line = {"product_id": product_id, "quantity": quantity}
    command = EditOrder.model_validate({"lines": [line]})
    edits = orders_of(app.container).order_edits()
    return await edits.edit(STAFF, order.order_id, command, attempt_without_key())


async def payments_of_order(app: ContextsApp, order: OrderView) -> Sequence[PaymentView]:
    api = payments_of(app.container).payment_api()
    return (await api.list_payments(STAFF, PaymentQuery(order_id=order.order_id))).items


async def find_offending_rows(app: ContextsApp) -> list[str]:
    """Return the rows that the integrity checks of orders report one day later."""
    app.clock.now += DAY
    findings = Findings()
    for check in orders_of(app.container).integrity_checks():
        await check.find(findings, timedelta(seconds=1))
    return [f"{found.row}: {found.problem}" for found in findings.rows]


async def test_edited_order_is_paid_once_and_shipped(contexts_app: ContextsApp) -> None:
    product_id = await contexts_app.product(stock=9)
    order = await contexts_app.place(product_id, 2)

    edited = await edit(contexts_app, order, product_id, 3)
    await contexts_app.process_events()
    paid = await contexts_app.confirm(edited)
    await contexts_app.process_events()
    await contexts_app.fulfilments.fulfil(STAFF, order.order_id, SHIP, attempt_without_key())
    await contexts_app.process_events()

    assert paid.captured.amount == 3000
    assert await contexts_app.available(product_id) == 6
    payments = await payments_of_order(contexts_app, order)
    assert sorted((one.status.value, one.captured.amount) for one in payments) == [
        ("cancelled", 0),
        ("captured", 3000),
    ]
    assert await find_offending_rows(contexts_app) == []


async def test_difference_of_a_paid_order_is_refunded(contexts_app: ContextsApp) -> None:
    product_id = await contexts_app.product(stock=9)
    order = await contexts_app.place(product_id, 3)
    await contexts_app.confirm(order)
    await contexts_app.process_events()

    edited = await edit(contexts_app, order, product_id, 1)
    await contexts_app.process_events()

    payment = await contexts_app.payment(edited)
    assert (payment.captured.amount, payment.refunded.amount) == (3000, 2000)
    assert await contexts_app.available(product_id) == 8
    assert await find_offending_rows(contexts_app) == []


async def test_additional_payment_is_charged_split_and_returned(contexts_app: ContextsApp) -> None:
    product_id = await contexts_app.product(stock=9)
    order = await contexts_app.place(product_id, 2)
    await contexts_app.confirm(order)
    await contexts_app.process_events()

    edited = await edit(contexts_app, order, product_id, 5)
    assert edited.open_edit
    await contexts_app.confirm_payment(edited.open_edit.payment_id)
    await contexts_app.process_events()
    assert await contexts_app.available(product_id) == 4
    lower = await edit(contexts_app, order, product_id, 1)
    await contexts_app.process_events()

    payments = await payments_of_order(contexts_app, order)
    assert sorted((one.captured.amount, one.refunded.amount) for one in payments) == [
        (2000, 2000),
        (3000, 2000),
    ]
    assert (lower.total.amount, await contexts_app.available(product_id)) == (1000, 8)
    assert await find_offending_rows(contexts_app) == []
    await contexts_app.orders.cancel(STAFF, order.order_id, CANCEL, attempt_without_key())
    await contexts_app.process_events()
    payments = await payments_of_order(contexts_app, order)
    assert all(one.captured == one.refunded for one in payments)
    assert await find_offending_rows(contexts_app) == []


async def test_additional_payment_races_to_one_legal_outcome(contexts_app: ContextsApp) -> None:
    product_id = await contexts_app.product(stock=200)
    for _ in range(10):
        await contexts_app.open()
        order = await contexts_app.place(product_id, 2)
        await contexts_app.confirm(order)
        await contexts_app.process_events()
        edited = await edit(contexts_app, order, product_id, 3)
        assert edited.open_edit

        await gather(
            contexts_app.confirm_payment(edited.open_edit.payment_id),
            contexts_app.process_events(),
            contexts_app.orders.cancel(STAFF, order.order_id, CANCEL, attempt_without_key()),
            contexts_app.fulfilments.fulfil(STAFF, order.order_id, SHIP, attempt_without_key()),
            edit(contexts_app, order, product_id, 1),
            return_exceptions=True,
        )
        await contexts_app.process_events()

        found = await contexts_app.read_order(order)
        kept = sum(
            one.captured.amount - one.refunded.amount
            for one in await payments_of_order(contexts_app, order)
        )
        is_paid = found.status in {OrderStatus.PROCESSING, OrderStatus.COMPLETED}
        assert kept == (found.total.amount if is_paid else 0)
    contexts_app.clock.now += DAY
    await contexts_app.run_periodic_jobs()
    await contexts_app.process_events()
    assert await find_offending_rows(contexts_app) == []


async def test_edit_payment_cancel_and_shipment_race_to_one_legal_outcome(
    contexts_app: ContextsApp,
) -> None:
    product_id = await contexts_app.product(stock=200)
    for _ in range(10):
        await contexts_app.open()
        order = await contexts_app.place(product_id, 2)

        await gather(
            edit(contexts_app, order, product_id, 3),
            contexts_app.confirm(order),
            edit(contexts_app, order, product_id, 1),
            return_exceptions=True,
        )
        current = await contexts_app.read_order(order)
        await gather(
            contexts_app.confirm(current),
            contexts_app.process_events(),
            edit(contexts_app, order, product_id, 1),
            return_exceptions=True,
        )
        await contexts_app.process_events()
        await gather(
            contexts_app.orders.cancel(STAFF, order.order_id, CANCEL, attempt_without_key()),
            contexts_app.fulfilments.fulfil(STAFF, order.order_id, SHIP, attempt_without_key()),
            edit(contexts_app, order, product_id, 1),
            return_exceptions=True,
        )
        await contexts_app.process_events()

        await _assert_legal(contexts_app, order)
    contexts_app.clock.now += DAY
    await contexts_app.run_periodic_jobs()
    await contexts_app.process_events()
    assert await find_offending_rows(contexts_app) == []


async def _assert_legal(app: ContextsApp, order: OrderView) -> None:
    """Check that the shop keeps the total of a live order, and no money of an ended order."""
    order = await app.read_order(order)
    kept = {
        one.payment_id: one.captured.amount - one.refunded.amount
        for one in await payments_of_order(app, order)
    }
    own = kept.pop(order.payment.payment_id)
    is_paid = order.status in {OrderStatus.PROCESSING, OrderStatus.COMPLETED}
    assert own == (order.total.amount if is_paid else 0)
    assert set(kept.values()) <= {0}
