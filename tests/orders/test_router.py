"""The HTTP API of orders: validation, responses, scopes."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import httpx2
import pytest
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.types import ASGIApp, Receive, Scope, Send

from markethall.inventory.contract import (
    OutOfStock,
    ProductNotFound,
    ReservationClosed,
    TooManyUnits,
    TooManyUnpaidOrders,
)
from markethall.orders.carts.router.dependencies import CHECKOUT_ERROR_CODES
from markethall.orders.contract import OrderView
from markethall.orders.router import router
from markethall.orders.router.invoices.html import CONTENT_SECURITY_POLICY
from markethall.orders.service.status_streams import StatusStreams, StreamLimits
from markethall.payments.contract import UnknownPaymentMethod
from markethall.shared.http.problem_details import problem_handler, validation_handler
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.errors import DomainError
from markethall.shared.kernel.ids import new_id
from markethall.users.contract import UserInactive, UserNotFound
from tests.orders.conftest import STAFF, OrdersApp, user_context
from tests.shared.cache_fixtures import until

# only in memory, because the routes do not depend on the storage
pytestmark = pytest.mark.parametrize("orders_app", ["memory"], indirect=True)

UNKNOWN_ORDER_PATH = "/orders/0199c0de-0000-7000-8000-000000000009"
UNKNOWN_CART_PATH = f"/carts/{UNKNOWN_ORDER_PATH[8:]}"
SOME_ID = "0199c0de-0000-7000-8000-000000000001"


class FakeGateway:
    """A middleware that sets the call context, as the gateway does in the application."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.call_context = CallContext(request_id="test")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"] = {"get_call_context": lambda: self.call_context, "request_id": "test"}
        await self._app(scope, receive, send)


@dataclass
class OrderClient:
    """The app under test, and an HTTP client for it."""

    orders_app: OrdersApp
    http: httpx2.AsyncClient
    gateway: FakeGateway

    async def send(
        self, method: str, path: str, ctx: CallContext | None = None, **options: Any
    ) -> httpx2.Response:
        self.gateway.call_context = ctx or self.orders_app.buyer
        if key := options.pop("key", None):
            options["headers"] = {"Idempotency-Key": key}
        return await self.http.request(method, path, **options)

    async def place(self, body: Any, key: str = "key") -> httpx2.Response:
        headers = {"Idempotency-Key": key}
        return await self.send("POST", "/orders", json=body, headers=headers)


@pytest.fixture
async def order_client(orders_app: OrdersApp) -> AsyncIterator[OrderClient]:
    app = FastAPI(
        exception_handlers={
            DomainError: problem_handler,
            RequestValidationError: validation_handler,
        },
        strict_content_type=True,
    )
    app.include_router(router)
    app.state.contexts = {"orders": orders_app.container}
    gateway = FakeGateway(app)
    transport = httpx2.ASGITransport(gateway)
    async with httpx2.AsyncClient(transport=transport, base_url="http://testserver") as http:
        yield OrderClient(orders_app, http, gateway)


def short_body(order_client: OrderClient, **more: Any) -> dict[str, Any]:
    product_id = str(order_client.orders_app.fake_inventory.add_product(5))
    return {"product_id": product_id, "quantity": 2, "shipping_address": "Market 1", **more}


def long_body(order_client: OrderClient, **more: Any) -> dict[str, Any]:
    body = short_body(order_client)
    line = {"product_id": body.pop("product_id"), "quantity": body.pop("quantity")}
    return {"lines": [line], **body, **more}


async def test_short_form_creates_one_line(order_client: OrderClient) -> None:
    body = short_body(order_client)

    response = await order_client.place(body)

    order = response.json()
    assert response.status_code == 201
    assert response.headers["location"] == f"/orders/{order['order_id']}"
    assert response.headers["etag"] == f'"v{order["version"]}"'
    assert [(line["product_id"], line["quantity"]) for line in order["lines"]] == [
        (body["product_id"], 2)
    ]
    assert order["total"] == {"amount": 2000, "currency": "EUR"}
    assert order["payment"]["status"] == "created"
    assert set(order) == set(OrderView.model_fields)


