"""Streams of order events from real servers: two processes share one database."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.e2e.dedicated_server import (
    dedicated_database,
    dedicated_process,
    open_shop,
    wait_for_exit,
)
from tests.e2e.servers import RunningServer
from tests.e2e.shop import TIMEOUT_SECONDS, Person, Shop, expect_problem, expect_status
from tests.partitions.partitions import FULL_SPLIT

Events = AsyncIterator[dict[str, Any]]


class TwoProcesses:
    """Two servers with the same keys and database, and a shop for each."""

    def __init__(self, processes: list[Any], shops: list[Shop]) -> None:
        self.processes = processes
        self.first, self.second = shops


@asynccontextmanager
async def two_processes(
    scratch: Path, server_url: str, template: str, name: str, **settings: str
) -> AsyncIterator[TwoProcesses]:
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(dedicated_database(server_url, template))
        settings = {"database_url": url, "drain_seconds": "0.5", **settings}
        processes, shops = [], []
        for _ in range(2):
            # the same name, so that both have the same data directory with the same keys
            process, server = stack.enter_context(dedicated_process(scratch, name, **settings))
            processes.append(process)
            shops.append(await stack.enter_async_context(open_shop(server)))
        yield TwoProcesses(processes, shops)


@asynccontextmanager
async def order_events(
    shop: Shop, person: Person, order_id: str, last_event_id: int | None = None
) -> AsyncIterator[Events]:
    headers = dict(person.headers)
    if last_event_id is not None:
        headers["Last-Event-ID"] = str(last_event_id)
    url = shop.server.url(f"/orders/{order_id}/events")
    async with shop.http.stream("GET", url, headers=headers) as response:
        assert response.status_code == 200, await response.aread()
        yield parse_events(response)


async def parse_events(response: httpx2.Response) -> Events:
    """Yield the data of each event, after a check that its id is the version."""
    fields: dict[str, str] = {}
    async for line in response.aiter_lines():
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
            continue
        if "data" in fields:
            event = json.loads(fields["data"])
            assert fields["id"] == str(event["version"])
            yield event
        fields = {}


async def placed(shop: Shop) -> tuple[Person, dict[str, Any]]:
    buyer, product = await shop.customer(), await shop.product()
    return buyer, expect_status(await shop.place(buyer, product["product_id"]), 201)


async def next_of(events: Events) -> dict[str, Any]:
    async with asyncio.timeout(TIMEOUT_SECONDS):
        return await anext(events)


def logged_requests(server: RunningServer, path: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in server.log.read_text().splitlines() if path in line]
    return [line for line in lines if line.get("event") == "request" and line["path"] == path]


async def test_events_of_another_process_arrive_within_a_second_and_resume(
    scratch: Path, server_url: str, template: str
) -> None:
    async with two_processes(scratch, server_url, template, "events") as both:
        buyer, order = await placed(both.first)
        async with order_events(both.second, buyer, order["order_id"]) as events:
            assert (await next_of(events))["status"] == "pending"
            expect_status(await both.first.confirm(buyer, order["payment"]["payment_id"]), 200)
            await both.first.wait_for_status(buyer, order["order_id"], status="processing")
            seen_at = time.monotonic()
            received = [await next_of(events)]
            while received[-1]["status"] != "processing":
                received.append(await next_of(events))
            delay = time.monotonic() - seen_at
        body = {"reason": "changed my mind"}
        path = f"/orders/{order['order_id']}/cancel"
        expect_status(await both.second.post(path, buyer, json=body), 200)
        await both.first.wait_for_status(buyer, order["order_id"], payment_status="refunded")

        async with order_events(both.first, buyer, order["order_id"], last_event_id=1) as events:
            resumed = [await next_of(events)]
            while resumed[-1]["payment_status"] != "refunded":
                resumed.append(await next_of(events))

    assert delay < 1
    assert [event["version"] for event in resumed] == list(range(2, len(resumed) + 2))
    assert resumed[: len(received)] == received


async def test_shutdown_ends_streams_and_each_is_logged_once(
    scratch: Path, server_url: str, template: str
) -> None:
    async with two_processes(scratch, server_url, template, "events-stop") as both:
        buyer, order = await placed(both.first)
        path = f"/orders/{order['order_id']}/events"
        async with order_events(both.first, buyer, order["order_id"]) as events:
            first = await next_of(events)
            assert logged_requests(both.first.server, path) == []

            both.processes[0].terminate()
            async with asyncio.timeout(TIMEOUT_SECONDS):
                rest = [event async for event in events]

        assert await wait_for_exit(both.processes[0], within=TIMEOUT_SECONDS) == 0
        assert (first["status"], rest) == ("pending", [])
        (line,) = logged_requests(both.first.server, path)
        assert (line["status"], line["user_id"]) == (200, buyer.user_id)
        async with order_events(both.second, buyer, order["order_id"]) as events:
            assert await next_of(events) == first


async def test_streams_are_limited_and_a_disconnect_frees_the_place(
    scratch: Path, server_url: str, template: str
) -> None:
    settings = {"max_order_streams_per_client": "1"}
    async with two_processes(scratch, server_url, template, "events-gone", **settings) as both:
        buyer, order = await placed(both.first)
        path = f"/orders/{order['order_id']}/events"
        async with order_events(both.first, buyer, order["order_id"]) as events:
            await next_of(events)
            second = await both.first.get(path, buyer)
        async with asyncio.timeout(TIMEOUT_SECONDS):
            while (head := await both.first.send("HEAD", path, buyer)).status_code == 429:
                await asyncio.sleep(0.02)
        async with order_events(both.first, buyer, order["order_id"]) as events:
            event = await next_of(events)

    assert expect_problem(second, 429, "request.rate_limited")["retryable"]
    assert second.headers["retry-after"] == "10"
    assert head.status_code == 200
    assert head.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert event["status"] == "pending"


@pytest.mark.parametrize("server", ["postgres", FULL_SPLIT], indirect=True)
@pytest.mark.parametrize("value", ["x", "99999999999"])
async def test_invalid_last_event_id_is_rejected(server: RunningServer, value: str) -> None:
    async with open_shop(server) as shop:
        path = f"/orders/{shop.admin.user_id}/events"
        answer = await shop.get(path, shop.admin, headers={"Last-Event-ID": value})

    expect_problem(answer, 422, "request.invalid")
