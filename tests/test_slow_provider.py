"""Test that a payment waiting for its provider holds no database connection or shared slot."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
from dependency_injector import providers

from markethall.app import Gateway, create_app
from markethall.payments.container import PaymentsContainer
from markethall.settings import read_settings
from tests.test_app import ADMIN
from tests.test_overload import customer_of, place_order, staff_of, stocked_product

PAYMENTS = 64
POOL_SIZE = 4


class WaitingProvider:
    """Replaces the sleep of the sandbox, so that payments by `sandbox_slow` wait for `release`."""

    def __init__(self) -> None:
        self.waiting = 0
        self.release = asyncio.Event()

    async def sleep(self, _: float) -> None:
        self.waiting += 1
        await self.release.wait()

    async def wait_for(self, calls: int) -> None:
        """Wait until this number of calls has arrived. Raises TimeoutError after 30 s."""
        async with asyncio.timeout(30):
            while self.waiting < calls:
                await asyncio.sleep(0.001)


@asynccontextmanager
async def serving(
    database_url: str, folder: Any, provider: WaitingProvider
) -> AsyncIterator[Gateway]:
    app = create_app(
        read_settings(
            database_url=database_url,
            data_dir=folder,
            database_pool_min=POOL_SIZE,
            database_pool_max=POOL_SIZE,
            max_unpaid_orders_per_customer=PAYMENTS,
            payment_provider_max_concurrent_calls=PAYMENTS + 1,
            # seconds; longer than the test, so that no timeout ends the waiting payments
            payment_provider_timeout_seconds=60,
            request_deadline_seconds=60,
            cache="off",
            **ADMIN,
        )
    )
    payments = app.container.context("payments", PaymentsContainer)
    payments.sleep.override(providers.Object(provider.sleep))
    async with app.lifespan():
        yield app


async def test_waiting_payments_leave_the_database_to_other_requests(
    database_url: str, tmp_path: Any
) -> None:
    """64 payments wait in a process with four database connections. All other requests succeed."""
    provider = WaitingProvider()
    async with (
        serving(database_url, tmp_path, provider) as app,
        staff_of(app) as staff,
        customer_of(app, 1) as slow,
        customer_of(app, 2) as other,
    ):
        product_id = await stocked_product(staff)
        orders = [await place_order(slow, product_id, f"order-{n}") for n in range(PAYMENTS)]
        confirms = []
        # one after the other, because the queue of the process holds few requests
        for order in orders:
            confirms.append(asyncio.create_task(confirm(slow, order, "sandbox_slow")))
            await provider.wait_for(len(confirms))
        await wait_until_pool_is_free(app)
        reads = await asyncio.gather(
            *(other.get(f"/products/{product_id}") for _ in range(POOL_SIZE * 2))
        )
        own = await slow.get(f"/payments/{orders[0].json()['payment']['payment_id']}")
        order = await place_order(other, product_id, "other")
        paid = await confirm(other, order, "sandbox_ok")
        beside = provider.waiting
        provider.release.set()
        confirmed = [(await each).json() for each in confirms]

    assert {read.status_code for read in reads} == {200}
    assert own.json()["status"] == "processing"
    assert (paid.status_code, paid.json().get("status")) == (200, "captured")
    assert beside == PAYMENTS
    assert {payment["status"] for payment in confirmed} == {"captured"}


async def confirm(http: httpx2.AsyncClient, order: httpx2.Response, method: str) -> httpx2.Response:
    payment_id = order.json()["payment"]["payment_id"]
    return await http.post(
        f"/payments/{payment_id}/confirm",
        json={"payment_method": method},
        headers={"Idempotency-Key": f"confirm-{payment_id}"},
    )


async def wait_until_pool_is_free(app: Gateway) -> None:
    """Wait until no connection is in use. Background work uses connections only for moments.

    Raises TimeoutError after 30 s, for example if a waiting payment holds a connection.
    """
    url = app.container.settings.database_url_of("payments")
    postgres = app.container.process.databases().get(url)
    async with asyncio.timeout(30):
        while postgres.connections_in_use:
            await asyncio.sleep(0.005)