async def test_same_key_gives_same_response(order_client: OrderClient) -> None:
    body = short_body(order_client)

    first = await order_client.place(body)
    second = await order_client.place(body)
    other = await order_client.place(body | {"quantity": 1})

    assert (second.status_code, second.text) == (201, first.text)
    assert second.headers["location"] == first.headers["location"]
    assert second.headers["idempotency-replayed"] == "true"
    assert (other.status_code, other.json()["code"]) == (422, "idempotency.payload_mismatch")


async def test_an_order_needs_a_key(order_client: OrderClient) -> None:
    response = await order_client.send("POST", "/orders", json=short_body(order_client))

    assert (response.status_code, response.json()["code"]) == (400, "idempotency.key_missing")


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"quantity": 0}, "/quantity"),
        ({"quantity": 1000}, "/quantity"),
        ({"quantity": "2"}, "/quantity"),
        ({"quantity": True}, "/quantity"),
        ({"quantity": 1.0}, "/quantity"),
        ({"product_id": "x"}, "/product_id"),
        ({"shipping_address": ""}, "/shipping_address"),
        ({"shipping_address": "  "}, "/shipping_address"),
        ({"shipping_address": "x" * 501}, "/shipping_address"),
        ({"shipping_address": "a\x00b"}, "/shipping_address"),
        ({"shipping_address": None}, "/shipping_address"),
        ({"shipping_address": ["Market 1"]}, "/shipping_address"),
        ({"voucher_code": " "}, "/voucher_code"),
        ({"voucher_code": "x" * 51}, "/voucher_code"),
        ({"payment_method": "card"}, "/payment_method"),
        ({"note": "not in the short form"}, "/note"),
    ],
    ids=str,
)
async def test_short_form_is_validated_strictly(
    order_client: OrderClient, wrong: dict[str, Any], field: str
) -> None:
    response = await order_client.place(short_body(order_client) | wrong)

    assert (response.status_code, response.json()["code"]) == (422, "request.invalid")
    assert [error["field"] for error in response.json()["errors"]] == [field]


ADDRESS = {
    "recipient": "Ada Lovelace",
    "line1": "Keizersgracht 1",
    "city": "Amsterdam",
    "postal_code": "1015 CJ",
    "country": "NL",
}


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"lines": []}, "/lines"),
        ({"lines": None}, "/lines"),
        ({"lines": [{"quantity": 1}]}, "/lines/0/product_id"),
        ({"lines": [{"product_id": SOME_ID, "quantity": 1}] * 101}, "/lines"),
        ({"lines": [{"product_id": UNKNOWN_ORDER_PATH[8:], "quantity": 500}] * 2}, "/lines"),
        ({"product_id": SOME_ID}, "/product_id"),
        ({"currency": "eur"}, "/currency"),
        ({"currency": "XXX"}, "/currency"),
        ({"expected_total": 2000}, "/expected_total"),
        ({"expected_total": {"amount": "1", "currency": "EUR"}}, "/expected_total/amount"),
        ({"expected_total": {"amount": 1, "currency": "EUR", "x": 1}}, "/expected_total/x"),
        ({"note": "x" * 1001}, "/note"),
        ({"shipping_address": ADDRESS | {"country": "XX"}}, "/shipping_address/country"),
        ({"shipping_address": ADDRESS | {"country": "nl"}}, "/shipping_address/country"),
        ({"shipping_address": ADDRESS | {"planet": "x"}}, "/shipping_address/planet"),
        ({"billing_address": ADDRESS | {"city": ""}}, "/billing_address/city"),
        ({"billing_address": {}}, "/billing_address/recipient"),
        ({"voucher_code": " "}, "/voucher_code"),
        ({"voucher_code": "x" * 51}, "/voucher_code"),
        ({"payment_method": ""}, "/payment_method"),
        ({"payment_method": "x" * 101}, "/payment_method"),
    ],
    ids=str,
)
async def test_long_form_is_validated_strictly(
    order_client: OrderClient, wrong: dict[str, Any], field: str
) -> None:
    response = await order_client.place(long_body(order_client) | wrong)

    assert (response.status_code, response.json()["code"]) == (422, "request.invalid")
    assert response.json()["errors"][0]["field"] == field


@pytest.mark.parametrize("body", [None, [], "order", 1, {}])
async def test_malformed_order_is_rejected(order_client: OrderClient, body: Any) -> None:
    response = await order_client.place(body)

    assert (response.status_code, response.json()["code"]) == (422, "request.invalid")


