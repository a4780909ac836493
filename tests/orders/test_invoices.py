"""Invoices: their numbers have no gap, their documents do not change, their pages are safe."""

import asyncio
from typing import Any

import asyncpg
import pytest

from markethall.orders.contract import OrderNotFound, OrderView
from markethall.orders.invoices.contract import InvoiceKind, InvoiceNotFound, InvoiceView
from markethall.orders.service.order_events import paid_event
from markethall.orders.shop.contract import ShopChange
from markethall.shared.kernel.errors import Unavailable
from markethall.shared.kernel.ids import new_id
from markethall.shared.messaging.events import Delivery
from tests.conftest import plain
from tests.orders.conftest import STAFF, OrdersApp, user_context
from tests.orders.test_status_waits import cancel, placed


async def read(orders_app: OrdersApp, order: OrderView) -> InvoiceView:
    return await orders_app.container.invoices().get_invoice(STAFF, order.order_id)


async def change_shop(orders_app: OrdersApp, **fields: Any) -> None:
    change = ShopChange.model_validate(fields)
    await orders_app.container.shop().change(STAFF, change, None)


async def test_invoice_is_made_when_the_order_is_paid(orders_app: OrdersApp) -> None:
    order = await placed(orders_app)
    with pytest.raises(InvoiceNotFound):
        await read(orders_app, order)

    orders_app.fake_payments.capture(order.payment.payment_id)
    await orders_app.process_events(times=2)
    invoice = await read(orders_app, order)

    assert (invoice.kind, invoice.number) == (InvoiceKind.INVOICE, 1)
    assert invoice.issued_at == orders_app.clock()
    document = invoice.document
    assert (document.order_number, document.total) == (order.number, order.total.amount)
    assert document.billing_address == order.shipping_address


async def test_order_that_is_paid_late_gets_an_invoice(orders_app: OrdersApp) -> None:
    order = await placed(orders_app)
    orders_app.clock.now = order.expires_at
    await orders_app.run_periodic_jobs()
    orders_app.fake_payments.reopen(order.payment.payment_id)
    orders_app.fake_payments.capture(order.payment.payment_id)
    await orders_app.process_events()

    assert (await orders_app.changes(order))[-1] == "revived"
    assert (await read(orders_app, order)).number == 1


async def test_order_that_a_job_finds_paid_gets_an_invoice(orders_app: OrdersApp) -> None:
    order = await placed(orders_app)
    orders_app.fake_payments.capture(order.payment.payment_id)
    orders_app.fake_payments.pending_events.clear()
    orders_app.clock.now = order.expires_at

    await orders_app.run_periodic_jobs()

    assert (await orders_app.read_order(order)).status == "processing"
    assert (await read(orders_app, order)).number == 1


async def test_cancelled_and_expired_orders_take_no_number(orders_app: OrdersApp) -> None:
    cancelled = await placed(orders_app)
    await cancel(orders_app, cancelled)
    await orders_app.process_events()

    paid = [await orders_app.paid(orders_app.stock_up()) for _ in range(2)]

    assert [(await read(orders_app, order)).number for order in paid] == [1, 2]


async def test_fifty_orders_paid_at_once_have_numbers_without_a_gap(
    orders_app: OrdersApp,
) -> None:
    orders = [await placed(orders_app) for _ in range(50)]
    for order in orders:
        orders_app.fake_payments.capture(order.payment.payment_id)
    for event in orders_app.fake_payments.pending_events:
        await orders_app.receive_event(event)
    deliveries: list[Delivery] = []
    while claimed := await orders_app.claim():
        deliveries += claimed

    await asyncio.gather(*(orders_app.handle(delivery) for delivery in deliveries))

    numbers = [(await read(orders_app, order)).number for order in orders]
    assert sorted(numbers) == list(range(1, 51))


async def test_rolled_back_transaction_leaves_no_gap(orders_app: OrdersApp) -> None:
    first, second = await placed(orders_app), await placed(orders_app)
    orders_app.fake_payments.capture(first.payment.payment_id)
    (event,) = orders_app.fake_payments.pending_events
    await orders_app.receive_event(event)
    (delivery,) = await orders_app.claim()
    order = await orders_app.event_handlers._orders.get(first.order_id)
    assert order is not None
    order.pay(orders_app.event_handlers._orders.audit(delivery))
    drafts = orders_app.container.invoice_drafts()
    invoice = await drafts.draft_if_paid(order, [paid_event(order)])
    assert invoice is not None

    async def save_and_fail() -> None:
        async with orders_app.container.database().transaction() as store:
            await store.save_order(order)
            assert await store.add_invoice(invoice) == 1
            raise Unavailable(dependency="test")

    with pytest.raises(Unavailable):
        await save_and_fail()
    orders_app.fake_payments.pending_events.clear()
    orders_app.fake_payments.capture(second.payment.payment_id)
    await orders_app.process_events()
    await orders_app.handle(delivery)

    assert (await read(orders_app, second)).number == 1
    assert (await read(orders_app, first)).number == 2


async def test_document_keeps_the_settings_of_its_time(orders_app: OrdersApp) -> None:
    await change_shop(orders_app, name="Tea House", tax_id="DE1")
    order = await orders_app.paid(orders_app.stock_up())

    await change_shop(orders_app, name="Coffee House", tax_id="DE2")
    later = await orders_app.paid(orders_app.stock_up())

    seller = (await read(orders_app, order)).document.seller
    assert (seller.name, seller.tax_id) == ("Tea House", "DE1")
    assert (await read(orders_app, later)).document.seller.name == "Coffee House"


async def test_only_owner_and_staff_read_the_invoice(orders_app: OrdersApp) -> None:
    order = await orders_app.paid(orders_app.stock_up())
    invoices = orders_app.container.invoices()

    own = await invoices.get_invoice(orders_app.buyer, order.order_id)
    with pytest.raises(OrderNotFound):
        await invoices.get_invoice(user_context(new_id(), "customer"), order.order_id)

    assert own == await read(orders_app, order)


@pytest.mark.parametrize("orders_app", ["sql"], indirect=True)
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE orders.invoice SET number = 7",
        "UPDATE orders.invoice SET document = '{}'",
        "DELETE FROM orders.invoice",
        "DELETE FROM orders.invoice_counter",
        "UPDATE orders.invoice_counter SET last_number = 9",
        "UPDATE orders.invoice_counter SET last_number = 1",
    ],
)
async def test_database_refuses_to_change_invoices(
    orders_app: OrdersApp, database_url: str, statement: str
) -> None:
    await orders_app.paid(orders_app.stock_up())

    connection = await asyncpg.connect(plain(database_url))
    try:
        with pytest.raises(asyncpg.RestrictViolationError):
            await connection.execute(statement)
    finally:
        await connection.close()
