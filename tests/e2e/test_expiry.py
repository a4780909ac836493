"""Test that unpaid orders expire and release their stock."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import httpx2
import pytest

from tests.e2e.dedicated_server import dedicated_database, dedicated_server, open_shop
from tests.e2e.restartable_server import RetryingShop, open_restartable_server
from tests.e2e.servers import ADMIN
from tests.e2e.shop import TIMEOUT_SECONDS, Shop, expect_problem, expect_status
from tests.e2e.test_crash import BROKEN, wait_until_idle
from tests.progress import progress_limit

RESERVATION_TTL_SECONDS = 6.0


@pytest.fixture(scope="module", params=["memory", "postgres"])
async def short_ttl_shop(
    request: pytest.FixtureRequest, scratch: Path, server_url: str, template: str
) -> AsyncIterator[Shop]:
    """A shop in which reservations expire after a few seconds."""
    settings, arguments = {"reservation_ttl_seconds": str(RESERVATION_TTL_SECONDS)}, ["--memory"]
    async with AsyncExitStack() as stack:
        if request.param == "postgres":
            url = await stack.enter_async_context(dedicated_database(server_url, template))
            settings["database_url"], arguments = url, []
        server = stack.enter_context(
            dedicated_server(scratch, f"short-ttl-{request.param}", *arguments, **settings)
        )
        yield await stack.enter_async_context(open_shop(server))


async def test_unpaid_order_expires(short_ttl_shop: Shop) -> None:
    buyer, product = await short_ttl_shop.customer(), await short_ttl_shop.product(stock=5)
    order = expect_status(await short_ttl_shop.place(buyer, product["product_id"], quantity=5), 201)
    payment_id = order["payment"]["payment_id"]
    rejected = await short_ttl_shop.place(buyer, product["product_id"])

    expired = await short_ttl_shop.wait_for_status(buyer, order["order_id"], status="expired")

    expect_problem(rejected, 409, "inventory.out_of_stock")
    assert expired["payment_status"] in {"none", "voided"}
    await short_ttl_shop.wait_for_available(product["product_id"], 5)
    payment = expect_status(await short_ttl_shop.get(f"/payments/{payment_id}", buyer), 200)
    assert payment["status"] in {"expired", "cancelled"}
    confirmation = await short_ttl_shop.confirm(buyer, payment_id)
    expect_problem(confirmation, 409, "payments.invalid_transition")
    timeline = expect_status(
        await short_ttl_shop.get(f"/orders/{order['order_id']}/timeline", buyer), 200
    )["items"]
    assert timeline[-1]["status"] == "expired"
    assert timeline[-1]["actor"].startswith("system:")


async def test_expired_stock_can_be_ordered_again(short_ttl_shop: Shop) -> None:
    buyer, product = await short_ttl_shop.customer(), await short_ttl_shop.product(stock=1)
    first = expect_status(await short_ttl_shop.place(buyer, product["product_id"]), 201)
    await short_ttl_shop.wait_for_available(product["product_id"], 1)

    again = expect_status(await short_ttl_shop.place(buyer, product["product_id"]), 201)
    paid = expect_status(await short_ttl_shop.confirm(buyer, again["payment"]["payment_id"]), 200)

    assert paid["status"] == "captured"
    await short_ttl_shop.wait_for_status(buyer, again["order_id"], status="processing")
    await short_ttl_shop.wait_for_status(buyer, first["order_id"], status="expired")


async def test_a_paid_order_does_not_expire(short_ttl_shop: Shop) -> None:
    buyer, product = await short_ttl_shop.customer(), await short_ttl_shop.product(stock=2)
    paid = expect_status(await short_ttl_shop.place(buyer, product["product_id"]), 201)
    expect_status(await short_ttl_shop.confirm(buyer, paid["payment"]["payment_id"]), 200)
    unpaid = expect_status(await short_ttl_shop.place(buyer, product["product_id"]), 201)

    # the unpaid order was placed after the paid order; so when the unpaid order expires, the
    # reservation time of the paid order is over, too
    await short_ttl_shop.wait_for_status(buyer, unpaid["order_id"], status="expired")

    await short_ttl_shop.wait_for_status(
        buyer, paid["order_id"], status="processing", payment_status="paid"
    )
    await short_ttl_shop.wait_for_available(product["product_id"], 1)


async def test_declined_order_expires(short_ttl_shop: Shop) -> None:
    buyer, product = await short_ttl_shop.customer(), await short_ttl_shop.product(stock=1)
    order = expect_status(await short_ttl_shop.place(buyer, product["product_id"]), 201)
    for method in ("sandbox_declined", "sandbox_action_required"):
        expect_status(
            await short_ttl_shop.confirm(buyer, order["payment"]["payment_id"], method), 200
        )

    await short_ttl_shop.wait_for_status(buyer, order["order_id"], status="expired")

    await short_ttl_shop.wait_for_available(product["product_id"], 1)


# a crash after a write to these tables leaves a reservation or a payment without an order
@pytest.mark.parametrize("table", ["inventory.reservation", "payments.payment"])
async def test_reservation_without_order_expires(
    scratch: Path, server_url: str, template: str, table: str
) -> None:
    async with (
        dedicated_database(server_url, template) as url,
        open_restartable_server(
            scratch, url, reservation_ttl_seconds=str(RESERVATION_TTL_SECONDS)
        ) as restartable,
        httpx2.AsyncClient(timeout=20) as http,
    ):
        shop = RetryingShop(restartable, http)
        await shop.sign_in_admin(*ADMIN)
        buyer, product = await shop.customer(), await shop.product(stock=3)
        restartable.kill_at_write(await write_number_of(shop, table), "after")
        body = {"product_id": product["product_id"], "quantity": 3, "shipping_address": "Market 1"}
        with pytest.raises(httpx2.TransportError):
            await Shop(restartable.server, http).post("/orders", buyer, json=body)
        rows = await restartable.database.fetch_value(
            f"SELECT count(*) FROM {table} WHERE order_id IS NOT NULL"
        )
        await restartable.restart()

        await shop.wait_for_available(product["product_id"], 3)

        # one row of the order in `write_number_of`, and one row of the request that was killed
        assert rows == 2
        assert expect_status(await shop.get("/orders", buyer), 200)["items"] == []
        await wait_until_payments_ended(shop)


async def write_number_of(shop: RetryingShop, table: str) -> int:
    """Return the number of the first write to this table during a POST /orders."""
    buyer, product = await shop.customer(), await shop.product()
    shop.restartable.kill_at_write(10**9, "after")
    order = expect_status(await shop.place(buyer, product["product_id"]), 201)
    writes = shop.restartable.written_since_plan()
    # wait until this order has expired, so that the next plan does not count the writes of the
    # expiry
    await shop.wait_for_status(buyer, order["order_id"], status="expired")
    await wait_until_idle(shop)
    # a write is named `TABLE COMMIT` for a transaction, `TABLE` for a single statement
    of_table = [
        number for number, write in enumerate(writes, 1) if write.removesuffix(" COMMIT") == table
    ]
    return of_table[0]


async def wait_until_payments_ended(shop: RetryingShop) -> None:
    """Wait until all payments of orders have ended. Raises TimeoutError."""
    open_payments = (
        "SELECT count(*) FROM payments.payment"
        " WHERE order_id IS NOT NULL AND status NOT IN ('expired', 'cancelled')"
    )
    async with progress_limit(TIMEOUT_SECONDS) as limit:
        while count := await shop.restartable.database.fetch_value(open_payments):
            limit.note(count)
            await asyncio.sleep(0.05)
    assert await shop.restartable.database.fetch_all(BROKEN) == []