async def test_all_optional_fields_are_accepted(order_client: OrderClient) -> None:
    body = long_body(
        order_client,
        shipping_address=ADDRESS | {"line2": "2 hoog", "region": "NH", "phone": "+31 20 1"},
        billing_address="Market 1",
        currency="EUR",
        expected_total={"amount": 2000, "currency": "EUR"},
        note="ring twice",
    )

    response = await order_client.place(body)

    assert response.status_code == 201
    order = response.json()
    assert order["shipping_address"] == body["shipping_address"]
    assert (order["billing_address"], order["note"]) == ("Market 1", "ring twice")


async def test_invalid_order_is_rejected_with_field_errors(order_client: OrderClient) -> None:
    dear = long_body(order_client, expected_total={"amount": 1, "currency": "EUR"})
    much = long_body(order_client)
    much["lines"][0]["quantity"] = 6

    changed = await order_client.place(dear)
    short_of = await order_client.place(much, key="other")
    again = await order_client.place(dear)

    assert (changed.status_code, changed.json()["code"]) == (409, "orders.total_changed")
    details = changed.json()["details"]
    assert details["total"] == details["breakdown"]["total"] == {"amount": 2000, "currency": "EUR"}
    assert (short_of.status_code, short_of.json()["code"]) == (409, "inventory.out_of_stock")
    assert short_of.json()["details"]["lines"][0]["available"] == 5
    assert (again.status_code, again.json()["code"]) == (409, "orders.total_changed")
    assert again.headers["idempotency-replayed"] == "true"


async def test_matching_etag_returns_304(order_client: OrderClient) -> None:
    order = (await order_client.place(short_body(order_client))).json()
    path = f"/orders/{order['order_id']}"

    response = await order_client.send("GET", path)
    again = await order_client.send(
        "GET", path, headers={"If-None-Match": response.headers["etag"]}
    )

    assert (response.status_code, response.json()) == (200, order)
    assert (again.status_code, again.content) == (304, b"")


async def test_status_has_an_etag_that_changes_with_the_order(order_client: OrderClient) -> None:
    order = (await order_client.place(short_body(order_client))).json()
    path = f"/orders/{order['order_id']}/status"

    first = await order_client.send("GET", path)
    known = {"If-None-Match": first.headers["etag"]}
    unchanged = await order_client.send("GET", path, headers=known)
    unchanged_after_wait = await order_client.send("GET", f"{path}?wait=1", headers=known)
    await order_client.send("POST", path.replace("status", "cancel"), json={"reason": "too late"})
    changed = await order_client.send("GET", f"{path}?wait=25", headers=known)

    assert first.headers["etag"] == f'"v{order["version"]}"'
    for response in (unchanged, unchanged_after_wait):
        assert (response.status_code, response.content) == (304, b"")
    assert (changed.status_code, changed.json()["status"]) == (200, "cancelled")
    assert changed.headers["etag"] != first.headers["etag"]


async def test_wait_ends_with_the_change(order_client: OrderClient) -> None:
    order = (await order_client.place(short_body(order_client))).json()
    path = f"/orders/{order['order_id']}/status?wait=25"
    waits = order_client.orders_app.container.status_waits()

    response = asyncio.create_task(order_client.send("GET", path))
    await until(lambda: any(wait.version for each in waits._by_order.values() for wait in each))
    order_client.orders_app.fake_payments.capture(UUID(order["payment"]["payment_id"]))
    await order_client.orders_app.process_events()

    assert (await response).json()["status"] == "processing"


@pytest.mark.parametrize("wait", ["-1", "26", "2.5", "soon", "", "1e1", "25;"])
async def test_invalid_wait_is_rejected(order_client: OrderClient, wait: str) -> None:
    response = await order_client.send("GET", f"{UNKNOWN_ORDER_PATH}/status?wait={wait}")

    assert (response.status_code, response.json()["code"]) == (422, "request.invalid")


