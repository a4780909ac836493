"""Test four services: tracing across calls, authentication of the internal API, start order."""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest

from markethall.shared.kernel.call_context import Actor
from markethall.shared.kernel.ids import new_id
from markethall.shared.security.access_tokens import AccessTokenSigner, generate_private_key
from tests.e2e.dedicated_server import dedicated_database
from tests.e2e.servers import ADMIN, CONTEXTS
from tests.e2e.shop import Shop, expect_problem, expect_status
from tests.e2e.split_cluster import FULL_SPLIT, SplitCluster, plan_cluster, split_cluster

TIMEOUT_SECONDS = 30


@dataclass(frozen=True)
class SplitSetup:
    split: SplitCluster
    shop: Shop

    async def line(self, context: str, request_id: str, path: str) -> dict[str, Any]:
        """Return the access log line of this context for a request."""
        async with asyncio.timeout(TIMEOUT_SECONDS):
            while not (found := self._lines(context, request_id, path)):
                await asyncio.sleep(0.01)
        assert len(found) == 1
        return found[0]

    def _lines(self, context: str, request_id: str, path: str) -> list[dict[str, Any]]:
        texts = self.split.service(context).log.read_text().splitlines()
        lines = [json.loads(text) for text in texts if text.startswith("{")]
        expected = ("request", request_id, path)
        return [
            line
            for line in lines
            if (line["event"], line.get("request_id"), line.get("path")) == expected
        ]


@pytest.fixture(scope="module")
async def split_setup(
    scratch: Path, server_url: str, template: str, redis_url: str
) -> AsyncIterator[SplitSetup]:
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(dedicated_database(server_url, template))
        split = await stack.enter_async_context(
            split_cluster(
                scratch / "split-processes", FULL_SPLIT, url, redis_url, database_pool_min="1"
            )
        )
        http = await stack.enter_async_context(httpx2.AsyncClient(timeout=20))
        shop = Shop(split.server, http)
        await shop.sign_in_admin(*ADMIN)
        yield SplitSetup(split, shop)


async def test_order_has_one_request_id_and_trace_in_four_logs(split_setup: SplitSetup) -> None:
    buyer, product = await split_setup.shop.customer(), await split_setup.shop.product()
    request_id, trace_id = f"test-{secrets.token_hex(16)}", secrets.token_hex(16)
    headers = {
        "X-Request-ID": request_id,
        "traceparent": f"00-{trace_id}-{secrets.token_hex(8)}-01",
        "Idempotency-Key": secrets.token_hex(16),
    }
    body = {"product_id": product["product_id"], "quantity": 1, "shipping_address": "Market 1"}

    expect_status(
        await split_setup.shop.send("POST", "/orders", buyer, headers=headers, json=body), 201
    )

    lines = {
        "orders": await split_setup.line("orders", request_id, "/orders"),
        "users": await split_setup.line("users", request_id, "/internal/users/get_active_customer"),
        "inventory": await split_setup.line("inventory", request_id, "/internal/inventory/reserve"),
        "payments": await split_setup.line("payments", request_id, "/internal/payments/open"),
    }
    for context, line in lines.items():
        assert (line["context"], line["trace_id"]) == (context, trace_id)
        assert (line["user_id"], line["status"] // 100) == (buyer.user_id, 2)
    callers = {context: line.get("caller") for context, line in lines.items()}
    assert callers == {
        "orders": None,
        "users": "orders",
        "inventory": "orders",
        "payments": "orders",
    }


async def test_user_token_is_rejected_by_internal_api(split_setup: SplitSetup) -> None:
    body = {"user_id": split_setup.shop.admin.user_id}
    address = split_setup.split.service("users").url + "/internal/users/get_active_customer"

    for headers in ({}, split_setup.shop.admin.headers):
        answer = await split_setup.shop.http.post(address, json=body, headers=headers)

        expect_problem(answer, 401, "auth.unauthenticated")


async def test_services_that_call_or_send_events_publish_different_keys(
    split_setup: SplitSetup,
) -> None:
    answers = {
        context: await split_setup.shop.http.get(
            split_setup.split.service(context).url + "/internal/keys.json"
        )
        for context in CONTEXTS
    }

    published = {context for context, answer in answers.items() if answer.status_code == 200}
    assert published == {"users", "orders", "payments"}
    keys = [key for context in published for key in answers[context].json()["keys"]]
    assert all(set(key) == {"kty", "crv", "use", "alg", "kid", "x"} for key in keys)
    assert len({key["kid"] for key in keys}) == len(keys) == len(published)


async def test_context_location_is_a_metric(split_setup: SplitSetup) -> None:
    text = (
        await split_setup.shop.http.get(split_setup.split.service("orders").url + "/metrics")
    ).text

    metric = 'markethall_context_info{{context="{}",storage="sql",where="{}"}} 1.0'
    assert metric.format("orders", "local") in text
    assert metric.format("inventory", "remote") in text


async def test_service_started_alone_is_ready_and_names_missing_dependencies(
    scratch: Path, server_url: str, template: str, redis_url: str
) -> None:
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(dedicated_database(server_url, template))
        split = plan_cluster(scratch / "alone", FULL_SPLIT, url, redis_url, database_pool_min="1")
        http = await stack.enter_async_context(httpx2.AsyncClient(timeout=20))
        orders = split.service("orders")
        orders.spawn()
        stack.push_async_callback(orders.end)
        await orders.wait_until_ready()

        # the response is 503 and not 401, because the keys to verify the token are unavailable
        headers = {"Authorization": f"Bearer {token_of_unknown_key()}"}
        answer = await http.get(f"{orders.url}/orders", headers=headers)

        assert expect_problem(answer, 503, "system.unavailable")["details"] == {
            "dependency": "users"
        }
        assert answer.headers["retry-after"] == "1"


def token_of_unknown_key() -> str:
    """Return an access token signed with an unknown key."""
    now = partial(datetime.now, UTC)
    signer = AccessTokenSigner(
        generate_private_key(), "http://localhost:8000", "markethall", timedelta(hours=1), now
    )
    return signer.sign(Actor(user_id=new_id(), roles=("customer",)))
