"""The paths of orders: what comes in, what goes out, and who may."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.types import ASGIApp, Receive, Scope, Send

from markethall.inventory.contract import (
    OutOfStock,
    ProductNotFound,
    ReservationClosed,
    TooManyHolds,
    TooManyUnits,
)
from markethall.orders.contract import OrderView
from markethall.orders.router import _PASSING, router
from markethall.shared.call import Call
from markethall.shared.errors import Refusal
from markethall.shared.http import refuse, refuse_invalid
from markethall.shared.ids import new_id
from markethall.users.contract import UserInactive, UserNotFound
from tests.orders.conftest import STAFF, Hall, person

# what the paths do is the same on every storage; the end-to-end suite goes through both
pytestmark = pytest.mark.parametrize("hall", ["memory"], indirect=True)

NOWHERE = "/orders/0199c0de-0000-7000-8000-000000000009"
ONE = "0199c0de-0000-7000-8000-000000000001"


class Door:
    """What the front does before: the call is in the scope."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.call = Call(request_id="test")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"] = {"call": self.call, "request_id": "test"}
        await self._app(scope, receive, send)


@dataclass
class Counter:
    """The hall and a way to ask it by HTTP."""

    hall: Hall
    http: httpx2.AsyncClient
    door: Door

    async def send(
        self, method: str, path: str, who: Call | None = None, **options: Any
    ) -> httpx2.Response:
        self.door.call = who or self.hall.buyer
        return await self.http.request(method, path, **options)

    async def place(self, body: Any, key: str = "key") -> httpx2.Response:
        headers = {"Idempotency-Key": key}
        return await self.send("POST", "/orders", json=body, headers=headers)


@pytest.fixture
async def counter(hall: Hall) -> AsyncIterator[Counter]:
    app = FastAPI(
        exception_handlers={Refusal: refuse, RequestValidationError: refuse_invalid},
        strict_content_type=True,
    )
    app.include_router(router)
    app.state.container = SimpleNamespace(
        orders=hall.container.orders, orders_keys=hall.container.keys
    )
    door = Door(app)
    transport = httpx2.ASGITransport(door)
    async with httpx2.AsyncClient(transport=transport, base_url="http://hall") as http:
        yield Counter(hall, http, door)


def short(counter: Counter, **more: Any) -> dict[str, Any]:
    product_id = str(counter.hall.shelf.stock(5))
    return {"product_id": product_id, "quantity": 2, "shipping_address": "Market 1", **more}


def long(counter: Counter, **more: Any) -> dict[str, Any]:
    body = short(counter)
    line = {"product_id": body.pop("product_id"), "quantity": body.pop("quantity")}
    return {"lines": [line], **body, **more}


async def test_the_short_form_means_one_line(counter: Counter) -> None:
    body = short(counter)

    answer = await counter.place(body)

    order = answer.json()
    assert answer.status_code == 201
    assert answer.headers["location"] == f"/orders/{order['order_id']}"
    assert answer.headers["etag"] == f'"v{order["version"]}"'
    assert [(line["product_id"], line["quantity"]) for line in order["lines"]] == [
        (body["product_id"], 2)
    ]
    assert order["total"] == {"amount": 2000, "currency": "EUR"}
    assert order["payment"]["status"] == "created"
    assert set(order) == set(OrderView.model_fields)


async def test_the_same_key_gives_the_same_answer(counter: Counter) -> None:
    body = short(counter)

    first = await counter.place(body)
    second = await counter.place(body)
    other = await counter.place(body | {"quantity": 1})

    assert (second.status_code, second.text) == (201, first.text)
    assert second.headers["location"] == first.headers["location"]
    assert second.headers["idempotency-replayed"] == "true"
    assert (other.status_code, other.json()["code"]) == (422, "idempotency.payload_mismatch")


