"""The contract suite of the checkout of carts. It runs on each storage."""

from asyncio import gather
from typing import Any

import pytest

from markethall.inventory.contract import OutOfStock, ReservationStatus
from markethall.orders.carts.contract import (
    CartChanged,
    CartClosed,
    CartNotFound,
    CartNotReady,
    CartStatus,
    CartView,
    CheckOutCart,
    NewCart,
)
from markethall.orders.contract import OrderQuery, OrderView, TotalChanged
from markethall.shared.http.idempotent_routes import IDEMPOTENCY_RETENTION_EXTENDED
from markethall.shared.idempotency.records import IdempotentRequest, StoredResponse
from markethall.shared.kernel.errors import PreconditionFailed, Unavailable
from markethall.shared.kernel.ids import new_id
from tests.orders.carts.conftest import (
    amounts,
    at_version,
    change_cart,
    check_out,
    create_cart,
    get_cart,
    guest_context,
    lines_of,
    readiness,
    set_line,
)
from tests.orders.conftest import (
    STAFF,
    OrdersApp,
    attempt_without_key,
    to_response,
    user_context,
)
from tests.orders.fakes import Killed


async def ready_cart(app: OrdersApp, stock: int = 9, quantity: int = 2, **fields: Any) -> CartView:
    product_id = app.stock_up(stock)
    return await create_cart(app, (product_id, quantity), shipping_address="Market 1", **fields)


async def list_orders(app: OrdersApp) -> list[OrderView]:
    return list((await app.orders.list_orders(STAFF, OrderQuery(limit=100))).items)


async def test_order_has_the_lines_and_fields_of_the_cart(orders_app: OrdersApp) -> None:
    tea, cup = (
        orders_app.fake_inventory.add_product(5, amount=1000, prices={"USD": 1200}),
        orders_app.fake_inventory.add_product(5, amount=300, prices={"USD": 400}),
    )
    cart = await create_cart(
        orders_app,
        (cup, 1),
        (tea, 2),
        currency="USD",
        email="ada@example.com",
        shipping_address="Market 1",
        billing_address="Market 2",
        note="wrap it",
    )

    order = await check_out(orders_app, cart)

    assert [(line.product_id, line.quantity) for line in order.lines] == [(cup, 1), (tea, 2)]
    assert (order.total.amount, order.total.currency) == (2800, "USD")
    assert cart.totals
    assert order.total == cart.totals.total
    assert (order.email, order.note) == ("ada@example.com", "wrap it")
    assert (order.shipping_address, order.billing_address) == ("Market 1", "Market 2")
    assert order.cart_id == cart.cart_id
    assert await orders_app.orders.get_order(orders_app.buyer, order.order_id) == order
    (payment,) = orders_app.fake_payments.payments_of(order.order_id)
    assert payment.amount == order.total


async def test_checkout_makes_four_calls(orders_app: OrdersApp) -> None:
    cart = await ready_cart(orders_app)
    orders_app.call_failures.calls.clear()

    await check_out(orders_app, cart)

    calls = ["get_active_customer", "reserve", "open", "activate"]
    assert orders_app.call_failures.calls == calls


async def test_checked_out_cart_is_closed(orders_app: OrdersApp) -> None:
    cart = await ready_cart(orders_app)
    order = await check_out(orders_app, cart)

    read = await get_cart(orders_app, cart)

    assert (read.status, read.order_id, read.version) == (
        CartStatus.CHECKED_OUT,
        order.order_id,
        2,
    )
    assert readiness(read) == [("orders.cart_closed", "/status")]
    product_id = cart.lines[0].product_id
    for change in (
        set_line(orders_app, cart, product_id, 1),
        change_cart(orders_app, cart, note="late"),
        check_out(orders_app, cart),
    ):
        with pytest.raises(CartClosed) as raised:
            await change
        assert raised.value.details["order_id"] == str(order.order_id)
    assert len(await list_orders(orders_app)) == 1
    assert orders_app.fake_inventory.available(product_id) == 7


