"""A shop with orders in all states, and copies of its database that a test may break."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from markethall.container import ApplicationContainer
from markethall.operations.integrity import IntegrityReport, IntegrityRunner
from markethall.secret_keys import load_or_create_secrets
from markethall.settings import read_settings
from markethall.shared.kernel.ids import new_id
from tests.conftest import on_server, url_of
from tests.e2e.servers import ADMIN
from tests.e2e.shop import Shop, expect_status
from tests.partitions.in_process import PartitionedApp, open_partitioned_app
from tests.partitions.partitions import MONOLITH, PARTITIONS


@asynccontextmanager
async def open_shop(
    folder: Path, partition: str = MONOLITH, **settings: Any
) -> AsyncIterator[tuple[Shop, PartitionedApp]]:
    async with open_partitioned_app(PARTITIONS[partition], folder, **settings) as app:
        shop = Shop(app.server, app.http)
        await shop.sign_in_admin(*ADMIN)
        yield shop, app


async def sell_in_all_ways(shop: Shop) -> None:
    """Pay, ship, deliver, refund, cancel and decline orders, and leave two of them pending.

    One of the pending orders has the discount of a voucher.
    """
    buyer = await shop.customer()
    product_id = (await shop.product(stock=50))["product_id"]
    orders = [expect_status(await shop.place(buyer, product_id, 2), 201) for _ in range(5)]
    shipped, cancelled, refunded, declined, _pending = orders
    for order in (shipped, cancelled, refunded):
        expect_status(await shop.confirm(buyer, order["payment"]["payment_id"]), 200)
        await shop.wait_for_status(buyer, order["order_id"], payment_status="paid")
    await shop.confirm(buyer, declined["payment"]["payment_id"], "sandbox_declined")
    await ship(shop, shipped["order_id"])
    path = f"/orders/{cancelled['order_id']}/cancel"
    expect_status(await shop.post(path, buyer, json={"reason": "changed my mind"}), 200)
    await shop.wait_for_status(buyer, cancelled["order_id"], payment_status="refunded")
    body = {"amount": {"amount": 500, "currency": "EUR"}, "reason": "scratched"}
    path = f"/payments/{refunded['payment']['payment_id']}/refunds"
    assert (await shop.post(path, shop.admin, json=body)).is_success
    await shop.wait_for_status(buyer, refunded["order_id"], payment_status="partially_refunded")
    voucher = {"name": "Spring", "kind": "percent", "percent": "10", "code": "SPRING"}
    expect_status(
        await shop.post("/promotions", shop.admin, json=voucher | {"usage_limit": 5}), 201
    )
    voucher_order = {
        "lines": [{"product_id": product_id, "quantity": 1}],
        "shipping_address": "Market 1",
        "voucher_code": "SPRING",
    }
    expect_status(await shop.post("/orders", buyer, json=voucher_order), 201)


async def ship(shop: Shop, order_id: str) -> None:
    body = {"carrier": "post", "tracking_number": "T-1"}
    path = f"/orders/{order_id}/fulfilments"
    assert (await shop.post(path, shop.admin, json=body)).is_success


async def check(container: ApplicationContainer, grace_seconds: float = 0) -> IntegrityReport:
    return await IntegrityRunner(container, grace=timedelta(seconds=grace_seconds)).run()


def wrong_rows(report: IntegrityReport) -> dict[str, list[str]]:
    return {
        result.check: [f"{row.row}: {row.problem}" for row in result.rows]
        for result in report.checks
        if result.violations or result.reason
    }


async def wait_until_sound(container: ApplicationContainer) -> IntegrityReport:
    """Repeat the checks, without grace, until the background work is done and they find nothing."""
    async with asyncio.timeout(60):
        while (report := await check(container)).status != "ok":
            await asyncio.sleep(0.2)
    return report


@pytest.fixture(scope="session")
async def seeded(server_url: str, template: str, scratch: Path) -> AsyncIterator[str]:
    """The name of a database of a shop in which orders were sold in all ways."""
    name = f"seeded_{new_id().hex}"
    await on_server(server_url, f"CREATE DATABASE {name} TEMPLATE {template}")
    folder = scratch / name
    folder.mkdir()
    async with open_shop(folder, database_url=url_of(server_url, name)) as (shop, app):
        await sell_in_all_ways(shop)
        await wait_until_sound(app.containers["orders"])
    yield name
    await on_server(server_url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def own_database_url(server_url: str, seeded: str) -> AsyncIterator[str]:
    """The URL of a copy of the seeded database. No process of the shop uses it."""
    name = f"copy_{new_id().hex}"
    await on_server(server_url, f"CREATE DATABASE {name} TEMPLATE {seeded}")
    yield url_of(server_url, name)
    await on_server(server_url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def container(own_database_url: str, tmp_path: Path) -> AsyncIterator[ApplicationContainer]:
    settings = read_settings(database_url=own_database_url, data_dir=tmp_path)
    container = ApplicationContainer(settings, load_or_create_secrets(settings))
    await container.process.databases().open()
    yield container
    await container.close()
