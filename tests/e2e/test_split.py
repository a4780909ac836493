"""The harness of the split: every process is its own, and knows the others by address alone."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.e2e.own import own_database, visiting
from tests.e2e.shop import Shop, good
from tests.e2e.split import Part, Split, planned, split_hall

THREE = [{"orders", "payments"}, {"users"}, {"inventory"}]


@pytest.fixture(scope="module")
async def split(
    scratch: Path, server_url: str, template: str, redis_url: str
) -> AsyncIterator[Split]:
    async with (
        own_database(server_url, template) as url,
        split_hall(scratch / "split-harness", THREE, url, redis_url) as split,
    ):
        yield split


@pytest.fixture
async def shop(split: Split) -> AsyncIterator[Shop]:
    async with visiting(split.hall) as shop:
        yield shop


async def test_an_order_is_paid_and_cancelled_across_processes(shop: Shop) -> None:
    buyer, product = await shop.customer(), await shop.product(stock=5)

    order = good(await shop.place(buyer, product["product_id"], 2), 201)
    good(await shop.confirm(buyer, order["payment"]["payment_id"]), 200)
    await shop.until(buyer, order["order_id"], status="processing")
    good(await shop.post(f"/orders/{order['order_id']}/cancel", buyer, json={"reason": "-"}), 200)
    await shop.until(buyer, order["order_id"], status="cancelled", payment_status="refunded")

    await shop.until_available(product["product_id"], 5)
    assert len(set(shop.hall.pids)) == 3


async def test_a_part_is_killed_and_comes_back_with_its_keys(split: Split, shop: Shop) -> None:
    users, pid = split.of("users"), split.of("users").pid

    users.kill()
    with pytest.raises(httpx2.TransportError):
        await shop.get("/users/me", shop.admin)
    await users.restart()

    # the token was signed before the end
    good(await shop.get("/users/me", shop.admin), 200)
    assert users.pid != pid
    assert users.pid in split.hall.pids


async def test_a_stopped_part_answers_nobody_until_it_goes_on(split: Split, shop: Shop) -> None:
    payments = split.of("payments")

    payments.stop()
    with pytest.raises(httpx2.ReadTimeout):
        await shop.get("/payments", shop.admin, timeout=0.5)
    payments.cont()

    good(await shop.get("/payments", shop.admin), 200)


def test_everybody_finds_the_others_and_one_of_them_by_a_detour(tmp_path: Path) -> None:
    split = planned(tmp_path, THREE, "", via={("orders", "users"): "http://127.0.0.1:1"})

    url = split.urls
    assert url["orders"] == url["payments"]
    assert remotes(split.of("payments")) == {
        "users": "http://127.0.0.1:1",
        "inventory": url["inventory"],
    }
    assert remotes(split.of("inventory")) == {c: url[c] for c in ("users", "orders", "payments")}


def remotes(part: Part) -> Any:
    return json.loads(part.environment["MARKETHALL_REMOTES"])
