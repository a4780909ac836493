"""Test reviews as a part of the monolith, and as a separate service next to it."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx2
import pytest
from conftest import order_events

from markethall.app import Gateway
from markethall.container import ApplicationContainer
from markethall.contexts import BUILT_IN_CONTEXTS, topology
from markethall.local.valkey import EmbeddedValkey
from markethall.orders.container import OrdersContainer
from markethall.secret_keys import load_or_create_secrets
from markethall.settings import read_settings
from markethall.shared.kernel.call_context import system_context
from markethall.shared.kernel.ids import new_id
from markethall.testing import AsgiNetwork

BUILT_IN = frozenset(manifest.name for manifest in BUILT_IN_CONTEXTS)
SECRET_KEY = "a secret of the tests, which protects nothing"
MONOLITH, REVIEWS = "http://monolith", "http://reviews"
USER = {"username": "ada", "email": "ada@example.com", "password": "a long enough one"}


class Market:
    """An HTTP client of both processes, which also publishes events of the monolith's orders."""

    def __init__(self, http: httpx2.AsyncClient, monolith: Gateway, reviews_url: str) -> None:
        self.http = http
        self.monolith = monolith
        self.reviews_url = reviews_url

    async def sign_in(self) -> UUID:
        user = (await self.http.post(f"{MONOLITH}/users", json=USER)).json()
        form = {"username": USER["username"], "password": USER["password"]}
        token = (await self.http.post(f"{MONOLITH}/token", data=form)).json()["access_token"]
        self.http.headers["authorization"] = f"Bearer {token}"
        return UUID(user["user_id"])

    async def complete_order(self, user_id: UUID, product_id: UUID) -> None:
        orders = self.monolith.container.context("orders", OrdersContainer)
        async with orders.database().transaction() as store:
            for event in order_events(user_id, product_id):
                await store.publish(event, system_context("test"))

    async def review(self, product_id: UUID) -> httpx2.Response:
        body = {"product_id": str(product_id), "rating": 5, "text": "Good tea."}
        return await self.http.post(f"{self.reviews_url}/reviews", json=body)


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with EmbeddedValkey(tmp_path_factory.mktemp("valkey")) as url:
        yield url


def build_app(network: AsgiNetwork, host: str, **settings: Any) -> Gateway:
    # both processes use the same secret key, because it signs the cursors of lists
    read = read_settings(
        storage="memory", rate_limits="off", bcrypt_cost=4, secret_key=SECRET_KEY, **settings
    )
    application_secrets = load_or_create_secrets(read)
    app = Gateway(
        read, lambda: ApplicationContainer(read, application_secrets, http_transport=network)
    )
    network.register(host, app)
    return app


@pytest.fixture(params=["together", "apart"])
async def market(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Market]:
    network = AsgiNetwork()
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(httpx2.AsyncClient(transport=network))
        if request.param == "together":
            monolith, reviews_url = build_app(network, "monolith", data_dir=tmp_path), MONOLITH
        else:
            redis_url = request.getfixturevalue("redis_url")
            monolith = build_app(
                network,
                "monolith",
                data_dir=tmp_path / "monolith",
                contexts=BUILT_IN,
                context_urls={"reviews": REVIEWS},
                redis_url=redis_url,
            )
            reviews = build_app(
                network,
                "reviews",
                data_dir=tmp_path / "reviews",
                contexts=["reviews"],
                # reviews calls users, and verifies events with the public keys of orders
                context_urls={"users": MONOLITH, "orders": MONOLITH},
                redis_url=redis_url,
            )
            reviews_url = REVIEWS
            await stack.enter_async_context(reviews.lifespan())
        await stack.enter_async_context(monolith.lifespan())
        yield Market(http, monolith, reviews_url)


async def test_review_follows_the_completed_order(market: Market) -> None:
    user_id, product_id = await market.sign_in(), new_id()
    refused = await market.review(product_id)
    await market.complete_order(user_id, product_id)

    async with asyncio.timeout(30):
        while (response := await market.review(product_id)).status_code == 403:
            await asyncio.sleep(0.05)

    assert (refused.status_code, refused.json()["code"]) == (403, "reviews.product_not_received")
    assert response.status_code == 201
    page = await market.http.get(
        f"{market.reviews_url}/reviews", params={"product_id": str(product_id)}
    )
    assert [review["text"] for review in page.json()["items"]] == ["Good tea."]


def test_relations_are_derived_from_the_manifest() -> None:
    assert topology().allowed_calls["users"]["get_active_customer"] == {"orders", "reviews"}
    assert topology().jwks_sources["users"] >= {"reviews"}
    assert ("orders", "reviews") in topology().event_pairs
    assert topology().context_by_path["reviews"] == "reviews"
