"""An order that is paid outside of the shop, with the real inventory and payments."""

from datetime import timedelta

import pytest

from markethall.orders.contract import OrderStatus
from markethall.payments.contract import PaymentStatus
from markethall.settings import Settings, read_settings
from tests.containers import payments_of
from tests.orders.conftest import CANCEL, RESERVATION_TTL, attempt_without_key
from tests.orders.test_with_real_contexts import ContextsApp, contexts_app

__all__ = ["contexts_app"]

TRANSFER = "manual:bank_transfer"
METHOD = {
    "code": "bank_transfer",
    "name": "Bank transfer",
    "instructions": "Transfer the amount.",
    "deadline_days": 7,
}


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
