"""A constant load: customers buy products, and other clients only read.

A customer repeats a failed request with the same idempotency key. Every response is recorded with
its time, so that a test can check all responses afterwards.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import httpx2

from tests.e2e.servers import owning_context
from tests.e2e.shop import Person, Shop, expect_status
from tests.progress import ProgressLimit, progress_limit

AMOUNT = 700
CUSTOMERS = 3
SECONDS_BETWEEN_ACTIONS = 0.2  # between purchases of one customer, or reads of one client
TIMEOUT_SECONDS = 90
RETRY_DELAY_SECONDS = 0.2  # after a connection error

Send = Callable[[], Awaitable[httpx2.Response]]


@dataclass(frozen=True)
class LoggedResponse:
    """The result of a request. Times are those of time.monotonic()."""

    operation: str
    context: str
    started: float
    ended: float
    response: httpx2.Response | None

    @property
    def status(self) -> int:
        """The status code of the response, or 0 after a connection error."""
        return self.response.status_code if self.response else 0

    @property
    def seconds(self) -> float:
        return self.ended - self.started

    @property
    def retry_after(self) -> float | None:
        """The seconds to wait before a retry, or None if the response allows no retry."""
        if self.response is None or self.status not in {409, 503}:
            return None
        delay = self.response.headers.get("retry-after")
        return float(delay) if delay and self.response.json()["retryable"] else None

    @property
    def text(self) -> str:
        return self.response.text if self.response else ""


Read = Callable[[], Awaitable[LoggedResponse]]


@dataclass(frozen=True)
class Sale:
    """A paid order; `cancelled` means that the customer has cancelled it after the payment.

    The server has acknowledged the payment and the cancellation.
    """

    buyer: Person
    order_id: str
    payment_id: str
    cancelled: bool


class LoadGenerator(Shop):
    """A shop client that records every request with its response and times."""

    def __init__(self, shop: Shop, buyers: list[Person]) -> None:
        super().__init__(shop.server, shop.http)
        self.admin = shop.admin
        self.buyers = buyers
        self.responses: list[LoggedResponse] = []
        self.sales: list[Sale] = []
        self.product_id = ""
        self._settled_count = 0

    async def send_logged(self, operation: str, path: str, send_request: Send) -> LoggedResponse:
        started = time.monotonic()
        response: httpx2.Response | None = None
        with suppress(httpx2.TransportError):
            response = await send_request()
        ended = time.monotonic()
        logged = LoggedResponse(operation, owning_context(path), started, ended, response)
        self.responses.append(logged)
        return logged

    async def post_until_answered(
        self, operation: str, path: str, person: Person, body: Any = None
    ) -> dict[str, Any]:
        """Repeat a POST with the same idempotency key until the response is final.

        Each repetition waits for Retry-After, or RETRY_DELAY_SECONDS after a connection error.
        """
        key = secrets.token_hex(16)
        async with progress_limit(TIMEOUT_SECONDS) as limit:
            while True:
                result = await self.send_logged(
                    operation, path, lambda: self.post(path, person, key, json=body)
                )
                # progress of other customers also extends the time limit, because on a slow machine
                # their requests delay this one
                status = result.response and result.response.status_code
                limit.note((status, len(self.sales), self._settled_count))
                delay = result.retry_after if result.response else RETRY_DELAY_SECONDS
                if result.response and delay is None:
                    return expect_status(
                        result.response,
                        200 if operation in {"confirm", "cancel", "deliver"} else 201,
                    )
                await asyncio.sleep(delay or RETRY_DELAY_SECONDS)

    async def start_round(self, stock: int) -> None:
        """Start a round with a new product and a first order."""
        self.responses, self.sales = [], []
        self._settled_count = 0
        self.product_id = (await self.product(stock=stock, amount=AMOUNT))["product_id"]
        await self.buy(self.buyers[0])

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run customers and readers during the block; then the customers finish their orders."""
        stopped, before = asyncio.Event(), len(self.responses)
        reads = self.reads_of(self.sales[0])
        async with asyncio.TaskGroup() as tasks:
            for buyer in self.buyers:
                tasks.create_task(self.buy_repeatedly(buyer, stopped))
            for read in reads:
                tasks.create_task(self.read_repeatedly(read, stopped))
            while len(self.responses) < before + len(reads):
                await asyncio.sleep(0.01)
            try:
                yield
            finally:
                stopped.set()

    # Customers

    async def buy_repeatedly(self, buyer: Person, stopped: asyncio.Event) -> None:
        """Buy until stopped; every third order is cancelled."""
        while not stopped.is_set():
            await self.buy(buyer, cancels=len(self.sales) % 3 == 2)
            await asyncio.sleep(SECONDS_BETWEEN_ACTIONS)

    async def buy(self, buyer: Person, *, cancels: bool = False) -> None:
        order = await self.place_order(buyer)
        await self.pay(buyer, order)
        if cancels:
            path = f"/orders/{order['order_id']}/cancel"
            await self.post_until_answered("cancel", path, buyer, {"reason": "-"})
        self.record_sale(buyer, order, cancels=cancels)

    def record_sale(self, buyer: Person, order: dict[str, Any], *, cancels: bool = False) -> None:
        """Record an acknowledged and paid order; the final check fails if it is lost."""
        payment_id = order["payment"]["payment_id"]
        self.sales.append(Sale(buyer, order["order_id"], payment_id, cancels))

    async def place_order(self, buyer: Person) -> dict[str, Any]:
        body = {"product_id": self.product_id, "quantity": 1, "shipping_address": "Market 1"}
        return await self.post_until_answered("place", "/orders", buyer, body)

    async def pay(self, buyer: Person, order: dict[str, Any]) -> None:
        """Pay the order. Pay again if the charge fails, which may happen after a fault."""
        path, status = f"/payments/{order['payment']['payment_id']}/confirm", ""
        while status != "captured":
            paid = await self.post_until_answered(
                "confirm", path, buyer, {"payment_method": "sandbox_ok"}
            )
            status = paid["status"]
            assert status in {"captured", "failed"}, paid

    async def settle_orders(self) -> None:
        """Deliver every paid order, and wait until every cancelled order is refunded."""
        unsettled, self._settled_count = self.sales[self._settled_count :], len(self.sales)
        async with progress_limit(TIMEOUT_SECONDS) as limit:
            await asyncio.gather(*(self._settle_order(sale, limit) for sale in unsettled))

    async def _settle_order(self, sale: Sale, limit: ProgressLimit) -> None:
        if sale.cancelled:
            ended = {"status": "cancelled", "payment_status": "refunded"}
            await self._wait_for_order(sale, limit, **ended)
            return
        await self._wait_for_order(sale, limit, status="processing")
        parcel = {"carrier": "DHL", "tracking_number": "1"}
        path = f"/orders/{sale.order_id}/fulfilments"
        fulfilment = await self.post_until_answered("fulfil", path, self.admin, parcel)
        await self.post_until_answered(
            "deliver", f"/fulfilments/{fulfilment['fulfilment_id']}/deliver", self.admin
        )
        limit.note(sale.order_id)

    async def _wait_for_order(self, sale: Sale, limit: ProgressLimit, **expected: str) -> None:
        path = f"/orders/{sale.order_id}/status"
        status: dict[str, Any] = {}
        while any(status.get(name) != value for name, value in expected.items()):
            result = await self.send_logged("order", path, lambda: self.get(path, sale.buyer))
            if result.response and result.status == 200:
                status = result.response.json()
                limit.note(status)
            await asyncio.sleep(0.05)

    # Readers

    async def wait_until_served(self) -> None:
        """Wait until every read succeeds."""
        for read in self.reads_of(self.sales[0]):
            while (await read()).status != 200:
                await asyncio.sleep(RETRY_DELAY_SECONDS)

    def reads_of(self, sale: Sale) -> list[Read]:
        """Return one read request for each kind of reader."""
        product, order = f"/products/{self.product_id}", f"/orders/{sale.order_id}"
        reads: dict[str, tuple[str, Person | None]] = {
            "product": (product, None),
            "products": ("/products?limit=5", None),
            "stock": (f"{product}/stock", self.admin),
            "me": ("/users/me", sale.buyer),
            "order": (order, sale.buyer),
            "orders": ("/orders?limit=5", sale.buyer),
            "payment": (f"/payments/{sale.payment_id}", sale.buyer),
        }
        return [self._read_of(*read) for read in reads.items()] + [lambda: self._log_in(sale.buyer)]

    def _read_of(self, operation: str, target: tuple[str, Person | None]) -> Read:
        return lambda: self.send_logged(operation, target[0], lambda: self.get(*target))

    async def _log_in(self, person: Person) -> LoggedResponse:
        form = {"grant_type": "password", "username": person.name, "password": person.password}
        return await self.send_logged(
            "login", "/token", lambda: self.send("POST", "/token", data=form)
        )

    async def read_repeatedly(self, read: Read, stopped: asyncio.Event) -> None:
        while not stopped.is_set():
            await read()
            await asyncio.sleep(SECONDS_BETWEEN_ACTIONS)
