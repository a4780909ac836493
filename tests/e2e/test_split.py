"""The harness of the split: every process is its own, and knows the others by address alone."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.e2e.dedicated_server import dedicated_database, open_shop
from tests.e2e.shop import Shop, good
from tests.e2e.split_cluster import ServiceProcess, SplitCluster, plan_cluster, split_cluster

THREE = [{"orders", "payments"}, {"users"}, {"inventory"}]


@pytest.fixture(scope="module")
async def split(
    scratch: Path, server_url: str, template: str, redis_url: str
) -> AsyncIterator[SplitCluster]:
    async with (
        dedicated_database(server_url, template) as url,
        split_cluster(scratch / "split-harness", THREE, url, redis_url) as split,
    ):
        yield split


@pytest.fixture
async def shop(split: SplitCluster) -> AsyncIterator[Shop]:
    async with open_shop(split.server) as shop:
        yield shop


async def test_an_order_is_paid_and_cancelled_across_processes(shop: Shop) -> None:
    buyer, product = await shop.customer(), await shop.product(stock=5)

    order = good(await shop.place(buyer, product["product_id"], 2), 201)
    good(await shop.confirm(buyer, order["payment"]["payment_id"]), 200)
    await shop.wait_for_status(buyer, order["order_id"], status="processing")
    good(await shop.post(f"/orders/{order['order_id']}/cancel", buyer, json={"reason": "-"}), 200)
    await shop.wait_for_status(
        buyer, order["order_id"], status="cancelled", payment_status="refunded"
    )

    await shop.wait_for_available(product["product_id"], 5)
    assert len(set(shop.server.pids)) == 3


async def test_killed_service_restarts_with_same_keys(split: SplitCluster, shop: Shop) -> None:
    users, pid = split.service("users"), split.service("users").pid

    users.kill()
    with pytest.raises(httpx2.TransportError):
        await shop.get("/users/me", shop.admin)
    await users.restart()

    # the token was signed before the end
    good(await shop.get("/users/me", shop.admin), 200)
    assert users.pid != pid
    assert users.pid in split.server.pids


async def test_suspended_service_answers_only_after_resume(split: SplitCluster, shop: Shop) -> None:
    payments = split.service("payments")

    payments.stop()
    with pytest.raises(httpx2.ReadTimeout):
        await shop.get("/payments", shop.admin, timeout=0.5)
    payments.cont()

    good(await shop.get("/payments", shop.admin), 200)


def test_planned_remotes_point_to_services_or_detour(tmp_path: Path) -> None:
    split = plan_cluster(tmp_path, THREE, "", via={("orders", "users"): "http://127.0.0.1:1"})

    url = split.urls
    assert url["orders"] == url["payments"]
    assert remotes(split.service("payments")) == {
        "users": "http://127.0.0.1:1",
        "inventory": url["inventory"],
    }
    assert remotes(split.service("inventory")) == {
        c: url[c] for c in ("users", "orders", "payments")
    }


def remotes(part: ServiceProcess) -> Any:
    return json.loads(part.environment["MARKETHALL_CONTEXT_URLS"])