async def test_order_lifecycle_over_http(order_client: OrderClient) -> None:
    order = (await order_client.place(short_body(order_client))).json()
    path = f"/orders/{order['order_id']}"
    order_client.orders_app.fake_payments.capture(
        order_client.orders_app.fake_payments.all_payments()[0].payment_id
    )
    await order_client.orders_app.process_events()
    parcel = {"carrier": "DHL", "tracking_number": "JD01"}

    shipped = await order_client.send("POST", f"{path}/fulfilments", STAFF, json=parcel)
    seen = await order_client.send("GET", shipped.headers["location"])
    listed = await order_client.send("GET", f"{path}/fulfilments")
    delivered = await order_client.send("POST", f"{shipped.headers['location']}/deliver", STAFF)
    status = await order_client.send("GET", f"{path}/status")
    timeline = await order_client.send("GET", f"{path}/timeline")
    cancelled = await order_client.send("POST", f"{path}/cancel", json={"reason": "too late"})

    assert (shipped.status_code, shipped.json()["status"]) == (201, "shipped")
    assert seen.json() == shipped.json()
    assert listed.json() == {"items": [shipped.json()], "next_cursor": None}
    assert (delivered.status_code, delivered.json()["status"]) == (200, "delivered")
    assert set(status.json()) == {
        "order_id",
        "status",
        "payment_status",
        "fulfilment_status",
        "updated_at",
    }
    assert status.json()["status"] == "completed"
    assert [entry["change"] for entry in timeline.json()["items"]] == [
        "placed",
        "paid",
        "fulfilled",
        "delivered",
        "completed",
    ]
    assert (cancelled.status_code, cancelled.json()["code"]) == (409, "orders.invalid_transition")
    assert cancelled.json()["details"] == {"status": "completed", "allowed": []}


async def test_cancelling_needs_a_reason(order_client: OrderClient) -> None:
    order = (await order_client.place(short_body(order_client))).json()
    path = f"/orders/{order['order_id']}/cancel"

    empty = await order_client.send("POST", path, json={})
    good = await order_client.send("POST", path, json={"reason": "changed my mind"})

    assert (empty.status_code, empty.json()["errors"][0]["field"]) == (422, "/reason")
    assert (good.status_code, good.json()["status"]) == (200, "cancelled")


@pytest.mark.parametrize(
    "wrong",
    [
        {"carrier": ""},
        {"tracking_number": 1},
        {"carrier": " ", "tracking_number": "JD01"},
        {"carrier": "DHL", "tracking_number": "JD01", "lines": []},
        {
            "carrier": "DHL",
            "tracking_number": "JD01",
            "lines": [{"line_id": UNKNOWN_ORDER_PATH[8:]}],
        },
        {
            "carrier": "DHL",
            "tracking_number": "JD01",
            "lines": [{"line_id": UNKNOWN_ORDER_PATH[8:], "quantity": 1}] * 2,
        },
    ],
    ids=str,
)
async def test_fulfilment_with_invalid_fields_is_rejected(
    order_client: OrderClient, wrong: dict[str, Any]
) -> None:
    response = await order_client.send(
        "POST", f"{UNKNOWN_ORDER_PATH}/fulfilments", STAFF, json=wrong
    )

    assert response.status_code == 422


async def test_return_over_http(order_client: OrderClient) -> None:
    order = (await order_client.place(short_body(order_client))).json()
    path = f"/orders/{order['order_id']}"
    order_client.orders_app.fake_payments.capture(UUID(order["payment"]["payment_id"]))
    await order_client.orders_app.process_events()
    sent = await order_client.send("POST", f"{path}/fulfilments", STAFF, json={})
    await order_client.send("POST", f"{sent.headers['location']}/deliver", STAFF)
    line = {"line_id": order["lines"][0]["line_id"], "quantity": 1}
    body = {"lines": [line], "reason": "does not fit"}
    arrived = {"lines": [{**line, "condition": "used", "disposition": "scrap"}]}

    made = await order_client.send("POST", f"{path}/returns", json=body)
    place = made.headers["location"]
    too_early = await order_client.send("POST", f"{place}/close", STAFF, json={}, key="a")
    approved = await order_client.send("POST", f"{place}/approve", STAFF)
    without_key = await order_client.send("POST", f"{place}/receive", STAFF, json=arrived)
    received = await order_client.send("POST", f"{place}/receive", STAFF, json=arrived, key="b")
    again = await order_client.send("POST", f"{place}/receive", STAFF, json=arrived, key="b")
    closed = await order_client.send("POST", f"{place}/close", STAFF, json={}, key="c")
    listed = await order_client.send("GET", f"{path}/returns")

    assert (made.status_code, made.json()["status"]) == (201, "requested")
    assert (too_early.status_code, too_early.json()["details"]) == (
        409,
        {"status": "requested", "allowed": ["approve", "reject", "cancel"]},
    )
    assert approved.json()["status"] == "approved"
    assert without_key.json()["code"] == "idempotency.key_missing"
    assert (received.status_code, again.json()) == (200, received.json())
    assert closed.json()["refund"]["amount"] == {"amount": 1000, "currency": "EUR"}
    assert listed.json() == {"items": [closed.json()], "next_cursor": None}
    assert (await order_client.send("GET", place)).json() == closed.json()