async def test_an_order_needs_a_key(counter: Counter) -> None:
    answer = await counter.send("POST", "/orders", json=short(counter))

    assert (answer.status_code, answer.json()["code"]) == (400, "idempotency.key_missing")


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
        ({"voucher_code": "SPRING"}, "/voucher_code"),
        ({"payment_method": "card"}, "/payment_method"),
        ({"note": "not in the short form"}, "/note"),
    ],
    ids=str,
)
async def test_the_short_form_is_read_strictly(
    counter: Counter, wrong: dict[str, Any], field: str
) -> None:
    answer = await counter.place(short(counter) | wrong)

    assert (answer.status_code, answer.json()["code"]) == (422, "request.invalid")
    assert [error["field"] for error in answer.json()["errors"]] == [field]


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
        ({"lines": [{"product_id": ONE, "quantity": 1}] * 101}, "/lines"),
        ({"lines": [{"product_id": NOWHERE[8:], "quantity": 500}] * 2}, "/lines"),
        ({"product_id": ONE}, "/product_id"),
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
        ({"voucher_code": "SPRING"}, "/voucher_code"),
        ({"payment_method": "card"}, "/payment_method"),
    ],
    ids=str,
)
async def test_the_long_form_is_read_strictly(
    counter: Counter, wrong: dict[str, Any], field: str
) -> None:
    answer = await counter.place(long(counter) | wrong)

    assert (answer.status_code, answer.json()["code"]) == (422, "request.invalid")
    assert answer.json()["errors"][0]["field"] == field


@pytest.mark.parametrize("body", [None, [], "order", 1, {}])
async def test_what_is_no_order_at_all_is_refused(counter: Counter, body: Any) -> None:
    answer = await counter.place(body)

    assert (answer.status_code, answer.json()["code"]) == (422, "request.invalid")


async def test_everything_that_may_be_said_may_be_said(counter: Counter) -> None:
    body = long(
        counter,
        shipping_address=ADDRESS | {"line2": "2 hoog", "region": "NH", "phone": "+31 20 1"},
        billing_address="Market 1",
        currency="EUR",
        expected_total={"amount": 2000, "currency": "EUR"},
        note="ring twice",
    )

    answer = await counter.place(body)

    assert answer.status_code == 201
    order = answer.json()
    assert order["shipping_address"] == body["shipping_address"]
    assert (order["billing_address"], order["note"]) == ("Market 1", "ring twice")


async def test_an_order_that_cannot_be_is_refused_with_its_reasons(counter: Counter) -> None:
    dear = long(counter, expected_total={"amount": 1, "currency": "EUR"})
    much = long(counter)
    much["lines"][0]["quantity"] = 6

    changed = await counter.place(dear)
    short_of = await counter.place(much, key="other")
    again = await counter.place(dear)

    assert (changed.status_code, changed.json()["code"]) == (409, "orders.total_changed")
    assert changed.json()["details"] == {"total": {"amount": 2000, "currency": "EUR"}}
    assert (short_of.status_code, short_of.json()["code"]) == (409, "inventory.out_of_stock")
    assert short_of.json()["details"]["lines"][0]["available"] == 5
    assert (again.status_code, again.json()["code"]) == (409, "orders.total_changed")
    assert again.headers["idempotency-replayed"] == "true"


async def test_an_order_is_seen_and_not_sent_twice(counter: Counter) -> None:
    order = (await counter.place(short(counter))).json()
    path = f"/orders/{order['order_id']}"

    answer = await counter.send("GET", path)
    again = await counter.send("GET", path, headers={"If-None-Match": answer.headers["etag"]})

    assert (answer.status_code, answer.json()) == (200, order)
    assert answer.headers["cache-control"] == "no-store"
    assert (again.status_code, again.content) == (304, b"")


async def test_the_whole_way_by_http(counter: Counter) -> None:
    order = (await counter.place(short(counter))).json()
    path = f"/orders/{order['order_id']}"
    counter.hall.till.capture(counter.hall.till.all_payments()[0].payment_id)
    await counter.hall.settle()
    parcel = {"carrier": "DHL", "tracking_number": "JD01"}

    shipped = await counter.send("POST", f"{path}/fulfilments", STAFF, json=parcel)
    seen = await counter.send("GET", shipped.headers["location"])
    delivered = await counter.send("POST", f"{shipped.headers['location']}/deliver", STAFF)
    status = await counter.send("GET", f"{path}/status")
    timeline = await counter.send("GET", f"{path}/timeline")
    cancelled = await counter.send("POST", f"{path}/cancel", json={"reason": "too late"})

    assert (shipped.status_code, shipped.json()["status"]) == (201, "shipped")
    assert seen.json() == shipped.json()
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


