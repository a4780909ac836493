"""Test that a customer registers, orders and cancels the order, against a real shop."""

from collections.abc import Iterator

import pytest

from markethall_client import AsyncMarkethall, Markethall, Operation, ProblemError, new_key
from markethall_client.models import (
    CancelOrder,
    ConfirmPaymentRequest,
    ListProductsOption,
    OrderStatus,
    OrderView,
    PaymentStatus,
    PlaceOrderShortForm,
    ProductSort,
    RegisterRequest,
)
from markethall_client.operations import (
    cancel_order,
    confirm_payment,
    create_guest,
    get_me,
    get_order,
    get_order_status,
    list_products,
    place_order,
    register_user,
)
from tests.conftest import PASSWORD, Shop

ADDRESS = "Anna, 1 Market Square, 10115 Berlin"


@pytest.fixture
def client(shop: Shop) -> Iterator[Markethall]:
    with Markethall(shop.base_url) as client:
        yield client


def sign_in(client: Markethall, shop: Shop, username: str) -> None:
    shop.register(username)
    client.login(username, PASSWORD)


def order_of_tea(shop: Shop, quantity: int, key: str) -> Operation[OrderView]:
    body = PlaceOrderShortForm(shop.tea_id, quantity, ADDRESS)
    return place_order(body=body, idempotency_key=key)


def test_customer_orders_pays_and_cancels(shop: Shop, client: Markethall) -> None:
    sign_in(client, shop, "anna")
    assert client.call(get_me()).username == "anna"

    found = client.call(list_products(q="green tea"))
    assert [product.product_id for product in found.items] == [shop.tea_id]

    order = client.call(order_of_tea(shop, 2, new_key()))
    assert (order.total.amount, order.total.currency) == (2500, "EUR")

    paid = ConfirmPaymentRequest("sandbox_ok")
    payment_id = order.payment.payment_id
    payment = client.call(confirm_payment(payment_id, body=paid, idempotency_key=new_key()))
    assert payment.status is PaymentStatus.CAPTURED

    status = client.call(get_order_status(order.order_id, wait=10))
    assert status.status is OrderStatus.PROCESSING

    reason = CancelOrder("changed my mind")
    cancelled = client.call(cancel_order(order.order_id, body=reason, idempotency_key=new_key()))
    assert cancelled.status is OrderStatus.CANCELLED


async def test_asynchronous_customer_orders_pays_and_cancels(shop: Shop) -> None:
    async with AsyncMarkethall(shop.base_url) as client:
        body = RegisterRequest("otto", "otto@example.com", PASSWORD)
        await client.call(register_user(body=body, idempotency_key=new_key()))
        await client.login("otto", PASSWORD)

        order = await client.call(order_of_tea(shop, 1, new_key()))
        paid = ConfirmPaymentRequest("sandbox_ok")
        payment_id = order.payment.payment_id
        await client.call(confirm_payment(payment_id, body=paid, idempotency_key=new_key()))
        status = await client.call(get_order_status(order.order_id, wait=10))
        reason = CancelOrder("changed my mind")
        cancel = cancel_order(order.order_id, body=reason, idempotency_key=new_key())
        cancelled = await client.call(cancel)

    assert status.status is OrderStatus.PROCESSING
    assert cancelled.status is OrderStatus.CANCELLED


def test_guest_orders_without_an_account(shop: Shop, client: Markethall) -> None:
    guest = client.call(create_guest())
    client.use(guest)

    body = PlaceOrderShortForm(shop.tea_id, 1, ADDRESS, email="guest@example.com")
    order = client.call(place_order(body=body, idempotency_key=new_key()))
    client.call(cancel_order(order.order_id, body=CancelOrder("test"), idempotency_key=new_key()))

    assert order.user_id == guest.guest_id


def test_lists_are_iterated_over_all_their_pages(client: Markethall) -> None:
    products = list_products(limit=2, sort=ProductSort.NAME)

    sizes = [len(page.items) for page in client.pages(products)]
    names = [product.name for product in client.items(products)]

    assert sizes == [2, 2, 1]
    assert names == ["Cup 1", "Cup 2", "Cup 3", "Cup 4", "Green tea"]


def test_list_is_filtered_by_several_values_of_an_option(client: Markethall) -> None:
    sizes = ListProductsOption.from_dict({"option.size": ["1", "3"]})

    products = client.items(list_products(option=sizes, in_stock=True, sort=ProductSort.NAME))

    assert [product.name for product in products] == ["Cup 1", "Cup 3"]


async def test_asynchronous_lists_are_iterated_over_all_their_pages(shop: Shop) -> None:
    products = list_products(limit=2, sort=ProductSort.NAME)

    async with AsyncMarkethall(shop.base_url) as client:
        sizes = [len(page.items) async for page in client.pages(products)]
        names = [product.name async for product in client.items(products)]

    assert sizes == [2, 2, 1]
    assert names == ["Cup 1", "Cup 2", "Cup 3", "Cup 4", "Green tea"]


def test_order_above_the_stock_is_a_problem(shop: Shop, client: Markethall) -> None:
    sign_in(client, shop, "bert")

    with pytest.raises(ProblemError) as raised:
        client.call(order_of_tea(shop, 900, new_key()))

    assert (raised.value.status, raised.value.code) == (409, "inventory.out_of_stock")
    (line,) = raised.value.problem.details["lines"]
    assert (line["product_id"], line["requested"]) == (str(shop.tea_id), 900)


def test_repeated_key_returns_the_same_order_and_no_other(shop: Shop, client: Markethall) -> None:
    sign_in(client, shop, "cleo")
    operation = order_of_tea(shop, 1, "order-of-cleo")

    order = client.call(operation)
    replay = client.send(operation)
    with pytest.raises(ProblemError) as raised:
        client.call(order_of_tea(shop, 2, "order-of-cleo"))

    assert operation.parse(replay).order_id == order.order_id
    assert replay.headers["Location"] == f"/orders/{order.order_id}"
    assert replay.headers["Idempotency-Replayed"] == "true"
    assert (raised.value.status, raised.value.code) == (422, "idempotency.payload_mismatch")


def test_order_of_another_customer_is_a_problem(shop: Shop, client: Markethall) -> None:
    sign_in(client, shop, "dora")
    order = client.call(order_of_tea(shop, 1, new_key()))
    sign_in(client, shop, "emil")

    with pytest.raises(ProblemError) as raised:
        client.call(get_order(order.order_id))

    assert (raised.value.status, raised.value.code) == (404, "orders.not_found")
    assert raised.value.problem.request_id == raised.value.response.headers["X-Request-ID"]


def test_invalid_fields_are_named(client: Markethall) -> None:
    body = RegisterRequest("x", "no address", PASSWORD)

    with pytest.raises(ProblemError) as raised:
        client.call(register_user(body=body, idempotency_key=new_key()))

    errors = raised.value.problem.errors
    assert raised.value.status == 422
    assert errors
    assert sorted(error.field for error in errors) == ["/email", "/username"]
