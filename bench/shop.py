"""Creates products and customers through the API, and builds the requests of the benchmark."""

import json
import secrets
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from random import Random
from time import perf_counter
from typing import Any
from urllib.parse import urlencode

from .client import Request, Response, Script, Scripts, Tally, call_all, request_bytes

ADMIN = "bench-admin@example.com"
STOCK = 10_000  # units per product; more than a run can sell
PAGE = "/products?limit=20"
METHOD = "sandbox_ok"
ADDRESS = {
    "recipient": "Ada Bench",
    "line1": "1 Market Square",
    "city": "Utrecht",
    "postal_code": "3511 LX",
    "country": "NL",
}


class Refused(RuntimeError):
    """A request before the measurement got an unexpected response."""


@dataclass
class Shop:
    """The products, customers and access tokens that the scripts use."""

    admin_password: str
    product_ids: list[str] = field(default_factory=list)
    customers: list[str] = field(default_factory=list)
    password: str = field(default_factory=lambda: secrets.token_urlsafe(18))
    tokens: list[str] = field(default_factory=list)
    logged_in: float = 0.0
    run: str = field(default_factory=lambda: secrets.token_hex(4))
    _numbers: Iterator[int] = field(default_factory=count)

    async def stock(self, port: int, products: int, login_port: int = 0) -> None:
        """Create products up to the given number, with stock, in random order.

        `login_port` is the port of the context users, if another process serves it.
        """
        admin = await self._token(login_port or port, ADMIN, self.admin_password)
        self.product_ids = await _existing_products(port, products)
        missing = range(len(self.product_ids), products)
        created = await call_all(port, [self._product(number, admin) for number in missing])
        self.product_ids += [_json(response, 201)["product_id"] for response in created]
        adjustments = [self._stock_receipt(product_id, admin) for product_id in self.product_ids]
        for response in await call_all(port, adjustments):
            _json(response, 201)
        Random(7).shuffle(self.product_ids)

    async def register(self, port: int, customers: int) -> None:
        """Register new customers, only two at a time, because password hashes take much CPU."""
        self.customers = [f"bench-{self.run}-{number}" for number in range(customers)]
        requests = [self._registration(name) for name in self.customers]
        for response in await call_all(port, requests, concurrency=2):
            _json(response, 201)

    async def log_in(self, port: int) -> None:
        """Get a new access token for every customer."""
        responses = await call_all(port, self.logins(), concurrency=2)
        self.tokens = [_json(response, 200)["access_token"] for response in responses]
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

    def place_orders(self, customers: int) -> Scripts:
        """Return scripts of customers that place orders repeatedly."""
        return lambda _tally: [self._place_orders(token) for token in self._tokens_of(customers)]

    async def order_once(self, port: int) -> list[Request]:
        """Place one order per customer, and return the requests that pay the orders."""
        responses = await call_all(
            port, [self._order(token) for token in self.tokens], concurrency=1
        )
        payments = [_json(response, 201)["payment"]["payment_id"] for response in responses]
        return [self._confirm(*pair) for pair in zip(self.tokens, payments, strict=True)]

    def place_unpaid_orders(
        self, customers: int, unpaid: list[list[Request]], method: str = METHOD
    ) -> Scripts:
        """Return scripts that place orders, and append the requests that pay them to `unpaid`."""

        def scripts(_: Tally) -> list[Script]:
            buyers = self._tokens_of(customers)
            unpaid.extend([] for _ in buyers)
            return [
                self._place_unpaid_orders(token, requests, method)
                for token, requests in zip(buyers, unpaid[-len(buyers) :], strict=True)
            ]

        return scripts

    def buy(self, customers: int) -> Scripts:
        """Return scripts of customers that repeatedly place an order and pay it."""
        return lambda tally: [self._buy(token, tally) for token in self._tokens_of(customers)]

    def check_out_carts(self, customers: int, unpaid: list[list[Request]]) -> Scripts:
        """Return scripts that check out carts, and append the requests that pay the orders."""

        def scripts(tally: Tally) -> list[Script]:
            buyers = self._tokens_of(customers)
            unpaid.extend([] for _ in buyers)
            return [
                self._check_out_carts(token, requests, tally)
                for token, requests in zip(buyers, unpaid[-len(buyers) :], strict=True)
            ]

        return scripts

    def buy_from_carts(self, customers: int) -> Scripts:
        """Return scripts of customers that repeatedly fill a cart, check it out and pay."""
        return lambda tally: [
            self._buy_from_carts(token, tally) for token in self._tokens_of(customers)
        ]

    def _tokens_of(self, customers: int) -> list[str]:
        return [self.tokens[number % len(self.tokens)] for number in range(customers)]

    def _place_orders(self, token: str) -> Script:
        while True:
            yield self._order(token)

    def _place_unpaid_orders(self, token: str, unpaid: list[Request], method: str) -> Script:
        while True:
            placed = yield self._order(token)
            if placed.status == 201:
                payment_id = json.loads(placed.body)["payment"]["payment_id"]
                unpaid.append(self._confirm(token, payment_id, method))

    def _buy(self, token: str, tally: Tally) -> Script:
        while True:
            started = perf_counter()
            placed = yield self._order(token)
            if placed.status == 201:
                paid = yield self._confirm(token, json.loads(placed.body)["payment"]["payment_id"])
                _record_purchase(paid, "purchase", started, tally)

    def _check_out_carts(self, token: str, unpaid: list[Request], tally: Tally) -> Script:
        while True:
            started = perf_counter()
            ordered = yield from self._check_out_cart(token)
            if ordered.status == 201:
                tally.add_success("cart", started, perf_counter())
                payment_id = json.loads(ordered.body)["payment"]["payment_id"]
                unpaid.append(self._confirm(token, payment_id))

    def _buy_from_carts(self, token: str, tally: Tally) -> Script:
        while True:
            started = perf_counter()
            ordered = yield from self._check_out_cart(token)
            if ordered.status == 201:
                paid = yield self._confirm(token, json.loads(ordered.body)["payment"]["payment_id"])
                _record_purchase(paid, "cart purchase", started, tally)

    def _check_out_cart(self, token: str) -> Generator[Request, Response, Response]:
        """Create a cart, add two lines and an address, and check it out; return the response."""
        created = yield Request("create cart", self._post("/carts", {}, token))
        if created.status != 201:
            return created
        path = f"/carts/{json.loads(created.body)['cart_id']}"
        for _ in range(2):
            line = f"{path}/lines/{self._next_product()}"
            yield Request("cart line", _put(line, {"quantity": 1}, token))
        yield Request("cart address", _put(path, {"shipping_address": ADDRESS}, token))
        return (yield Request("checkout", self._post(f"{path}/checkout", {}, token)))

    def _order(self, token: str) -> Request:
        lines = [{"product_id": self._next_product(), "quantity": 1}]
        body = {"lines": lines, "shipping_address": ADDRESS}
        return Request("place", self._post("/orders", body, token))

    def _next_product(self) -> str:
        return self.product_ids[next(self._numbers) % len(self.product_ids)]

    def _confirm(self, token: str, payment_id: str, method: str = METHOD) -> Request:
        body = {"payment_method": method}
        return Request("confirm", self._post(f"/payments/{payment_id}/confirm", body, token))

    def _product(self, number: int, token: str) -> Request:
        body = {
            "sku": f"BENCH-{self.run}-{number:05}",
            "name": f"Market apron no. {number}",
            "description": "Heavy cotton, two pockets, washes at sixty degrees. " * 4,
            "price": {"amount": 1000 + number, "currency": "EUR"},
            "tags": ["apron", "cotton", "market"],
            "status": "active",
        }
        return Request("create", self._post("/products", body, token))

    def _stock_receipt(self, product_id: str, token: str) -> Request:
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
        [response] = await call_all(
            port, [Request("login", _login(username, password))], concurrency=1
        )
        return str(_json(response, 200)["access_token"])


