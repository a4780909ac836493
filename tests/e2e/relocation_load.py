"""The load during a relocation: at a fixed interval a new customer buys one product.

Temporary failures are retried with the same idempotency key. All results are stored, so that a test
can compare them with the database afterwards.
"""

import asyncio
import itertools
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2

from tests.e2e.shop import Person, Shop, expect_status
from tests.progress import progress_limit

TIMEOUT_SECONDS = 120
AMOUNT = 700
RETRY_DELAY_SECONDS = 0.2  # after a connection error
READ_INTERVAL_SECONDS = 0.1  # between two reads of the product


@dataclass(frozen=True)
class Sale:
    """An acknowledged order, its idempotency key, and its planned outcome (see OUTCOMES)."""

    buyer: Person
    key: str
    order: dict[str, Any]
    outcome: str

    @property
    def order_id(self) -> str:
        return str(self.order["order_id"])


@dataclass
class LoadResults:
    """The results of all requests. Each float is a time of time.monotonic(), in seconds."""

    placed: list[float] = field(default_factory=list)
    product_reads: list[float] = field(default_factory=list)
    rejected: list[float] = field(default_factory=list)
    broken_connections: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    sales: list[Sale] = field(default_factory=list)


# each new order gets the next of these outcomes; after the last, the first again
OUTCOMES = ("paid", "delivered", "paid", "cancelled")


class RelocationLoad(Shop):
    def __init__(self, shop: Shop, buyers: list[Person], product_id: str, interval: float) -> None:
        super().__init__(shop.server, shop.http)
        self.admin = shop.admin
        self.buyers = buyers
        self.product_id = product_id
        self.interval = interval
        self.results = LoadResults()
        self._customer_count = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Start customers during the block, then let them finish their orders."""
        stopped = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._read_product(stopped))
            tasks.create_task(self._start_customers(tasks, stopped))
            try:
                yield
            finally:
                stopped.set()

    async def _start_customers(self, tasks: asyncio.TaskGroup, stopped: asyncio.Event) -> None:
        while not stopped.is_set():
            number, self._customer_count = self._customer_count, self._customer_count + 1
            tasks.create_task(self._serve_customer(number))
            await asyncio.sleep(self.interval)

    async def _serve_customer(self, number: int) -> None:
        try:
            await self._buy(
                self.buyers[number % len(self.buyers)], OUTCOMES[number % len(OUTCOMES)]
            )
        except (AssertionError, TimeoutError) as error:
            self.results.failed.append(repr(error))

    async def _buy(self, buyer: Person, outcome: str) -> None:
        key, body = secrets.token_hex(16), self.order_body
        order = await self._post_until_final("/orders", buyer, body, 201, key)
        self.results.placed.append(time.monotonic())
        sale = Sale(buyer, key, order, outcome)
        self.results.sales.append(sale)
        await self._pay(sale)
        if outcome == "cancelled":
            await self._post_until_final(
                f"/orders/{sale.order_id}/cancel", buyer, {"reason": "-"}, 200
            )
        if outcome == "delivered":
            await self._deliver(sale)

    @property
    def order_body(self) -> dict[str, Any]:
        return {"product_id": self.product_id, "quantity": 1, "shipping_address": "Market 1"}

    async def _pay(self, sale: Sale) -> None:
        """Confirm the payment until it is captured; a charge may fail when a process is killed."""
        path, status = f"/payments/{sale.order['payment']['payment_id']}/confirm", ""
        while status != "captured":
            paid = await self._post_until_final(
                path, sale.buyer, {"payment_method": "sandbox_ok"}, 200
            )
            status = paid["status"]
            assert status in {"captured", "failed"}, paid

    async def _deliver(self, sale: Sale) -> None:
        path = f"/orders/{sale.order_id}"
        await self.wait_for_order(sale, status="processing")
        parcel = {"carrier": "DHL", "tracking_number": "1"}
        fulfilment = await self._post_until_final(f"{path}/fulfilments", self.admin, parcel, 201)
        path_of_delivery = f"/fulfilments/{fulfilment['fulfilment_id']}/deliver"
        await self._post_until_final(path_of_delivery, self.admin, None, 200)

    async def wait_for_order(self, sale: Sale, **expected: str) -> None:
        status: dict[str, Any] = {}
        async with progress_limit(TIMEOUT_SECONDS) as limit:
            while any(status.get(name) != value for name, value in expected.items()):
                response = await self._send_or_none(
                    "GET", f"/orders/{sale.order_id}/status", sale.buyer
                )
                status = response.json() if response and response.status_code == 200 else {}
                limit.note(status)
                await asyncio.sleep(0.1)

    async def _post_until_final(
        self, path: str, person: Person, body: Any, status: int, key: str | None = None
    ) -> dict[str, Any]:
        """Repeat a POST with the same idempotency key until the response is final.

        Each repetition waits for Retry-After, or RETRY_DELAY_SECONDS after a connection error.
        """
        headers = {"Idempotency-Key": key or secrets.token_hex(16)}
        async with progress_limit(TIMEOUT_SECONDS) as limit:
            while True:
                response = await self._send_or_none(
                    "POST", path, person, json=body, headers=headers
                )
                # progress of other customers also extends the time limit, because on a slow machine
                # their requests delay this one
                limit.note((response and response.status_code, len(self.results.placed)))
                if response is None:
                    await asyncio.sleep(RETRY_DELAY_SECONDS)
                elif response.status_code < 400 or not response.json()["retryable"]:
                    return expect_status(response, status)
                else:
                    self.results.rejected.append(time.monotonic())
                    await asyncio.sleep(float(response.headers["retry-after"]))

    async def _send_or_none(
        self, method: str, path: str, person: Person | None, **options: Any
    ) -> httpx2.Response | None:
        """Send a request. Return None after a connection error."""
        try:
            return await self.send(method, path, person, **options)
        except httpx2.TransportError:
            self.results.broken_connections.append(time.monotonic())
            return None

    async def _read_product(self, stopped: asyncio.Event) -> None:
        """Read the product until stopped."""
        while not stopped.is_set():
            response = await self._send_or_none("GET", f"/products/{self.product_id}", None)
            if response and response.status_code == 200:
                self.results.product_reads.append(time.monotonic())
            await asyncio.sleep(READ_INTERVAL_SECONDS)


def longest_gap(times: list[float], started: float, ended: float) -> float:
    """Return the longest gap in seconds between two consecutive times.

    A gap that lies entirely before `started` or after `ended` is ignored.
    """
    within = [moment for moment in times if started < moment < ended]
    before = max((moment for moment in times if moment <= started), default=started)
    after = min((moment for moment in times if moment >= ended), default=ended)
    marks = [before, *sorted(within), after]
    return max(second - first for first, second in itertools.pairwise(marks))
