"""Customers who come at their own pace, each to buy one thing, and do not give up.

What fails for a while is tried again with the same key, as a sane client does. All that was told
is kept, so that the books can be held against it.
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

from tests.e2e.shop import Person, Shop, good

PATIENCE = 120
AMOUNT = 700
AGAIN = 0.2  # before asking again where nobody was there
LOOK = 0.1  # between two looks at the product


@dataclass(frozen=True)
class Sale:
    """What a customer was told, and what became of it."""

    buyer: Person
    key: str
    order: dict[str, Any]
    fate: str

    @property
    def order_id(self) -> str:
        return str(self.order["order_id"])


@dataclass
class ReceivedResponse:
    """Times by time.monotonic()."""

    placed: list[float] = field(default_factory=list)
    seen: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    unheard: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    sales: list[Sale] = field(default_factory=list)


# every fourth is fetched, every fourth is regretted, the others wait for their parcel
FATES = ("paid", "delivered", "paid", "cancelled")


class RelocationLoad(Shop):
    def __init__(self, shop: Shop, buyers: list[Person], product_id: str, pace: float) -> None:
        super().__init__(shop.server, shop.http)
        self.admin = shop.admin
        self.buyers = buyers
        self.product_id = product_id
        self.pace = pace
        self.told = ReceivedResponse()
        self._come = 0

    @asynccontextmanager
    async def coming(self) -> AsyncIterator[None]:
        """While it lasts they come; at its end those who are there finish."""
        closing = asyncio.Event()
        async with asyncio.TaskGroup() as people:
            people.create_task(self._looks(closing))
            people.create_task(self._come_and_go(people, closing))
            try:
                yield
            finally:
                closing.set()

    async def _come_and_go(self, people: asyncio.TaskGroup, closing: asyncio.Event) -> None:
        while not closing.is_set():
            number, self._come = self._come, self._come + 1
            people.create_task(self._is_served(number))
            await asyncio.sleep(self.pace)

    async def _is_served(self, number: int) -> None:
        try:
            await self._buys(self.buyers[number % len(self.buyers)], FATES[number % len(FATES)])
        except (AssertionError, TimeoutError) as error:
            self.told.failed.append(repr(error))

    async def _buys(self, buyer: Person, fate: str) -> None:
        key, body = secrets.token_hex(8), self.wish
        order = await self._insists("/orders", buyer, body, 201, key)
        self.told.placed.append(time.monotonic())
        sale = Sale(buyer, key, order, fate)
        self.told.sales.append(sale)
        await self._pays(sale)
        if fate == "cancelled":
            await self._insists(f"/orders/{sale.order_id}/cancel", buyer, {"reason": "-"}, 200)
        if fate == "delivered":
            await self._fetches(sale)

    @property
    def wish(self) -> dict[str, Any]:
        return {"product_id": self.product_id, "quantity": 1, "shipping_address": "Market 1"}

    async def _pays(self, sale: Sale) -> None:
        """A charge that died on its way may have been given up for good: then pay again."""
        path, status = f"/payments/{sale.order['payment']['payment_id']}/confirm", ""
        while status != "captured":
            paid = await self._insists(path, sale.buyer, {"payment_method": "sandbox_ok"}, 200)
            status = paid["status"]
            assert status in {"captured", "failed"}, paid

    async def _fetches(self, sale: Sale) -> None:
        path = f"/orders/{sale.order_id}"
        await self.reaches(sale, status="processing")
        parcel = {"carrier": "DHL", "tracking_number": "1"}
        sent = await self._insists(f"{path}/fulfilments", self.admin, parcel, 201)
        delivered = f"/fulfilments/{sent['fulfilment_id']}/deliver"
        await self._insists(delivered, self.admin, None, 200)

    async def reaches(self, sale: Sale, **expected: str) -> None:
        status: dict[str, Any] = {}
        async with asyncio.timeout(PATIENCE):
            while any(status.get(name) != value for name, value in expected.items()):
                answer = await self._heard("GET", f"/orders/{sale.order_id}/status", sale.buyer)
                status = answer.json() if answer and answer.status_code == 200 else {}
                await asyncio.sleep(0.1)

    async def _insists(
        self, path: str, who: Person, body: Any, status: int, key: str | None = None
    ) -> dict[str, Any]:
        """With one key, until there is a last word; again when the answer allows it."""
        headers = {"Idempotency-Key": key or secrets.token_hex(8)}
        async with asyncio.timeout(PATIENCE):
            while True:
                answer = await self._heard("POST", path, who, json=body, headers=headers)
                if answer is None:
                    await asyncio.sleep(AGAIN)
                elif answer.status_code < 400 or not answer.json()["retryable"]:
                    return good(answer, status)
                else:
                    self.told.refused.append(time.monotonic())
                    await asyncio.sleep(float(answer.headers["retry-after"]))

    async def _heard(
        self, method: str, path: str, who: Person | None, **options: Any
    ) -> httpx2.Response | None:
        """None: the connection broke."""
        try:
            return await self.send(method, path, who, **options)
        except httpx2.TransportError:
            self.told.unheard.append(time.monotonic())
            return None

    async def _looks(self, closing: asyncio.Event) -> None:
        """Somebody only wants to see the product."""
        while not closing.is_set():
            answer = await self._heard("GET", f"/products/{self.product_id}", None)
            if answer and answer.status_code == 200:
                self.told.seen.append(time.monotonic())
            await asyncio.sleep(LOOK)


def longest_gap(times: list[float], begun: float, ended: float) -> float:
    """The longest time between two of them of which a part lies between `begun` and `ended`."""
    inside = [moment for moment in times if begun < moment < ended]
    before = max((moment for moment in times if moment <= begun), default=begun)
    after = min((moment for moment in times if moment >= ended), default=ended)
    marks = [before, *sorted(inside), after]
    return max(later - sooner for sooner, later in itertools.pairwise(marks))
