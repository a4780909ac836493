"""Capture on fulfilment with the real contexts `orders`, `inventory`, `payments` and `users`."""

from datetime import timedelta

import pytest
from structlog.testing import capture_logs

from markethall.orders.contract import CancelOrder, EditOrder, FulfilOrder, OrderView
from markethall.payments.contract.statuses import OperationKind, OperationStatus
from markethall.payments.gateway.sandbox import SandboxGateway
from markethall.payments.ports import Capability
from markethall.settings import Settings, read_settings
from markethall.shared.kernel.pagination import PageQuery
from tests.containers import orders_of, payments_of
from tests.orders.conftest import CANCEL, RESERVATION_TTL, SHIP, STAFF, attempt_without_key
from tests.orders.promotions.shop import promotion
from tests.orders.test_with_real_contexts import ContextsApp, contexts_app

__all__ = ["contexts_app"]  # a fixture
WEEK = timedelta(days=7)


@pytest.fixture(params=["memory", "sql"])
def settings(request: pytest.FixtureRequest) -> Settings:
    storage: str = request.param
    return read_settings(
        storage=storage,
        database_url=request.getfixturevalue("database_url") if storage == "sql" else "",
        reservation_ttl_seconds=RESERVATION_TTL.total_seconds(),
        payments_capture="on_fulfilment",
        cache="off",
        # long timeouts, because the test machine may be busy
        database_timeout=30,
        request_deadline_seconds=60,
    )


async def authorized(contexts_app: ContextsApp, quantity: int = 3) -> OrderView:
    order = await contexts_app.place(await contexts_app.product(stock=5), quantity)
    await contexts_app.confirm(order)
    await contexts_app.process_events()
    return await contexts_app.read_order(order)


async def ship(contexts_app: ContextsApp, order: OrderView, quantity: int | None = None) -> None:
    line = {"line_id": order.lines[0].line_id, "quantity": quantity}
    lines = {"lines": [line]} if quantity else {}
    command = FulfilOrder.model_validate(SHIP.model_dump() | lines)
    await contexts_app.fulfilments.fulfil(STAFF, order.order_id, command, attempt_without_key())
    await contexts_app.process_events()


async def state(contexts_app: ContextsApp, order: OrderView) -> tuple[str, str, str, int, int]:
    """Return the statuses of the order and its payment, and the captured and refunded amounts."""
    now = await contexts_app.read_order(order)
    payment = await contexts_app.payment(order)
    amounts = (payment.captured.amount, payment.refunded.amount)
    return now.status.value, now.payment_status.value, payment.status.value, *amounts


async def captures(contexts_app: ContextsApp, order: OrderView) -> list[int]:
    api = payments_of(contexts_app.container).payment_api()
    page = await api.list_operations(STAFF, order.payment.payment_id, PageQuery(limit=100))
    return [
        operation.amount.amount
        for operation in page.items
        if operation.kind is OperationKind.CAPTURE and operation.status is OperationStatus.SUCCEEDED
    ]


async def test_each_shipment_is_captured(contexts_app: ContextsApp) -> None:
    order = await authorized(contexts_app)
    before = await state(contexts_app, order)

    await ship(contexts_app, order, 1)
    between = await state(contexts_app, order)
    await ship(contexts_app, order)

    assert before == ("processing", "authorized", "authorized", 0, 0)
    assert between == ("processing", "authorized", "authorized", 1000, 0)
    assert await state(contexts_app, order) == ("processing", "paid", "captured", 3000, 0)
    assert await captures(contexts_app, order) == [1000, 2000]


@pytest.mark.parametrize("captures_once", [False, True])
async def test_cancelled_units_are_released(
    contexts_app: ContextsApp, monkeypatch: pytest.MonkeyPatch, captures_once: bool
) -> None:
    if captures_once:
        limited = SandboxGateway.capabilities - {Capability.MULTIPLE_CAPTURES}
        monkeypatch.setattr(SandboxGateway, "capabilities", limited)
    order = await authorized(contexts_app)
    line = {"line_id": order.lines[0].line_id, "quantity": 1}
    command = CancelOrder.model_validate({"reason": "changed my mind", "lines": [line]})

    await contexts_app.orders.cancel(STAFF, order.order_id, command, attempt_without_key())
    await contexts_app.process_events()
    await ship(contexts_app, order)

    assert await state(contexts_app, order) == ("processing", "paid", "captured", 2000, 0)
    assert await captures(contexts_app, order) == [2000]


