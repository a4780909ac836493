"""Test the alert rules and the queries of the dashboard in a real Prometheus.

The file is not named `test_*.py`, because it needs the programs prometheus and promtool: pytest
runs it only if its path is given, as `make test-monitoring` does.
"""

import asyncio
import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from scripts.monitoring.generate import FOLDER
from tests.e2e.dedicated_server import dedicated_database, dedicated_server, open_shop, port_of
from tests.e2e.servers import free_port
from tests.e2e.shop import Shop, expect_status

# the panels that stay empty in a healthy shop of one process without Redis, which this test runs
EMPTY_PANELS = frozenset(
    {
        "Share of 5xx responses",
        "Http rejected per second",
        "Rate limited per second",
        "Stream entries per second",
        "Stream unavailable",
        "Stream republished per second",
        "Rpc client attempts per second",
        "Rpc client circuit open",
        "Provider conflicts per second",
        "Provider webhooks per second",
        "Reconciliation differences",
        "Payment dispute changes per second",
    }
)


def promtool(*arguments: str) -> str:
    done = subprocess.run(
        ["promtool", *arguments], cwd=FOLDER, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_promtool_accepts_the_rules() -> None:
    assert "SUCCESS" in promtool("check", "rules", "alerts.yaml")


def test_rules_fire_when_they_should() -> None:
    assert "SUCCESS" in promtool("test", "rules", "alerts_test.yaml")


@contextmanager
def prometheus(folder: Path, target: str) -> Iterator[str]:
    """Run a Prometheus that scrapes the target every second, and yield its URL."""
    port = free_port()
    configuration = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(FOLDER / "alerts.yaml")],
        "scrape_configs": [{"job_name": "markethall", "static_configs": [{"targets": [target]}]}],
    }
    path = folder / "prometheus.yml"
    path.write_text(yaml.safe_dump(configuration))
    command = [
        "prometheus",
        f"--config.file={path}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=error",
    ]
    with subprocess.Popen(command) as process:
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


class Queries:
    """The query API of a Prometheus."""

    def __init__(self, http: httpx2.AsyncClient, url: str) -> None:
        self._http = http
        self._url = url

    async def run(self, expression: str) -> list[Any]:
        """Return the result. Variables of Grafana get the values of a newly opened dashboard."""
        text = expression.replace("$__rate_interval", "1m").replace("$instance", ".*")
        answer = await self._http.get(f"{self._url}/api/v1/query", params={"query": text})
        assert answer.status_code == 200, f"{text}: {answer.text}"
        result: list[Any] = answer.json()["data"]["result"]
        return result

    async def wait_for(self, expression: str, value: float) -> None:
        async with asyncio.timeout(60):
            while True:
                try:
                    found = await self.run(expression)
                except httpx2.TransportError:
                    found = []
                if found and float(found[0]["value"][1]) == value:
                    return
                await asyncio.sleep(0.2)


async def buy_and_cancel(shop: Shop) -> None:
    """Buy twice, and cancel one of the orders after it is paid."""
    product = await shop.product(amount=1000)
    buyer = await shop.customer()
    orders = []
    for _ in range(2):
        order = expect_status(await shop.place(buyer, product["product_id"]), 201)
        expect_status(await shop.confirm(buyer, order["payment"]["payment_id"]), 200)
        await shop.wait_for_status(buyer, order["order_id"], status="processing")
        orders.append(order)
    path = f"/orders/{orders[0]['order_id']}/cancel"
    expect_status(await shop.post(path, buyer, json={"reason": "changed my mind"}), 200)


async def wait_for_panels(queries: Queries, panels: list[dict[str, Any]]) -> set[str]:
    """Wait for data in the panels, because a rate needs two scrapes. Return the empty panels."""
    loop = asyncio.get_running_loop()
    end = loop.time() + 30
    while True:
        empty = {
            panel["title"]
            for panel in panels
            for shown in panel["targets"]
            if not await queries.run(shown["expr"])
        }
        if empty <= EMPTY_PANELS or loop.time() > end:
            return empty
        await asyncio.sleep(0.5)


@pytest.fixture(scope="session")
def dashboard() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((FOLDER / "dashboard.json").read_text())["panels"]
    return [panel for panel in found if panel["type"] != "row"]


async def test_panels_show_a_real_shop(
    scratch: Path, server_url: str, template: str, dashboard: list[dict[str, Any]]
) -> None:
    async with dedicated_database(server_url, template) as url:
        with dedicated_server(scratch, "monitored", database_url=url) as server:
            target = f"127.0.0.1:{port_of(server)}"
            with prometheus(scratch, target) as prometheus_url:
                async with open_shop(server) as shop, httpx2.AsyncClient(timeout=20) as http:
                    queries = Queries(http, prometheus_url)
                    await queries.wait_for("markethall_orders_total{change='placed'}", 0)
                    await buy_and_cancel(shop)
                    await queries.wait_for("markethall_orders_total{change='placed'}", 2)
                    refunds = "markethall_payment_movements_total{kind='refund'}"
                    await queries.wait_for(refunds, 1)
                    await queries.wait_for("sum(markethall_leader)", 4)
                    empty = await wait_for_panels(queries, dashboard)
                    firing = await queries.run('ALERTS{alertstate="firing"}')

    assert empty == EMPTY_PANELS
    assert firing == []
