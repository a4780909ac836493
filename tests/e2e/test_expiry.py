"""What nobody pays for ends by itself, and its goods are for sale again."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import httpx2
import pytest

from tests.e2e.dedicated_server import dedicated_database, dedicated_server, open_shop
from tests.e2e.restartable_server import RetryingShop, open_restartable_server
from tests.e2e.servers import ADMIN
from tests.e2e.shop import PATIENCE, Shop, good, refused
from tests.e2e.test_crash import BROKEN, at_rest

HOLD = 6.0


@pytest.fixture(scope="module", params=["memory", "postgres"])
async def short_ttl_shop(
    request: pytest.FixtureRequest, scratch: Path, server_url: str, template: str
) -> AsyncIterator[Shop]:
    """A shop that holds goods for some seconds."""
    settings, arguments = {"reservation_ttl_seconds": str(HOLD)}, ["--memory"]
    async with AsyncExitStack() as stack:
        if request.param == "postgres":
            url = await stack.enter_async_context(dedicated_database(server_url, template))
            settings["database_url"], arguments = url, []
        server = stack.enter_context(
            dedicated_server(scratch, f"hasty-{request.param}", *arguments, **settings)
        )
        yield await stack.enter_async_context(open_shop(server))


async def test_unpaid_order_expires(short_ttl_shop: Shop) -> None:
    buyer, product = await short_ttl_shop.customer(), await short_ttl_shop.product(stock=5)
    order = good(await short_ttl_shop.place(buyer, product["product_id"], quantity=5), 201)
    payment_id = order["payment"]["payment_id"]
    held = await short_ttl_shop.place(buyer, product["product_id"])

    ended = await short_ttl_shop.wait_for_status(buyer, order["order_id"], status="expired")

    refused(held, 409, "inventory.out_of_stock")
    assert ended["payment_status"] in {"none", "voided"}
    await short_ttl_shop.wait_for_available(product["product_id"], 5)
    payment = good(await short_ttl_shop.get(f"/payments/{payment_id}", buyer), 200)
    assert payment["status"] in {"expired", "cancelled"}
    late = await short_ttl_shop.confirm(buyer, payment_id)
    refused(late, 409, "payments.invalid_transition")
    timeline = good(await short_ttl_shop.get(f"/orders/{order['order_id']}/timeline", buyer), 200)[
        "items"
    ]
    assert timeline[-1]["status"] == "expired"
    assert timeline[-1]["actor"].startswith("system:")


async def test_expired_stock_can_be_ordered_again(short_ttl_shop: Shop) -> None:
    buyer, product = await short_ttl_shop.customer(), await short_ttl_shop.product(stock=1)
    first = good(await short_ttl_shop.place(buyer, product["product_id"]), 201)
    await short_ttl_shop.wait_for_available(product["product_id"], 1)

    again = good(await short_ttl_shop.place(buyer, product["product_id"]), 201)
    paid = good(await short_ttl_shop.confirm(buyer, again["payment"]["payment_id"]), 200)

    assert paid["status"] == "captured"
    await short_ttl_shop.wait_for_status(buyer, again["order_id"], status="processing")
    await short_ttl_shop.wait_for_status(buyer, first["order_id"], status="expired")


async def test_a_paid_order_does_not_expire(short_ttl_shop: Shop) -> None:
    buyer, product = await short_ttl_shop.customer(), await short_ttl_shop.product(stock=2)
    paid = good(await short_ttl_shop.place(buyer, product["product_id"]), 201)
    good(await short_ttl_shop.confirm(buyer, paid["payment"]["payment_id"]), 200)
    unpaid = good(await short_ttl_shop.place(buyer, product["product_id"]), 201)

    # the later one has ended: the time of the earlier one is over too
    await short_ttl_shop.wait_for_status(buyer, unpaid["order_id"], status="expired")

    await short_ttl_shop.wait_for_status(
        buyer, paid["order_id"], status="processing", payment_status="paid"
    )
    await short_ttl_shop.wait_for_available(product["product_id"], 1)


async def test_declined_order_expires(short_ttl_shop: Shop) -> None:
    buyer, product = await short_ttl_shop.customer(), await short_ttl_shop.product(stock=1)
    order = good(await short_ttl_shop.place(buyer, product["product_id"]), 201)
    for method in ("sandbox_declined", "sandbox_action_required"):
        good(await short_ttl_shop.confirm(buyer, order["payment"]["payment_id"], method), 200)

    await short_ttl_shop.wait_for_status(buyer, order["order_id"], status="expired")

    await short_ttl_shop.wait_for_available(product["product_id"], 1)


# which writes of POST /orders leave something behind: the hold, and the hold with a payment
@pytest.mark.parametrize("table", ["inventory.reservation", "payments.payment"])
async def test_reservation_without_order_expires(
    scratch: Path, server_url: str, template: str, table: str
) -> None:
    async with (
        dedicated_database(server_url, template) as url,
        open_restartable_server(scratch, url, reservation_ttl_seconds=str(HOLD)) as restartable,
        httpx2.AsyncClient(timeout=20) as http,
    ):
        shop = RetryingShop(restartable, http)
        await shop.sign_in_admin(*ADMIN)
        buyer, product = await shop.customer(), await shop.product(stock=3)
        restartable.kill_at_write(await place_of(shop, table), "after")
        body = {"product_id": product["product_id"], "quantity": 3, "shipping_address": "Market 1"}
        with pytest.raises(httpx2.TransportError):
            await Shop(restartable.server, http).post("/orders", buyer, json=body)
        left = await restartable.database.fetch_value(
            f"SELECT count(*) FROM {table} WHERE order_id IS NOT NULL"
        )
        await restartable.restart()

        await shop.wait_for_available(product["product_id"], 3)

        assert left == 2  # of the order before, and of the one that never was
        assert good(await shop.get("/orders", buyer), 200)["items"] == []
        await nothing_open(shop)


async def place_of(shop: RetryingShop, table: str) -> int:
    """The so manieth write of an order is the one into this table."""
    buyer, product = await shop.customer(), await shop.product()
    shop.restartable.kill_at_write(10**9, "after")
    order = good(await shop.place(buyer, product["product_id"]), 201)
    writes = shop.restartable.written_since_plan()
    # that order has to end first: what it writes in doing so would be counted
    await shop.wait_for_status(buyer, order["order_id"], status="expired")
    await at_rest(shop)
    # of a transaction, or of one statement alone
    of_table = [at for at, what in enumerate(writes, 1) if what.removesuffix(" COMMIT") == table]
    return of_table[0]


async def nothing_open(shop: RetryingShop) -> None:
    """The payment that nobody will pay ends as well."""
    waiting = (
        "SELECT count(*) FROM payments.payment"
        " WHERE order_id IS NOT NULL AND status NOT IN ('expired', 'cancelled')"
    )
    async with asyncio.timeout(PATIENCE):
        while await shop.restartable.database.fetch_value(waiting) != 0:
            await asyncio.sleep(0.05)
    assert await shop.restartable.database.fetch_all(BROKEN) == []