async def test_repeated_checkout_returns_the_same_order(orders_app: OrdersApp) -> None:
    cart, attempt = await ready_cart(orders_app), attempt_without_key()

    first = await check_out(orders_app, cart, attempt=attempt)
    again = await check_out(orders_app, cart, attempt=attempt)

    assert first == again
    assert len(await list_orders(orders_app)) == 1


async def test_incomplete_cart_is_not_ready(orders_app: OrdersApp) -> None:
    guest = guest_context()
    empty = await create_cart(orders_app, ctx=guest)

    with pytest.raises(CartNotReady) as raised:
        await check_out(orders_app, empty, guest)

    fields = [problem["field"] for problem in raised.value.details["readiness"]]
    assert fields == ["/lines", "/shipping_address", "/email"]
    assert orders_app.call_failures.calls == []


async def test_only_the_owner_checks_out(orders_app: OrdersApp) -> None:
    cart = await ready_cart(orders_app)

    for ctx in (STAFF, user_context(new_id(), "customer")):
        with pytest.raises(CartNotFound):
            await check_out(orders_app, cart, ctx)


async def test_stale_version_is_not_checked_out(orders_app: OrdersApp) -> None:
    cart = await ready_cart(orders_app)
    await change_cart(orders_app, cart, note="newer")

    with pytest.raises(PreconditionFailed):
        await orders_app.container.cart_checkouts().check_out(
            orders_app.buyer, cart.cart_id, CheckOutCart(), at_version(1), attempt_without_key()
        )


async def test_changed_price_is_charged_or_rejected(orders_app: OrdersApp) -> None:
    cart = await ready_cart(orders_app)
    product_id = cart.lines[0].product_id
    expected = {"amount": 2000, "currency": "EUR"}
    orders_app.fake_inventory.reprice(product_id, 1100)

    with pytest.raises(TotalChanged) as raised:
        await check_out(orders_app, cart, expected_total=expected)
    order = await check_out(orders_app, cart, expected_total={"amount": 2200, "currency": "EUR"})

    assert raised.value.details["total"] == {"amount": 2200, "currency": "EUR"}
    breakdown = raised.value.details["breakdown"]
    assert breakdown["subtotal"] == breakdown["total"] == {"amount": 2200, "currency": "EUR"}
    assert order.total.amount == 2200
    assert orders_app.fake_inventory.available(product_id) == 7


async def test_lack_of_stock_leaves_the_cart_open(orders_app: OrdersApp) -> None:
    cart = await ready_cart(orders_app, stock=1)

    with pytest.raises(OutOfStock):
        await check_out(orders_app, cart)
    orders_app.fake_inventory.receive_stock(cart.lines[0].product_id, 5)

    assert (await check_out(orders_app, cart)).cart_id == cart.cart_id


async def test_concurrent_checkouts_give_one_order(orders_app: OrdersApp) -> None:
    cart = await ready_cart(orders_app, stock=50)

    results = await gather(
        *(check_out(orders_app, cart) for _ in range(12)), return_exceptions=True
    )

    orders = [result for result in results if isinstance(result, OrderView)]
    assert len(orders) == len(await list_orders(orders_app)) == 1
    losers = [result for result in results if not isinstance(result, OrderView)]
    assert {type(loser) for loser in losers} == {CartClosed}
    assert {loser.details["order_id"] for loser in losers if isinstance(loser, CartClosed)} == {
        str(orders[0].order_id)
    }
    # the reservations of the losers are released
    assert orders_app.fake_inventory.available(cart.lines[0].product_id) == 48


