"""A small steady crowd: customers who buy and try again as sane clients do, and bystanders.

Every answer is noted with its time, so that a test can judge all of them afterwards.
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
from tests.e2e.shop import Person, Shop, good

AMOUNT = 700
CUSTOMERS = 3
SECONDS_BETWEEN_ACTIONS = (
    0.2  # seconds between two purchases of a customer, and between two looks of a bystander
)
TIMEOUT_SECONDS = 90
RETRY_DELAY_SECONDS = 0.2  # before asking again where nobody was there

Ask = Callable[[], Awaitable[httpx2.Response]]


@dataclass(frozen=True)
class Answer:
    """What came back, if anything. Times by time.monotonic()."""

    what: str
    context: str
    begun: float
    ended: float
    response: httpx2.Response | None

    @property
    def status(self) -> int:
        """0: there was nobody."""
        return self.response.status_code if self.response else 0

    @property
    def seconds(self) -> float:
        return self.ended - self.begun

    @property
    def retry_after(self) -> float | None:
        """As an answer says that may be asked for again."""
        if self.response is None or self.status not in {409, 503}:
            return None
        wait = self.response.headers.get("retry-after")
        return float(wait) if wait and self.response.json()["retryable"] else None

    @property
    def text(self) -> str:
        return self.response.text if self.response else ""


Look = Callable[[], Awaitable[Answer]]


@dataclass(frozen=True)
class Sale:
    """An order that was acknowledged, and paid; cancelled again or not."""

    buyer: Person
    order_id: str
    payment_id: str
    cancelled: bool


class LoadGenerator(Shop):
    """A shop that is watched: who asked what, and what came back, and when."""

    def __init__(self, shop: Shop, buyers: list[Person]) -> None:
        super().__init__(shop.server, shop.http)
        self.admin = shop.admin
        self.buyers = buyers
        self.answers: list[Answer] = []
        self.sales: list[Sale] = []
        self.product_id = ""
        self._settled = 0

    async def logged_server(self, what: str, path: str, ask: Ask) -> Answer:
        begun = time.monotonic()
        response: httpx2.Response | None = None
        with suppress(httpx2.TransportError):
            response = await ask()
        answer = Answer(what, owning_context(path), begun, time.monotonic(), response)
        self.answers.append(answer)
        return answer

    async def post_until_answered(
        self, what: str, path: str, who: Person, body: Any = None
    ) -> dict[str, Any]:
        """With one key, until there is a last word; as soon again as the answer allows."""
        key = secrets.token_hex(8)
        async with asyncio.timeout(TIMEOUT_SECONDS):
            while True:
                told = await self.logged_server(
                    what, path, lambda: self.post(path, who, key, json=body)
                )
                wait = told.retry_after if told.response else RETRY_DELAY_SECONDS
                if told.response and wait is None:
                    return good(
                        told.response, 200 if what in {"confirm", "cancel", "deliver"} else 201
                    )
                await asyncio.sleep(wait or RETRY_DELAY_SECONDS)

    async def opens(self, stock: int) -> None:
        """A new day with a new product; the first order comes at once."""
        self.answers, self.sales = [], []
        self._settled = 0
        self.product_id = (await self.product(stock=stock, amount=AMOUNT))["product_id"]
        await self.buys(self.buyers[0])

    @asynccontextmanager
    async def shopping(self) -> AsyncIterator[None]:
        """While it lasts they come and go, and at its end they finish what they have begun."""
        closing, before = asyncio.Event(), len(self.answers)
        looks = self.bystanders(self.sales[0])
        async with asyncio.TaskGroup() as people:
            for buyer in self.buyers:
                people.create_task(self.shops(buyer, closing))
            for look in looks:
                people.create_task(self.stands_by(look, closing))
            while len(self.answers) < before + len(looks):
                await asyncio.sleep(0.01)
            try:
                yield
            finally:
                closing.set()

    # customers

    async def shops(self, buyer: Person, closing: asyncio.Event) -> None:
        """Every third purchase is regretted. What was begun is brought to its end."""
        while not closing.is_set():
            await self.buys(buyer, regrets=len(self.sales) % 3 == 2)
            await asyncio.sleep(SECONDS_BETWEEN_ACTIONS)

    async def buys(self, buyer: Person, *, regrets: bool = False) -> None:
        order = await self.places(buyer)
        await self.pays(buyer, order)
        if regrets:
            path = f"/orders/{order['order_id']}/cancel"
            await self.post_until_answered("cancel", path, buyer, {"reason": "-"})
        self.sold(buyer, order, regrets=regrets)

    def sold(self, buyer: Person, order: dict[str, Any], *, regrets: bool = False) -> None:
        """Acknowledged and paid: from here on nothing of it may be lost."""
        payment_id = order["payment"]["payment_id"]
        self.sales.append(Sale(buyer, order["order_id"], payment_id, regrets))

    async def places(self, buyer: Person) -> dict[str, Any]:
        body = {"product_id": self.product_id, "quantity": 1, "shipping_address": "Market 1"}
        return await self.post_until_answered("place", "/orders", buyer, body)

    async def pays(self, buyer: Person, order: dict[str, Any]) -> None:
        """A charge that died on its way may have been given up for good: then pay again."""
        path, status = f"/payments/{order['payment']['payment_id']}/confirm", ""
        while status != "captured":
            paid = await self.post_until_answered(
                "confirm", path, buyer, {"payment_method": "sandbox_ok"}
            )
            status = paid["status"]
            assert status in {"captured", "failed"}, paid

    async def settle(self) -> None:
        """Every order to the end of its way: delivered, or its money back."""
        open_ones, self._settled = self.sales[self._settled :], len(self.sales)
        await asyncio.gather(*map(self._settle, open_ones))

    async def _settle(self, sale: Sale) -> None:
        if sale.cancelled:
            await self._reaches(sale, status="cancelled", payment_status="refunded")
            return
        await self._reaches(sale, status="processing")
        parcel = {"carrier": "DHL", "tracking_number": "1"}
        path = f"/orders/{sale.order_id}/fulfilments"
        sent = await self.post_until_answered("fulfil", path, self.admin, parcel)
        await self.post_until_answered(
            "deliver", f"/fulfilments/{sent['fulfilment_id']}/deliver", self.admin
        )

    async def _reaches(self, sale: Sale, **expected: str) -> None:
        path = f"/orders/{sale.order_id}/status"
        status: dict[str, Any] = {}
        while any(status.get(name) != value for name, value in expected.items()):
            told = await self.logged_server("order", path, lambda: self.get(path, sale.buyer))
            if told.response and told.status == 200:
                status = told.response.json()
            await asyncio.sleep(0.05)

    # bystanders

    async def is_served(self) -> None:
        """Everybody, with everything; asks again until it is so."""
        for look in self.bystanders(self.sales[0]):
            while (await look()).status != 200:
                await asyncio.sleep(RETRY_DELAY_SECONDS)

    def bystanders(self, sale: Sale) -> list[Look]:
        """What others do meanwhile, one look each."""
        product, order = f"/products/{self.product_id}", f"/orders/{sale.order_id}"
        looks: dict[str, tuple[str, Person | None]] = {
            "product": (product, None),
            "products": ("/products?limit=5", None),
            "stock": (f"{product}/stock", self.admin),
            "me": ("/users/me", sale.buyer),
            "order": (order, sale.buyer),
            "orders": ("/orders?limit=5", sale.buyer),
            "payment": (f"/payments/{sale.payment_id}", sale.buyer),
        }
        return [self._looks(*look) for look in looks.items()] + [lambda: self._signs_in(sale.buyer)]

    def _looks(self, what: str, where: tuple[str, Person | None]) -> Look:
        return lambda: self.logged_server(what, where[0], lambda: self.get(*where))

    async def _signs_in(self, who: Person) -> Answer:
        form = {"grant_type": "password", "username": who.name, "password": who.password}
        return await self.logged_server(
            "login", "/token", lambda: self.send("POST", "/token", data=form)
        )

    async def stands_by(self, look: Look, closing: asyncio.Event) -> None:
        while not closing.is_set():
            await look()
            await asyncio.sleep(SECONDS_BETWEEN_ACTIONS)