@pytest.mark.parametrize(
    ("price", "after"),
    [
        (600, ("processing", "paid", "captured", 100, 0)),
        (400, ("processing", "voided", "voided", 0, 0)),
    ],
)
async def test_discounted_order_is_captured_with_what_it_costs_after_an_edit(
    contexts_app: ContextsApp, price: int, after: tuple[str, str, str, int, int]
) -> None:
    """500 off an order of 1000, then of 600 or of 400. Nothing is captured if it costs nothing."""
    promotions = orders_of(contexts_app.container).promotions()
    amounts = [{"amount": 500, "currency": "EUR"}]
    await promotions.create(
        STAFF, promotion(kind="fixed", percent=None, amounts=amounts), attempt_without_key()
    )
    order = await authorized(contexts_app, 1)
    small = await contexts_app.product(stock=5, price=price)
    command = EditOrder.model_validate(
        {
            "lines": [
                {"product_id": order.lines[0].product_id, "quantity": 0},
                {"product_id": small, "quantity": 1},
            ]
        }
    )

    edits = orders_of(contexts_app.container).order_edits()
    edited = await edits.edit(STAFF, order.order_id, command, attempt_without_key())
    await contexts_app.process_events()
    with capture_logs() as logs:
        await ship(contexts_app, edited)

    assert (order.total.amount, edited.total.amount) == (500, max(price - 500, 0))
    assert await state(contexts_app, edited) == after
    assert [log["event"] for log in logs if log["log_level"] == "error"] == []


async def test_cancelled_order_is_voided(contexts_app: ContextsApp) -> None:
    order = await authorized(contexts_app)

    await contexts_app.orders.cancel(STAFF, order.order_id, CANCEL, attempt_without_key())
    await contexts_app.process_events()

    assert await state(contexts_app, order) == ("cancelled", "voided", "voided", 0, 0)
    assert await contexts_app.available(order.lines[0].product_id) == 5


async def test_cancelled_order_of_which_staff_captured_a_part_is_refunded(
    contexts_app: ContextsApp,
) -> None:
    order = await authorized(contexts_app)
    api = payments_of(contexts_app.container).payment_api()
    part = order.total.model_copy(update={"amount": 700})
    await api.capture(STAFF, order.payment.payment_id, part, attempt_without_key(), is_final=False)

    await contexts_app.orders.cancel(STAFF, order.order_id, CANCEL, attempt_without_key())
    await contexts_app.process_events()

    assert await state(contexts_app, order) == ("cancelled", "refunded", "captured", 700, 700)


@pytest.mark.parametrize("end", ["void", "expire"])
async def test_order_is_cancelled_when_its_authorization_ends(
    contexts_app: ContextsApp, end: str
) -> None:
    order = await authorized(contexts_app)
    payments = payments_of(contexts_app.container)

    if end == "void":
        api = payments.payment_api()
        await api.void(STAFF, order.payment.payment_id, attempt_without_key())
    else:
        contexts_app.clock.now += WEEK
        for job in payments.periodic_jobs():
            await job()
    await contexts_app.process_events()

    ended = "voided" if end == "void" else "expired"
    assert await state(contexts_app, order) == ("cancelled", "voided", ended, 0, 0)
    assert await contexts_app.available(order.lines[0].product_id) == 5


async def test_authorized_order_does_not_expire_before_its_event(contexts_app: ContextsApp) -> None:
    order = await contexts_app.place(await contexts_app.product(stock=5), 3)
    await contexts_app.confirm(order)
    contexts_app.clock.now += RESERVATION_TTL
    await contexts_app.run_periodic_jobs()
    await contexts_app.process_events()

    assert await state(contexts_app, order) == (
        "processing",
        "authorized",
        "authorized",
        0,
        0,
    )
    await ship(contexts_app, order)
    assert await state(contexts_app, order) == ("processing", "paid", "captured", 3000, 0)
