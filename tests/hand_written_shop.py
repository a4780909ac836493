"""A shop on the hand-written purchase of the benchmark, for its tests."""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import count
from typing import Final
from uuid import UUID, uuid4

import asyncpg
import httpx2
from fastapi import FastAPI

from bench.hand_written import books
from bench.hand_written.app import hand_written_app
from bench.hand_written.background import run_periodic_jobs
from bench.hand_written.purchases import Limits
from bench.hand_written.tables import SCHEMA, create_tables, drop_tables
from bench.hand_written.tokens import TokenSigner

ADDRESS: Final = {
    "recipient": "Ada Lovelace",
    "line1": "Market 1",
    "city": "Utrecht",
    "postal_code": "3511 LX",
    "country": "NL",
}
STOCK: Final = 3
CUSTOMERS: Final = 8


@dataclass
class HandWrittenShop:
    app: FastAPI
    http: httpx2.AsyncClient
    database: "asyncpg.Connection[asyncpg.Record]"
    url: str
    signer: TokenSigner
    product_id: UUID
    customers: list[UUID]
    keys: "count[int]" = field(default_factory=count)

    async def post(
        self, path: str, body: object, customer: int = 0, key: str = ""
    ) -> httpx2.Response:
        token = self.signer.sign(self.customers[customer])
        headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": key or self.new_key()}
        return await self.http.post(path, json=body, headers=headers)

    async def place(self, customer: int = 0, key: str = "", quantity: int = 1) -> httpx2.Response:
        lines = [{"product_id": str(self.product_id), "quantity": quantity}]
        body = {"lines": lines, "shipping_address": ADDRESS}
        return await self.post("/orders", body, customer, key)

    async def place_payment(self, customer: int = 0) -> str:
        """Place an order and return the id of its payment."""
        placed = await self.place(customer)
        assert placed.status_code == 201, placed.text
        return str(placed.json()["payment"]["payment_id"])

    async def confirm(
        self, payment_id: str, key: str = "", method: str = "sandbox_ok", customer: int = 0
    ) -> httpx2.Response:
        path, body = f"/payments/{payment_id}/confirm", {"payment_method": method}
        return await self.post(path, body, customer, key)

    async def buy(self, customer: int = 0) -> None:
        confirmed = await self.confirm(await self.place_payment(customer), customer=customer)
        assert confirmed.json()["status"] == "captured", confirmed.text

    def new_key(self) -> str:
        return f"key-{next(self.keys)}"

    async def violations(self) -> dict[str, int]:
        return await books.find_violations(self.url)

    async def statuses(self) -> "Counter[str]":
        return Counter(row["status"] for row in await self.database.fetch("TABLE orders"))

    async def run_periodic_jobs(self) -> None:
        async with asyncpg.create_pool(self.url, server_settings={"search_path": SCHEMA}) as pool:
            await run_periodic_jobs(pool, self.app.state.purchases, timedelta())


@asynccontextmanager
async def open_shop(
    url: str, limits: Limits, stock: int = STOCK, app_url: str = "", poll_seconds: float = 1
) -> AsyncIterator[HandWrittenShop]:
    product_id, customers, signer = uuid4(), [uuid4() for _ in range(CUSTOMERS)], TokenSigner()
    await create_tables(url, [product_id], customers, stock)
    database = await asyncpg.connect(url, server_settings={"search_path": SCHEMA})
    app = hand_written_app(app_url or url, signer.public_key, limits, poll_seconds)
    transport = httpx2.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(transport=transport, base_url="http://app") as http,
    ):
        yield HandWrittenShop(app, http, database, url, signer, product_id, customers)
    await database.close()
    await drop_tables(url)