async def test_shipments_are_lost_and_come_back(order_client: OrderClient) -> None:
    order = (await order_client.place(short_body(order_client))).json()
    path = f"/orders/{order['order_id']}/fulfilments"
    order_client.orders_app.fake_payments.capture(UUID(order["payment"]["payment_id"]))
    await order_client.orders_app.process_events()
    body = {"lines": [{"line_id": order["lines"][0]["line_id"], "quantity": 1}]}
    first, second = [
        (await order_client.send("POST", path, STAFF, json=body)).headers["location"]
        for _ in range(2)
    ]

    lost = await order_client.send("POST", f"{first}/lost", STAFF)
    again = await order_client.send("POST", f"{first}/lost", STAFF)
    incomplete = await order_client.send("POST", f"{second}/returned", STAFF, json={})
    returned = await order_client.send("POST", f"{second}/returned", STAFF, json={"restock": True})

    assert (lost.status_code, lost.json()["status"], lost.json()["carrier"]) == (200, "lost", None)
    assert (again.status_code, again.json()["code"]) == (409, "orders.invalid_transition")
    assert (incomplete.status_code, incomplete.json()["errors"][0]["field"]) == (422, "/restock")
    assert (returned.status_code, returned.json()["status"]) == (200, "returned_to_sender")
    assert returned.json()["restocked"] is True


@pytest.mark.parametrize(
    "query",
    [
        "status=lost",
        "limit=0",
        "limit=101",
        "sort=name",
        "cursor=AAAA",
        "created_after=2026-11-21T12:00:00",
        "created_after=0001-01-01T00:00:00%2B14:00",
        "user_id=x",
        "number=MH-",
        "colour=red",
    ],
)
async def test_list_query_is_validated(order_client: OrderClient, query: str) -> None:
    response = await order_client.send("GET", f"/orders?{query}")

    assert response.status_code == 422


async def test_page_links_to_next_page(order_client: OrderClient) -> None:
    for key in ("one", "two", "three"):
        await order_client.place(short_body(order_client), key)

    first = await order_client.send("GET", "/orders?limit=2&created_after=2026-11-21T00:00:00Z")
    cursor = first.json()["next_cursor"]
    query = {"limit": 2, "cursor": cursor, "created_after": "2026-11-21T00:00:00Z"}
    second = await order_client.send("GET", "/orders", params=query)

    assert [len(page.json()["items"]) for page in (first, second)] == [2, 1]
    assert second.json()["next_cursor"] is None


async def test_unknown_id_is_404_and_invalid_id_is_422(order_client: OrderClient) -> None:
    for path in (
        UNKNOWN_ORDER_PATH,
        f"{UNKNOWN_ORDER_PATH}/status",
        f"{UNKNOWN_ORDER_PATH}/timeline",
        f"{UNKNOWN_ORDER_PATH}/events",
        f"{UNKNOWN_ORDER_PATH}/invoice",
        f"{UNKNOWN_ORDER_PATH}/invoice.pdf",
    ):
        response = await order_client.send("GET", path)
        assert (response.status_code, response.json()["code"]) == (404, "orders.not_found")
    response = await order_client.send("GET", "/orders/%00")
    assert response.status_code == 422


def end_streams_at_once(orders_app: OrdersApp) -> None:
    container = orders_app.container
    limits = StreamLimits(
        heartbeat_seconds=1, max_seconds=0.01, max_streams=1, max_streams_per_client=1
    )
    streams = StatusStreams(container.stored_database(), container.status_waits(), limits)
    container.status_streams.override(streams)


