"""An order that is paid outside of the shop, with the real inventory and payments."""

import os
from asyncio import gather
from datetime import timedelta
from uuid import UUID

import pytest

from markethall.orders.contract import OrderPaymentStatus, OrderStatus, OrderView
from markethall.payments.contract import PaymentStatus, UnknownPaymentMethod
from markethall.settings import Settings, read_settings
from markethall.shared.idempotency.records import IdempotentCommand
from markethall.shared.kernel.ids import new_id
from markethall.shared.kernel.money import Money
from tests.containers import payments_of
from tests.orders.conftest import CANCEL, RESERVATION_TTL, STAFF, attempt_without_key
from tests.orders.test_with_real_contexts import ContextsApp, contexts_app
from tests.payments.manual_refunds import pay_due_refunds

__all__ = ["contexts_app"]

# `make test-payments` runs all rounds of the race
FULL = os.environ.get("MARKETHALL_TEST_SCOPE") == "full"
TRANSFER = "manual:bank_transfer"
METHOD = {
    "code": "bank_transfer",
    "name": "Bank transfer",
    "instructions": "Transfer the amount.",
    "deadline_days": 7,
    "countries": ["NL"],
}
ADDRESS = {"recipient": "Ada", "line1": "Market 1", "city": "A", "postal_code": "1"}


@pytest.fixture(params=["memory", "sql"])
def settings(request: pytest.FixtureRequest) -> Settings:
    storage: str = request.param
    return read_settings(
        storage=storage,
        database_url=request.getfixturevalue("database_url") if storage == "sql" else "",
        payment_providers="sandbox,manual",
        manual_payment_methods=(METHOD,),
        reservation_ttl_seconds=RESERVATION_TTL.total_seconds(),
        cache="off",
        database_timeout=30,
        request_deadline_seconds=60,
    )


async def run_all_jobs(app: ContextsApp) -> None:
    for job in payments_of(app.container).periodic_jobs():
        await job()
    await app.run_periodic_jobs()
    await app.process_events()


async def test_method_of_another_country_is_refused(contexts_app: ContextsApp) -> None:
    product_id = await contexts_app.product(stock=5)
    orders = [
        await contexts_app.place(product_id, 1, shipping_address=ADDRESS | {"country": country})
        for country in ("DE", "NL")
    ]

    with pytest.raises(UnknownPaymentMethod):
        await contexts_app.confirm(orders[0], TRANSFER)

    payment = await contexts_app.confirm(orders[1], TRANSFER)
    assert payment.status is PaymentStatus.REQUIRES_ACTION


async def test_stock_is_reserved_until_deadline_and_then_free(contexts_app: ContextsApp) -> None:
    product_id = await contexts_app.product(stock=5)
    order = await contexts_app.place(product_id, 2)
    payment = await contexts_app.confirm(order, TRANSFER)
    await contexts_app.process_events()

    contexts_app.clock.now += timedelta(days=6, hours=23)
    await run_all_jobs(contexts_app)
    waiting, reserved = (
        await contexts_app.read_order(order),
        await contexts_app.available(product_id),
    )
    contexts_app.clock.now += timedelta(hours=1, minutes=2)
    await run_all_jobs(contexts_app)
    await run_all_jobs(contexts_app)

    assert (waiting.status, waiting.expires_at) == (OrderStatus.PENDING, payment.expires_at)
    assert reserved == 3
    assert (await contexts_app.read_order(order)).status is OrderStatus.EXPIRED
    ended = await contexts_app.payment(order)
    assert ended.status in {PaymentStatus.EXPIRED, PaymentStatus.CANCELLED}
    assert await contexts_app.available(product_id) == 5


async def test_cancelled_order_gives_its_stock_back(contexts_app: ContextsApp) -> None:
    product_id = await contexts_app.product(stock=5)
    order = await contexts_app.place(product_id, 2)
    await contexts_app.confirm(order, TRANSFER)
    await contexts_app.process_events()
    contexts_app.clock.now += timedelta(days=3)

    await contexts_app.orders.cancel(
        contexts_app.buyer, order.order_id, CANCEL, attempt_without_key()
    )
    await contexts_app.process_events()

    assert (await contexts_app.payment(order)).status is PaymentStatus.CANCELLED
    assert await contexts_app.available(product_id) == 5


