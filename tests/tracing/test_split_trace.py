"""Test that the purchase of a customer through four services is one trace of OpenTelemetry.

With MARKETHALL_TEST_TRACE_FILE, the spans are written to that file; `scripts/trace_picture.py`
draws them.
"""

import asyncio
import json
import os
import secrets
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.e2e.dedicated_server import dedicated_database
from tests.e2e.servers import ADMIN
from tests.e2e.shop import Person, Shop, expect_status
from tests.e2e.split_cluster import FULL_SPLIT, split_cluster
from tests.tracing.collector import CollectedSpan, Collector, running_collector

SERVICES = {f"markethall-{name}" for name in ("inventory", "orders", "payments", "users")}
CALLS = {
    "users.get_active_customer",
    "inventory.reserve",
    "payments.open",
    "payments.activate",
    "inventory.commit",
}
EVENTS = {"orders.on_payment_captured", "orders.on_order_paid"}
READ = "GET /products/{product_id}"
REQUESTS = {"POST /orders", "POST /payments/{payment_id}/confirm"}


async def buy(shop: Shop, trace_id: str) -> tuple[Person, str]:
    """Read a product, order and pay it, as a client that has one trace for these requests."""
    buyer, product = await shop.customer(), await shop.product()
    # the requests above have no traceparent header, so each of them begins its own trace
    headers = {"traceparent": f"00-{trace_id}-{'c' * 16}-01"}
    placing = headers | {"Idempotency-Key": secrets.token_hex(16)}
    paying = headers | {"Idempotency-Key": secrets.token_hex(16)}
    path = f"/products/{product['product_id']}"
    expect_status(await shop.send("GET", path, headers=headers), 200)
    body = {"product_id": product["product_id"], "quantity": 1, "shipping_address": "Market 1"}
    placed = await shop.send("POST", "/orders", buyer, json=body, headers=placing)
    order = expect_status(placed, 201)
    path = f"/payments/{order['payment']['payment_id']}/confirm"
    method = {"payment_method": "sandbox_ok"}
    expect_status(await shop.send("POST", path, buyer, json=method, headers=paying), 200)
    await shop.wait_for_status(buyer, order["order_id"], status="processing")
    return buyer, order["order_id"]


async def read_from_redis(shop: Shop, collector: Collector) -> list[CollectedSpan]:
    """Read new products, each in its own trace, until a read asks Redis. Return its spans.

    A read does not ask Redis while the invalidation of its product waits to be sent. So each
    product is read after the next one has been created.
    """
    created = await shop.product()
    async with asyncio.timeout(60):
        while True:
            trace_id, product_id = secrets.token_hex(16), created["product_id"]
            created = await shop.product()
            headers = {"traceparent": f"00-{trace_id}-{'c' * 16}-01"}
            expect_status(await shop.send("GET", f"/products/{product_id}", headers=headers), 200)
            spans = await wait_for_spans(collector, trace_id, {READ})
            if with_system(spans, "redis"):
                return spans


async def wait_for_spans(collector: Collector, trace_id: str, names: set[str]) -> list[Any]:
    """Return the spans of the trace when it has these names. Raises TimeoutError."""
    async with asyncio.timeout(60):
        while True:
            spans = collector.spans_of(trace_id)
            if names <= {span.name for span in spans}:
                await asyncio.sleep(1)  # the parent spans end a moment later
                return collector.spans_of(trace_id)
            await asyncio.sleep(0.1)


async def test_purchase_through_four_services_is_one_trace(
    scratch: Path,
    server_url: str,
    template: str,
    redis_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trace_id = secrets.token_hex(16)
    with running_collector() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "200")
        async with (
            dedicated_database(server_url, template) as url,
            split_cluster(scratch / "traced", FULL_SPLIT, url, redis_url) as split,
            httpx2.AsyncClient(timeout=20) as http,
        ):
            shop = Shop(split.server, http)
            await shop.sign_in_admin(*ADMIN)
            await buy(shop, trace_id)
            spans = await wait_for_spans(collector, trace_id, CALLS | EVENTS | REQUESTS)
            spans_of_read = await read_from_redis(shop, collector)
        every = collector.all_spans()
    write_if_wanted(spans)

    assert {span.service for span in spans} == SERVICES
    assert [span.name for span in spans if span.parent_id not in ids(spans)] == [
        READ,
        "POST /orders",
        "POST /payments/{payment_id}/confirm",
    ]
    assert len([span for span in spans if span.name == "POST /orders"]) == 1
    assert {span.service for span in with_system(spans, "postgresql")} == SERVICES
    (read,) = (span for span in spans_of_read if span.name == READ)
    assert {span.parent_id for span in with_system(spans_of_read, "redis")} == {read.span_id}
    # background work, such as polls, begins no trace, so each trace begins with a request
    assert {span.kind for span in every if not span.parent_id} == {SERVER}
    assert "correct horse" not in repr(every)


SERVER = 2


def ids(spans: list[CollectedSpan]) -> set[str]:
    return {span.span_id for span in spans}


def with_system(spans: list[CollectedSpan], system: str) -> list[CollectedSpan]:
    return [span for span in spans if span.attributes.get("db.system") == system]


def write_if_wanted(spans: list[CollectedSpan]) -> None:
    if path := os.environ.get("MARKETHALL_TEST_TRACE_FILE"):
        Path(path).write_text(json.dumps([asdict(span) for span in spans], indent=1))