async def test_events_are_server_sent_events_with_the_version_as_id(
    order_client: OrderClient,
) -> None:
    order = (await order_client.place(short_body(order_client))).json()
    end_streams_at_once(order_client.orders_app)

    response = await order_client.send("GET", f"/orders/{order['order_id']}/events")

    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["x-accel-buffering"] == "no"
    retry, event, heartbeat, end = response.text.split("\n\n")
    lines = dict(line.split(": ", 1) for line in event.split("\n"))
    assert (retry, heartbeat, end) == ("retry: 1000", ": ping", "")
    assert (lines["event"], lines["id"]) == ("status", str(order["version"]))
    assert json.loads(lines["data"]) == {
        "order_id": order["order_id"],
        "status": "pending",
        "payment_status": "none",
        "fulfilment_status": "unfulfilled",
        "updated_at": order["updated_at"],
        "version": order["version"],
        "change": "placed",
    }


async def test_events_continue_after_the_last_event_id(order_client: OrderClient) -> None:
    order = (await order_client.place(short_body(order_client))).json()
    end_streams_at_once(order_client.orders_app)
    headers = {"Last-Event-ID": str(order["version"])}

    response = await order_client.send(
        "GET", f"/orders/{order['order_id']}/events", headers=headers
    )

    assert "event:" not in response.text


@pytest.mark.parametrize("value", ["-1", "2147483648", "one", "1.5", "9" * 5000])
async def test_invalid_last_event_id_is_rejected(order_client: OrderClient, value: str) -> None:
    headers = {"Last-Event-ID": value}

    response = await order_client.send("GET", f"{UNKNOWN_ORDER_PATH}/events", headers=headers)

    assert (response.status_code, response.json()["code"]) == (422, "request.invalid")


async def test_export_is_a_file(order_client: OrderClient) -> None:
    await order_client.place(short_body(order_client))

    response = await order_client.send("GET", "/orders/export.csv?status=pending", STAFF)
    paged = await order_client.send("GET", "/orders/export.csv?limit=5", STAFF)

    assert response.headers["content-type"] == "text/csv; charset=utf-8"
    assert response.headers["content-disposition"] == 'attachment; filename="orders.csv"'
    assert response.text.count("\r\n") == 2
    assert (paged.status_code, paged.json()["code"]) == (422, "request.invalid")


ROUTES = [
    ("POST", "/orders", {"orders"}),
    ("GET", "/orders", {"orders", "orders:manage"}),
    ("GET", UNKNOWN_ORDER_PATH, {"orders", "orders:manage"}),
    ("GET", f"{UNKNOWN_ORDER_PATH}/status", {"orders", "orders:manage"}),
    ("GET", f"{UNKNOWN_ORDER_PATH}/timeline", {"orders", "orders:manage"}),
    ("GET", f"{UNKNOWN_ORDER_PATH}/events", {"orders", "orders:manage"}),
    ("GET", f"{UNKNOWN_ORDER_PATH}/invoice", {"orders", "orders:manage"}),
    ("GET", f"{UNKNOWN_ORDER_PATH}/invoice.pdf", {"orders", "orders:manage"}),
    ("GET", "/orders/export.csv", {"orders:manage"}),
    ("POST", f"{UNKNOWN_ORDER_PATH}/cancel", {"orders", "orders:manage"}),
    ("POST", f"{UNKNOWN_ORDER_PATH}/fulfilments", {"orders:manage"}),
    ("GET", f"{UNKNOWN_ORDER_PATH}/fulfilments", {"orders", "orders:manage"}),
    ("GET", f"/fulfilments{UNKNOWN_ORDER_PATH[7:]}", {"orders", "orders:manage"}),
    ("POST", f"/fulfilments{UNKNOWN_ORDER_PATH[7:]}/deliver", {"orders:manage"}),
    ("POST", f"/fulfilments{UNKNOWN_ORDER_PATH[7:]}/lost", {"orders:manage"}),
    ("POST", f"/fulfilments{UNKNOWN_ORDER_PATH[7:]}/returned", {"orders:manage"}),
    ("POST", "/carts", {"orders"}),
    ("GET", UNKNOWN_CART_PATH, {"orders", "orders:manage"}),
    ("PUT", UNKNOWN_CART_PATH, {"orders", "orders:manage"}),
    ("PUT", f"{UNKNOWN_CART_PATH}/lines/{UNKNOWN_ORDER_PATH[8:]}", {"orders", "orders:manage"}),
    ("DELETE", f"{UNKNOWN_CART_PATH}/lines/{UNKNOWN_ORDER_PATH[8:]}", {"orders", "orders:manage"}),
    ("PUT", f"{UNKNOWN_CART_PATH}/voucher", {"orders", "orders:manage"}),
    ("DELETE", f"{UNKNOWN_CART_PATH}/voucher", {"orders", "orders:manage"}),
    ("GET", f"{UNKNOWN_CART_PATH}/shipping-options", {"orders", "orders:manage"}),
    ("POST", f"{UNKNOWN_CART_PATH}/merge", {"orders"}),
    ("POST", f"{UNKNOWN_CART_PATH}/checkout", {"orders"}),
    ("POST", f"{UNKNOWN_ORDER_PATH}/returns", {"orders", "orders:manage"}),
    ("GET", f"{UNKNOWN_ORDER_PATH}/returns", {"orders", "orders:manage"}),
    ("GET", f"/returns{UNKNOWN_ORDER_PATH[7:]}", {"orders", "orders:manage"}),
    ("POST", f"/returns{UNKNOWN_ORDER_PATH[7:]}/approve", {"orders:manage"}),
    ("POST", f"/returns{UNKNOWN_ORDER_PATH[7:]}/reject", {"orders:manage"}),
    ("POST", f"/returns{UNKNOWN_ORDER_PATH[7:]}/cancel", {"orders", "orders:manage"}),
    ("POST", f"/returns{UNKNOWN_ORDER_PATH[7:]}/receive", {"orders:manage"}),
    ("POST", f"/returns{UNKNOWN_ORDER_PATH[7:]}/close", {"orders:manage"}),
]