def _record_purchase(paid: Response, kind: str, started: float, tally: Tally) -> None:
    if paid.status == 200 and json.loads(paid.body)["status"] == "captured":
        tally.add_success(kind, started, perf_counter())
    else:
        tally.failures[f"{kind}: not captured"] += 1


def _put(path: str, body: object, token: str) -> bytes:
    return request_bytes("PUT", path, body, authorization=f"Bearer {token}")


def _login(username: str, password: str) -> bytes:
    form = {"grant_type": "password", "username": username, "password": password}
    return request_bytes("POST", "/token", urlencode(form).encode())


async def _existing_products(port: int, limit: int) -> list[str]:
    """Return the ids of existing products, at most `limit`."""
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
    """Send a GET and return its JSON response."""
    [response] = await call_all(port, [Request("get", request_bytes("GET", path))], concurrency=1)
    return _json(response, 200)


async def fetch_bodies(port: int, requests: Sequence[Request]) -> list[bytes]:
    """Send the requests and return the bodies. Raises Refused if one is not a 200."""
    responses = await call_all(port, requests)
    for response in responses:
        _json(response, 200)
    return [response.body for response in responses]


async def fetch_statement_count(port: int) -> float | None:
    """Return the number of SQL statements of the server, or None if it has no such metric."""
    adjustments = await fetch_counters(port, "markethall_db_statements_total")
    return sum(adjustments.values()) if adjustments else None


async def fetch_counters(port: int, name: str) -> dict[str, float]:
    """Map the labels of a counter of the server to its values."""
    request = Request("metrics", request_bytes("GET", "/metrics"))
    [response] = await call_all(port, [request], concurrency=1)
    lines = response.body.decode().splitlines() if response.status == 200 else []
    parts = [line.removeprefix(name).rpartition(" ") for line in lines if line.startswith(name)]
    return {labels: float(value) for labels, _, value in parts}


def _json(response: Response, expected: int) -> Any:
    if response.status != expected:
        raise Refused(f"{response.status} instead of {expected}: {response.body[:600].decode()}")
    return json.loads(response.body)
