"""A shop to measure: its products and customers, made through the API, and what customers send."""

import json
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from random import Random
from time import perf_counter
from typing import Any
from urllib.parse import urlencode

from .client import Answer, Request, Script, Scripts, Tally, call_all, request_bytes

ADMIN = "bench-admin@example.com"
STOCK = 10_000  # far more than a run can sell of one product
PAGE = "/products?limit=20"
ADDRESS = {
    "recipient": "Ada Bench",
    "line1": "1 Market Square",
    "city": "Utrecht",
    "postal_code": "3511 LX",
    "country": "NL",
}


class Refused(RuntimeError):
    """The application answered a preparing call with something else than expected."""


@dataclass
class Shop:
    """What the scripts need to know."""

    admin_password: str
    product_ids: list[str] = field(default_factory=list)
    customers: list[str] = field(default_factory=list)
    password: str = field(default_factory=lambda: secrets.token_urlsafe(18))
    tokens: list[str] = field(default_factory=list)
    logged_in: float = 0.0
    run: str = field(default_factory=lambda: secrets.token_hex(4))
    _numbers: Iterator[int] = field(default_factory=count)

    async def stock(self, port: int, products: int, door: int = 0) -> None:
        """Have `products` products with plenty of stock each, in no particular order.

        `door`: where one logs in, if that is elsewhere.
        """
        admin = await self._token(door or port, ADMIN, self.admin_password)
        self.product_ids = await _listed(port, products)
        missing = range(len(self.product_ids), products)
        made = await call_all(port, [self._product(number, admin) for number in missing])
        self.product_ids += [_json(answer, 201)["product_id"] for answer in made]
        counted = [self._received(product_id, admin) for product_id in self.product_ids]
        for answer in await call_all(port, counted):
            _json(answer, 201)
        Random(7).shuffle(self.product_ids)

    async def register(self, port: int, customers: int) -> None:
        """Have that many new customers. Two at a time: each costs a password hash."""
        self.customers = [f"bench-{self.run}-{number}" for number in range(customers)]
        requests = [self._registration(name) for name in self.customers]
        for answer in await call_all(port, requests, at_once=2):
            _json(answer, 201)

    async def log_in(self, port: int) -> None:
        """A fresh access token for every customer."""
        answers = await call_all(port, self.logins(), at_once=2)
        self.tokens = [_json(answer, 200)["access_token"] for answer in answers]
        self.logged_in = perf_counter()

    async def stay_logged_in(self, port: int) -> None:
        """Log in again when the tokens are more than five minutes old."""
        if perf_counter() - self.logged_in > 300:
            await self.log_in(port)

    def products(self) -> list[Request]:
        paths = [f"/products/{product_id}" for product_id in self.product_ids]
        return [Request("product", request_bytes("GET", path)) for path in paths]

    def page(self) -> list[Request]:
        return [Request("page", request_bytes("GET", PAGE))]

    def me(self) -> list[Request]:
        return [
            Request("me", request_bytes("GET", "/users/me", authorization=f"Bearer {token}"))
            for token in self.tokens
        ]

    def logins(self) -> list[Request]:
        return [Request("login", _login(name, self.password)) for name in self.customers]

    def placing(self, customers: int) -> Scripts:
        """Customers who place one order after another."""
        return lambda _tally: [self._placing(token) for token in self._some(customers)]

    async def order_once(self, port: int) -> list[Request]:
        """An order of each customer, and what they have to pay."""
        answers = await call_all(port, [self._order(token) for token in self.tokens], at_once=1)
        payments = [_json(answer, 201)["payment"]["payment_id"] for answer in answers]
        return [self._confirm(*each) for each in zip(self.tokens, payments, strict=True)]

    def ordering(self, customers: int, unpaid: list[list[Request]]) -> Scripts:
        """The same, and what each customer has to pay afterwards is added to `unpaid`."""

        def scripts(_: Tally) -> list[Script]:
            buyers = self._some(customers)
            unpaid.extend([] for _ in buyers)
            return [self._ordering(*each) for each in zip(buyers, unpaid, strict=True)]

        return scripts

    def buying(self, customers: int) -> Scripts:
        """Customers who place an order and pay for it, again and again."""
        return lambda tally: [self._buying(token, tally) for token in self._some(customers)]

    def _some(self, customers: int) -> list[str]:
        return [self.tokens[number % len(self.tokens)] for number in range(customers)]

    def _placing(self, token: str) -> Script:
        while True:
            yield self._order(token)

    def _ordering(self, token: str, unpaid: list[Request]) -> Script:
        while True:
            placed = yield self._order(token)
            if placed.status == 201:
                payment_id = json.loads(placed.body)["payment"]["payment_id"]
                unpaid.append(self._confirm(token, payment_id))

    def _buying(self, token: str, tally: Tally) -> Script:
        while True:
            began = perf_counter()
            placed = yield self._order(token)
            if placed.status == 201:
                paid = yield self._confirm(token, json.loads(placed.body)["payment"]["payment_id"])
                _keep_purchase(paid, began, tally)

    def _order(self, token: str) -> Request:
        product_id = self.product_ids[next(self._numbers) % len(self.product_ids)]
        lines = [{"product_id": product_id, "quantity": 1}]
        body = {"lines": lines, "shipping_address": ADDRESS}
        return Request("place", self._post("/orders", body, token))

    def _confirm(self, token: str, payment_id: str) -> Request:
        body = {"payment_method": "sandbox_ok"}
        return Request("confirm", self._post(f"/payments/{payment_id}/confirm", body, token))

    def _product(self, number: int, token: str) -> Request:
        body = {
            "sku": f"BENCH-{self.run}-{number:05}",
            "name": f"Market stall apron no. {number}",
            "description": "Heavy cotton, two pockets, washes at sixty degrees. " * 4,
            "price": {"amount": 1000 + number, "currency": "EUR"},
            "tags": ["apron", "cotton", "market"],
            "status": "active",
        }
        return Request("create", self._post("/products", body, token))

    def _received(self, product_id: str, token: str) -> Request:
        body = {"delta": STOCK, "reason": "received"}
        path = f"/products/{product_id}/stock-adjustments"
        return Request("stock", self._post(path, body, token))

    def _registration(self, name: str) -> Request:
        body = {"username": name, "email": f"{name}@example.com", "password": self.password}
        return Request("register", request_bytes("POST", "/users", body))

    def _post(self, path: str, body: object, token: str) -> bytes:
        key = f"bench-{self.run}-{next(self._numbers)}"
        authorization = f"Bearer {token}"
        return request_bytes("POST", path, body, authorization=authorization, idempotency_key=key)

    async def _token(self, port: int, username: str, password: str) -> str:
        [answer] = await call_all(port, [Request("login", _login(username, password))], at_once=1)
        return str(_json(answer, 200)["access_token"])


