"""Test `GET /integrity`: who may read it, what it shows, and that a live shop has no violation."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from markethall.shared.kernel.integrity import DEFAULT_GRACE
from tests.conftest import on_server, url_of
from tests.e2e.shop import Person, Shop, expect_problem, expect_status
from tests.integrity.conftest import (
    check,
    open_shop,
    sell_in_all_ways,
    wait_until_sound,
    wrong_rows,
)
from tests.partitions.in_process import PartitionedApp
from tests.partitions.partitions import HALVES


@pytest.fixture(params=["memory", "sql"])
def storage(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The settings of a storage."""
    if request.param == "memory":
        return {"storage": "memory"}
    return {"database_url": request.getfixturevalue("database_url")}


async def test_only_admins_may_read_it(tmp_path: Path) -> None:
    async with open_shop(tmp_path, storage="memory") as (shop, _):
        buyer = await shop.customer()
        expect_problem(await shop.get("/integrity"), 401, "auth.unauthenticated")
        expect_problem(await shop.get("/integrity", buyer), 403, "auth.forbidden")

        report = expect_status(await shop.get("/integrity", shop.admin), 200)

    assert report["status"] == "ok"
    assert report["contexts_not_served"] == []
    assert {"check", "status", "violations", "rows"} <= set(report["checks"][0])


async def test_sound_shop_has_no_violation_in_each_storage(
    tmp_path: Path, storage: dict[str, Any]
) -> None:
    async with open_shop(tmp_path, **storage) as (shop, app):
        await sell_in_all_ways(shop)

        report = await wait_until_sound(app.containers["orders"])

    assert {result.context for result in report.checks} == {
        "users", "inventory", "orders", "payments",
    }  # fmt: skip


async def test_each_process_checks_the_contexts_that_it_serves(
    tmp_path: Path, database_url: str, redis_url: str
) -> None:
    settings = {"database_url": database_url, "redis_url": redis_url}
    async with open_shop(tmp_path, HALVES, **settings) as (shop, app):
        await sell_in_all_ways(shop)
        # the checks of orders read payments and inventory over HTTP
        await wait_until_sound(app.containers["orders"])
        await wait_until_sound(app.containers["payments"])

        reports = [
            expect_status(await get_of(shop, context, shop.admin), 200)
            for context in ("orders", "payments")
        ]

    served = [{check["context"] for check in report["checks"]} for report in reports]
    assert served == [{"users", "orders"}, {"inventory", "payments"}]
    assert [report["contexts_not_served"] for report in reports] == [
        ["inventory", "payments"],
        ["orders", "users"],
    ]


async def get_of(shop: Shop, context: str, person: Person) -> Any:
    url = f"{shop.server.urls[context]}/integrity"
    return await shop.http.get(url, headers=person.headers)


async def test_concurrent_requests_share_one_run(tmp_path: Path) -> None:
    async with open_shop(tmp_path, storage="memory") as (shop, app):
        runs = count_calls(app)

        answers = await asyncio.gather(*(shop.get("/integrity", shop.admin) for _ in range(20)))
        await shop.get("/integrity", shop.admin)

    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.text for answer in answers}) == 1
    assert len(runs) == 1


def count_calls(app: PartitionedApp) -> list[str]:
    """Return a list that gets an item whenever the dead letters of orders are read."""
    calls: list[str] = []
    inbox: Any = app.containers["orders"].contexts["orders"].persistence().inbox
    read = inbox.get_dead_letters

    async def counted(limit: int = 100) -> Any:
        calls.append("read")
        return await read(limit)

    inbox.get_dead_letters = counted
    return calls


async def test_live_shop_has_no_false_alarm(tmp_path: Path, storage: dict[str, Any]) -> None:
    """The checks run again and again while customers buy, pay, cancel and are refunded."""
    async with open_shop(tmp_path, **storage) as (shop, app):
        buyers = [await shop.customer() for _ in range(4)]
        product_id = (await shop.product(stock=500))["product_id"]
        sales = asyncio.gather(*(buy_all_day(shop, buyer, product_id) for buyer in buyers))
        alarms, run_count = [], 0
        while not sales.done() or not run_count:
            report = await check(app.containers["orders"], DEFAULT_GRACE.total_seconds())
            alarms.append(wrong_rows(report))
            run_count += 1
        await sales

        await wait_until_sound(app.containers["orders"])

    assert [alarm for alarm in alarms if alarm] == []


async def buy_all_day(shop: Shop, buyer: Person, product_id: str) -> None:
    methods = ["sandbox_ok", "sandbox_webhook_first", "sandbox_declined", "sandbox_ok"]
    for method in methods:
        order = expect_status(await shop.place(buyer, product_id), 201)
        path = f"/orders/{order['order_id']}/cancel"
        await asyncio.gather(
            shop.confirm(buyer, order["payment"]["payment_id"], method),
            shop.post(path, buyer, json={"reason": "changed my mind"}),
        )
        order = expect_status(await shop.place(buyer, product_id), 201)
        await shop.confirm(buyer, order["payment"]["payment_id"], method)


async def test_database_that_is_gone_is_reported(
    server_url: str, template: str, tmp_path: Path
) -> None:
    name = f"gone_{tmp_path.name.replace('-', '_')}"
    await on_server(server_url, f"CREATE DATABASE {name} TEMPLATE {template}")
    async with open_shop(tmp_path, database_url=url_of(server_url, name)) as (_, app):
        await on_server(server_url, f"DROP DATABASE {name} WITH (FORCE)")

        report = await check(app.containers["orders"])

    assert report.status == "incomplete"
    assert {result.status for result in report.checks} == {"not_checked"}