@pytest.mark.parametrize(("method", "path", "scopes"), ROUTES)
async def test_every_route_checks_its_scope(
    order_client: OrderClient, method: str, path: str, scopes: set[str]
) -> None:
    callers = {
        "anonymous": CallContext(request_id="test"),
        "stranger": user_context(new_id(), "staff:catalogue"),
        "orders": user_context(new_id(), "customer"),
        "orders:manage": user_context(new_id(), "staff:orders"),
    }

    responses = {
        name: (await order_client.send(method, path, ctx, json={})).status_code
        for name, ctx in callers.items()
    }

    assert responses.pop("anonymous") == 401
    assert responses.pop("stranger") == 403
    assert {name for name, status in responses.items() if status != 403} == scopes


def test_errors_of_other_contexts_are_documented(orders_app: OrdersApp) -> None:
    passing = (
        *(UserInactive, UserNotFound, ProductNotFound, OutOfStock, ReservationClosed),
        *(TooManyUnpaidOrders, TooManyUnits, UnknownPaymentMethod),
    )

    documented = {
        (status, code) for status, codes in CHECKOUT_ERROR_CODES.items() for code in codes
    }

    assert documented == {(kind.status, kind.code) for kind in passing}


async def test_change_needs_if_match_and_returns_the_new_tag(order_client: OrderClient) -> None:
    placed = (await order_client.place(short_body(order_client))).json()
    path = f"/orders/{placed['order_id']}"
    patch = {"tags": ["vip"]}

    missing = await order_client.send("PATCH", path, STAFF, json=patch)
    stale = await order_client.send("PATCH", path, STAFF, json=patch, headers={"If-Match": '"v9"'})
    changed = await order_client.send(
        "PATCH", path, STAFF, json=patch, headers={"If-Match": '"v1"'}
    )

    assert [missing.status_code, stale.status_code] == [428, 412]
    assert (changed.status_code, changed.headers["etag"]) == (200, '"v2"')
    assert changed.json()["tags"] == ["vip"]


@pytest.mark.parametrize(
    "patch",
    [
        {"status": "completed"},
        {"tags": ["x" * 51]},
        {"tags": ["x"] * 51},
        {"staff_note": "x" * 5001},
        {"on_hold": "true"},
        {"metadata": {"with space": "x"}},
        {"metadata": {"name": 1}},
        {"metadata": {"name": "x" * 501}},
        {"shipping_address": None},
        {"shipping_address": ""},
    ],
)
async def test_invalid_change_is_rejected(order_client: OrderClient, patch: Any) -> None:
    headers = {"If-Match": "*"}

    answer = await order_client.send(
        "PATCH", UNKNOWN_ORDER_PATH, STAFF, json=patch, headers=headers
    )

    assert answer.status_code == 422, answer.text