def _keep_purchase(paid: Answer, began: float, tally: Tally) -> None:
    if paid.status == 200 and json.loads(paid.body)["status"] == "captured":
        tally.keep("purchase", began, perf_counter())
    else:
        tally.failures["purchase: not captured"] += 1


def _login(username: str, password: str) -> bytes:
    form = {"grant_type": "password", "username": username, "password": password}
    return request_bytes("POST", "/token", urlencode(form).encode())


async def _listed(port: int, limit: int) -> list[str]:
    """The products that are there already, as many as `limit`."""
    found: list[str] = []
    path = "/products?limit=100"
    while len(found) < limit:
        page = await fetch(port, path)
        found += [item["product_id"] for item in page["items"]]
        if not page["next_cursor"]:
            break
        path = "/products?" + urlencode({"limit": 100, "cursor": page["next_cursor"]})
    return found[:limit]


async def fetch(port: int, path: str) -> Any:
    """One JSON answer."""
    [answer] = await call_all(port, [Request("get", request_bytes("GET", path))], at_once=1)
    return _json(answer, 200)


async def bodies(port: int, requests: Sequence[Request]) -> list[bytes]:
    """The bodies behind these reads; Refused unless each is a 200."""
    answers = await call_all(port, requests)
    for answer in answers:
        _json(answer, 200)
    return [answer.body for answer in answers]


async def statements(port: int) -> float | None:
    """The SQL statements the server has counted; None when it does not count them."""
    counted = await counters(port, "markethall_db_statements_total")
    return sum(counted.values()) if counted else None


async def counters(port: int, name: str) -> dict[str, float]:
    """What the server has counted under this name, by its labels."""
    asked = Request("metrics", request_bytes("GET", "/metrics"))
    [answer] = await call_all(port, [asked], at_once=1)
    lines = answer.body.decode().splitlines() if answer.status == 200 else []
    parts = [line.removeprefix(name).rpartition(" ") for line in lines if line.startswith(name)]
    return {labels: float(value) for labels, _, value in parts}


def _json(answer: Answer, expected: int) -> Any:
    if answer.status != expected:
        raise Refused(f"{answer.status} instead of {expected}: {answer.body[:600].decode()}")
    return json.loads(answer.body)