async def test_cancelling_needs_a_reason(counter: Counter) -> None:
    order = (await counter.place(short(counter))).json()
    path = f"/orders/{order['order_id']}/cancel"

    empty = await counter.send("POST", path, json={})
    good = await counter.send("POST", path, json={"reason": "changed my mind"})

    assert (empty.status_code, empty.json()["errors"][0]["field"]) == (422, "/reason")
    assert (good.status_code, good.json()["status"]) == (200, "cancelled")


@pytest.mark.parametrize(
    "wrong",
    [
        {"carrier": "DHL"},
        {"tracking_number": "JD01"},
        {"carrier": " ", "tracking_number": "JD01"},
        {"carrier": "DHL", "tracking_number": "JD01", "lines": []},
        {"carrier": "DHL", "tracking_number": "JD01", "lines": [{"line_id": NOWHERE[8:]}]},
        {
            "carrier": "DHL",
            "tracking_number": "JD01",
            "lines": [{"line_id": NOWHERE[8:], "quantity": 1}] * 2,
        },
    ],
    ids=str,
)
async def test_a_parcel_needs_a_carrier_a_number_and_lines_of_sense(
    counter: Counter, wrong: dict[str, Any]
) -> None:
    answer = await counter.send("POST", f"{NOWHERE}/fulfilments", STAFF, json=wrong)

    assert answer.status_code == 422


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
        "number=1001",
        "colour=red",
    ],
)
async def test_a_list_is_asked_for_in_its_own_words(counter: Counter, query: str) -> None:
    answer = await counter.send("GET", f"/orders?{query}")

    assert answer.status_code == 422


async def test_a_page_leads_to_the_next(counter: Counter) -> None:
    for key in ("one", "two", "three"):
        await counter.place(short(counter), key)

    first = await counter.send("GET", "/orders?limit=2&created_after=2026-11-21T00:00:00Z")
    cursor = first.json()["next_cursor"]
    query = {"limit": 2, "cursor": cursor, "created_after": "2026-11-21T00:00:00Z"}
    second = await counter.send("GET", "/orders", params=query)

    assert [len(page.json()["items"]) for page in (first, second)] == [2, 1]
    assert second.json()["next_cursor"] is None


async def test_what_is_not_there_is_404_and_what_is_no_id_is_422(counter: Counter) -> None:
    for path in (NOWHERE, f"{NOWHERE}/status", f"{NOWHERE}/timeline"):
        answer = await counter.send("GET", path)
        assert (answer.status_code, answer.json()["code"]) == (404, "orders.not_found")
    answer = await counter.send("GET", "/orders/%00")
    assert answer.status_code == 422


ROUTES = [
    ("POST", "/orders", {"orders"}),
    ("GET", "/orders", {"orders", "orders:manage"}),
    ("GET", NOWHERE, {"orders", "orders:manage"}),
    ("GET", f"{NOWHERE}/status", {"orders", "orders:manage"}),
    ("GET", f"{NOWHERE}/timeline", {"orders", "orders:manage"}),
    ("POST", f"{NOWHERE}/cancel", {"orders", "orders:manage"}),
    ("POST", f"{NOWHERE}/fulfilments", {"orders:manage"}),
    ("GET", f"/fulfilments{NOWHERE[7:]}", {"orders", "orders:manage"}),
    ("POST", f"/fulfilments{NOWHERE[7:]}/deliver", {"orders:manage"}),
]


@pytest.mark.parametrize(("method", "path", "scopes"), ROUTES)
async def test_every_route_is_for_those_it_is_for(
    counter: Counter, method: str, path: str, scopes: set[str]
) -> None:
    callers = {
        "nobody": Call(request_id="test"),
        "stranger": person(new_id(), "staff:catalogue"),
        "orders": person(new_id(), "customer"),
        "orders:manage": person(new_id(), "staff:orders"),
    }

    answers = {
        name: (await counter.send(method, path, call, json={})).status_code
        for name, call in callers.items()
    }

    assert answers.pop("nobody") == 401
    assert answers.pop("stranger") == 403
    assert {name for name, status in answers.items() if status != 403} == scopes


def test_the_neighbours_refusals_are_documented_under_their_status(hall: Hall) -> None:
    passing = (
        *(UserInactive, UserNotFound, ProductNotFound, OutOfStock, ReservationClosed),
        *(TooManyHolds, TooManyUnits),
    )

    documented = {(status, code) for status, codes in _PASSING.items() for code in codes}

    assert documented == {(kind.status, kind.code) for kind in passing}