async def mark_paid(app: ContextsApp, order: OrderView, amount: int) -> None:
    money = Money(amount=amount, currency="EUR")
    api = payments_of(app.container).payment_api()
    await api.mark_paid(
        STAFF, order.payment.payment_id, money, "bank 17", IdempotentCommand.without_key(new_id())
    )
    await run_all_jobs(app)
    await app.process_events()


async def awaited(app: ContextsApp, product_id: UUID) -> OrderView:
    """Return an order of 2 units that waits for a transfer of 20.00 EUR (2000 minor units)."""
    order = await app.place(product_id, 2)
    await app.confirm(order, TRANSFER)
    await app.process_events()
    return order


async def expire(app: ContextsApp) -> None:
    app.clock.now += timedelta(days=7, minutes=2)
    for _ in range(2):
        await run_all_jobs(app)


async def test_order_is_processed_when_the_last_part_arrives(contexts_app: ContextsApp) -> None:
    product_id = await contexts_app.product(stock=5)
    order = await awaited(contexts_app, product_id)
    contexts_app.clock.now += timedelta(days=5)

    await mark_paid(contexts_app, order, 500)
    partly = await contexts_app.read_order(order)
    await mark_paid(contexts_app, order, 1500)
    await expire(contexts_app)

    assert partly.status is OrderStatus.PENDING
    paid = await contexts_app.read_order(order)
    assert (paid.status, paid.payment_status) == (OrderStatus.PROCESSING, OrderPaymentStatus.PAID)
    assert await contexts_app.available(product_id) == 3


@pytest.mark.parametrize("is_in_stock", [True, False])
async def test_transfer_that_arrives_late_reinstates_or_is_refunded(
    contexts_app: ContextsApp, is_in_stock: bool
) -> None:
    product_id = await contexts_app.product(stock=2)
    order = await awaited(contexts_app, product_id)
    await expire(contexts_app)
    if not is_in_stock:
        await awaited(contexts_app, product_id)

    await mark_paid(contexts_app, order, 2000)

    await pay_due_refunds(payments_of(contexts_app.container))
    after, payment = await contexts_app.read_order(order), await contexts_app.payment(order)
    expected = OrderStatus.PROCESSING if is_in_stock else OrderStatus.EXPIRED
    assert after.status is expected
    assert payment.refunded.amount == (0 if is_in_stock else 2000)
    assert await contexts_app.available(product_id) == 0


async def test_transfer_for_a_cancelled_order_is_refunded(contexts_app: ContextsApp) -> None:
    product_id = await contexts_app.product(stock=2)
    order = await awaited(contexts_app, product_id)
    await mark_paid(contexts_app, order, 500)
    await contexts_app.orders.cancel(
        contexts_app.buyer, order.order_id, CANCEL, attempt_without_key()
    )
    await contexts_app.process_events()

    await mark_paid(contexts_app, order, 1500)
    await pay_due_refunds(payments_of(contexts_app.container))

    payment = await contexts_app.payment(order)
    assert payment.captured == payment.refunded == payment.amount
    assert (await contexts_app.read_order(order)).status is OrderStatus.CANCELLED
    assert await contexts_app.available(product_id) == 2


@pytest.mark.parametrize("number", range(200 if FULL else 10))
async def test_mark_paid_expiry_and_cancel_race_has_one_outcome(
    contexts_app: ContextsApp, number: int
) -> None:
    """The order is paid and its stock reserved, or the money is refunded and the stock released."""
    product_id = await contexts_app.product(stock=2)
    order = await awaited(contexts_app, product_id)
    if number % 2:
        contexts_app.clock.now += timedelta(days=7, seconds=number)

    await gather(
        mark_paid(contexts_app, order, 2000),
        contexts_app.orders.cancel(
            contexts_app.buyer, order.order_id, CANCEL, attempt_without_key()
        ),
        run_all_jobs(contexts_app),
        return_exceptions=True,
    )
    await expire(contexts_app)

    await pay_due_refunds(payments_of(contexts_app.container))
    after, payment = await contexts_app.read_order(order), await contexts_app.payment(order)
    is_paid = after.status is OrderStatus.PROCESSING
    assert is_paid or after.status in {OrderStatus.CANCELLED, OrderStatus.EXPIRED}
    assert payment.captured.amount - payment.refunded.amount == (2000 if is_paid else 0)
    assert await contexts_app.available(product_id) == (0 if is_paid else 2)