@pytest.mark.parametrize(
    "lines",
    [
        [],
        [{"product_id": SOME_ID, "quantity": -1}],
        [{"product_id": SOME_ID, "quantity": 1000}],
        [{"product_id": SOME_ID, "quantity": 1}] * 2,
        [{"product_id": SOME_ID, "quantity": 1, "price": 1}],
    ],
)
async def test_invalid_edit_is_rejected(order_client: OrderClient, lines: Any) -> None:
    answer = await order_client.send(
        "POST",
        f"{UNKNOWN_ORDER_PATH}/edits",
        STAFF,
        json={"lines": lines},
        headers={"Idempotency-Key": "key"},
    )

    assert answer.status_code == 422, answer.text


async def test_edit_needs_a_key_and_staff(order_client: OrderClient) -> None:
    body = {"lines": [{"product_id": SOME_ID, "quantity": 1}]}
    path = f"{UNKNOWN_ORDER_PATH}/edits"

    without_key = await order_client.send("POST", path, STAFF, json=body)
    as_buyer = await order_client.send("POST", path, json=body, headers={"Idempotency-Key": "k"})
    unknown = await order_client.send(
        "POST", path, STAFF, json=body, headers={"Idempotency-Key": "k"}
    )

    codes = [without_key.status_code, as_buyer.status_code, unknown.status_code]
    assert codes == [400, 403, 404]


async def test_preview_of_an_edit_needs_staff_and_no_key(order_client: OrderClient) -> None:
    product_id = order_client.orders_app.stock_up()
    order = await order_client.orders_app.place(product_id, 2)
    body = {"lines": [{"product_id": str(product_id), "quantity": 3}]}
    path = f"/orders/{order.order_id}/edits/preview"

    as_buyer = await order_client.send("POST", path, json=body)
    answer = await order_client.send("POST", path, STAFF, json=body)
    invalid = await order_client.send("POST", path, STAFF, json=body | {"price": 1})
    missing = await order_client.send(
        "POST", f"{UNKNOWN_ORDER_PATH}/edits/preview", STAFF, json=body
    )

    assert [one.status_code for one in (as_buyer, invalid, missing)] == [403, 422, 404]
    assert answer.status_code == 200
    assert answer.json()["difference"] == {"amount": 1000, "currency": "EUR"}
    assert answer.json()["total"] == {"amount": 3000, "currency": "EUR"}


async def test_unknown_edit_is_not_cancelled(order_client: OrderClient) -> None:
    order = await order_client.orders_app.paid(order_client.orders_app.stock_up())
    path = f"/orders/{order.order_id}/edits/{SOME_ID}/cancel"

    as_buyer = await order_client.send("POST", path)
    unknown = await order_client.send("POST", path, STAFF)

    assert (as_buyer.status_code, unknown.status_code) == (403, 404)
    assert unknown.json()["code"] == "orders.edit_not_found"


async def test_invoice_is_a_page_and_a_file(order_client: OrderClient) -> None:
    orders_app = order_client.orders_app
    order = await orders_app.paid(orders_app.stock_up())
    path = f"/orders/{order.order_id}/invoice"

    page = await order_client.send("GET", path, headers={"Accept-Language": "de"})
    file = await order_client.send("GET", f"{path}.pdf")

    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["content-language"] == "de"
    assert page.headers["cache-control"] == "no-store"
    assert page.headers["content-security-policy"] == CONTENT_SECURITY_POLICY
    assert "Rechnung INV-1" in page.text
    assert file.headers["content-type"] == "application/pdf"
    assert file.headers["content-disposition"] == 'inline; filename="INV-1.pdf"'
    assert file.content.startswith(b"%PDF-")


async def test_order_that_is_not_paid_has_no_invoice(order_client: OrderClient) -> None:
    order = (await order_client.place(short_body(order_client))).json()

    for end in ("invoice", "invoice.pdf"):
        response = await order_client.send("GET", f"/orders/{order['order_id']}/{end}")
        assert (response.status_code, response.json()["code"]) == (404, "orders.invoice_not_found")