async def test_change_during_checkout_gives_no_order_of_other_lines(
    orders_app: OrdersApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    cart = await ready_cart(orders_app)
    product_id = cart.lines[0].product_id
    open_payment = orders_app.fake_payments.open

    async def change_then_open(*arguments: Any) -> Any:
        await set_line(orders_app, cart, product_id, 3)
        return await open_payment(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(orders_app.fake_payments, "open", change_then_open)
        with pytest.raises(CartChanged):
            await check_out(orders_app, cart)

    assert await list_orders(orders_app) == []
    assert orders_app.fake_inventory.available(product_id) == 9
    order = await check_out(orders_app, cart)
    assert [line.quantity for line in order.lines] == [3]


async def test_look_during_checkout_does_not_disturb_it(
    orders_app: OrdersApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    cart = await ready_cart(orders_app)
    open_payment = orders_app.fake_payments.open

    async def look_then_open(*arguments: Any) -> Any:
        orders_app.fake_inventory.reprice(cart.lines[0].product_id, 5)
        assert (await get_cart(orders_app, cart)).changes
        return await open_payment(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(orders_app.fake_payments, "open", look_then_open)
        order = await check_out(orders_app, cart)

    assert order.total.amount == 2000  # the price of the reservation


@pytest.mark.parametrize("number", range(1, 5))
@pytest.mark.parametrize("when", ["before", "after", "killed before", "killed after"])
async def test_retry_after_a_failed_call_gives_the_order(
    orders_app: OrdersApp, number: int, when: str
) -> None:
    cart, attempt = await ready_cart(orders_app), attempt_without_key()
    orders_app.call_failures.fail_call(number, when)

    with pytest.raises((Unavailable, Killed)):
        await check_out(orders_app, cart, attempt=attempt)
    order = await check_out(orders_app, cart, attempt=attempt)

    assert [found.order_id for found in await list_orders(orders_app)] == [order.order_id]
    assert orders_app.fake_inventory.available(cart.lines[0].product_id) == 7
    assert (await get_cart(orders_app, cart)).order_id == order.order_id
    (payment,) = orders_app.fake_payments.payments_of(order.order_id)
    assert payment.amount == order.total


async def test_retry_with_other_lines_is_rejected(orders_app: OrdersApp) -> None:
    cart, attempt = await ready_cart(orders_app), attempt_without_key()
    orders_app.call_failures.fail_call(3, "killed before")
    with pytest.raises(Killed):
        await check_out(orders_app, cart, attempt=attempt)
    cup = orders_app.fake_inventory.add_product(5)
    await set_line(orders_app, cart, cup, 1)

    with pytest.raises(CartChanged):
        await check_out(orders_app, cart, attempt=attempt)

    (reservation,) = orders_app.fake_inventory.reservations_of(attempt.id)
    assert reservation.status is ReservationStatus.RELEASED
    order = await check_out(orders_app, cart)
    assert {line.product_id for line in order.lines} == amounts(cart).keys() | {cup}


async def test_same_key_gives_identical_answers(orders_app: OrdersApp) -> None:
    cart = await ready_cart(orders_app)
    request = IdempotentRequest(
        principal=orders_app.buyer.actor.audit_name,
        method="POST",
        path=f"/carts/{cart.cart_id}/checkout",
        key="key",
        payload={},
    )

    async def run() -> StoredResponse:
        response, _ = await orders_app.idempotency.run(
            request,
            IDEMPOTENCY_RETENTION_EXTENDED,
            to_response,
            lambda attempt: check_out(orders_app, cart, attempt=attempt),
        )
        return response

    answers = [await run() for _ in range(3)]

    assert answers[0] == answers[1] == answers[2]
    assert len(await list_orders(orders_app)) == 1


async def test_cart_made_by_a_repeated_creation_has_one_order(orders_app: OrdersApp) -> None:
    tea = orders_app.stock_up(9)
    command = NewCart.model_validate({"lines": lines_of((tea, 1)), "shipping_address": "Market 1"})
    attempt = attempt_without_key()
    carts = orders_app.container.carts()
    first = await carts.create(orders_app.buyer, command, attempt)
    order = await check_out(orders_app, first)

    again = await carts.create(orders_app.buyer, command, attempt)

    assert (again.status, again.order_id) == (CartStatus.CHECKED_OUT, order.order_id)
