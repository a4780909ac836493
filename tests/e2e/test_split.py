"""Test tests/e2e/split_cluster.py: separate processes that reach each other by URL."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.e2e.dedicated_server import dedicated_database, open_shop
from tests.e2e.shop import Shop, expect_status
from tests.e2e.split_cluster import ServiceProcess, SplitCluster, plan_cluster, split_cluster

THREE_SERVICES = [{"orders", "payments"}, {"users"}, {"inventory"}]


@pytest.fixture(scope="module")
async def cluster(
    scratch: Path, server_url: str, template: str, redis_url: str
) -> AsyncIterator[SplitCluster]:
    async with (
        dedicated_database(server_url, template) as url,
        split_cluster(scratch / "split-harness", THREE_SERVICES, url, redis_url) as cluster,
    ):
        yield cluster


@pytest.fixture
async def shop(cluster: SplitCluster) -> AsyncIterator[Shop]:
    async with open_shop(cluster.server) as shop:
        yield shop


async def test_an_order_is_paid_and_cancelled_across_processes(shop: Shop) -> None:
    buyer, product = await shop.customer(), await shop.product(stock=5)

    order = expect_status(await shop.place(buyer, product["product_id"], 2), 201)
    expect_status(await shop.confirm(buyer, order["payment"]["payment_id"]), 200)
    await shop.wait_for_status(buyer, order["order_id"], status="processing")
    expect_status(
        await shop.post(f"/orders/{order['order_id']}/cancel", buyer, json={"reason": "-"}), 200
    )
    await shop.wait_for_status(
        buyer, order["order_id"], status="cancelled", payment_status="refunded"
    )

    await shop.wait_for_available(product["product_id"], 5)
    assert len(set(shop.server.pids)) == 3


async def test_killed_service_restarts_with_same_keys(cluster: SplitCluster, shop: Shop) -> None:
    users, pid = cluster.service("users"), cluster.service("users").pid

    users.kill()
    with pytest.raises(httpx2.TransportError):
        await shop.get("/users/me", shop.admin)
    await users.restart()

    # a token signed before the kill is still valid
    expect_status(await shop.get("/users/me", shop.admin), 200)
    assert users.pid != pid
    assert users.pid in cluster.server.pids


async def test_suspended_service_answers_only_after_resume(
    cluster: SplitCluster, shop: Shop
) -> None:
    payments = cluster.service("payments")

    payments.stop()
    with pytest.raises(httpx2.ReadTimeout):
        await shop.get("/payments", shop.admin, timeout=0.5)
    payments.cont()

    expect_status(await shop.get("/payments", shop.admin), 200)


def test_planned_remotes_point_to_services_or_detour(tmp_path: Path) -> None:
    cluster = plan_cluster(
        tmp_path, THREE_SERVICES, "", detours={("orders", "users"): "http://127.0.0.1:1"}
    )

    url = cluster.urls
    assert url["orders"] == url["payments"]
    assert remotes(cluster.service("payments")) == {
        "users": "http://127.0.0.1:1",
        "inventory": url["inventory"],
    }
    assert remotes(cluster.service("inventory")) == {
        c: url[c] for c in ("users", "orders", "payments")
    }


def remotes(service: ServiceProcess) -> Any:
    return json.loads(service.environment["MARKETHALL_CONTEXT_URLS"])
