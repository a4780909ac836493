"""Test cached product reads in processes that share a Postgres and have no Redis."""

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID, uuid4

import httpx2
import pytest

from markethall.app import Gateway, create_app
from markethall.inventory.catalogue.contract.products import NewProduct, Price, ProductChange
from markethall.inventory.catalogue.service.response_cache import PRODUCT_TTL_SECONDS
from markethall.settings import read_settings
from markethall.shared.cache.coherent_cache import MIN_FRESH_SHARE
from markethall.shared.idempotency.records import IdempotentCommand
from markethall.shared.kernel.call_context import system_context
from markethall.shared.observability.metrics import REGISTRY
from tests.containers import inventory_of
from tests.shared.cache_fixtures import MAX_ATTEMPTS, Clock, until


@asynccontextmanager
async def running(database_url: str, data_dir: Path, clock: Clock) -> AsyncIterator[Gateway]:
    """Yield a running application whose cache uses `clock` and already receives invalidations."""
    app = create_app(read_settings(database_url=database_url, data_dir=data_dir))
    async with app.lifespan():
        cache = inventory_of(app.container).cache()
        cache._clock = clock
        await until(lambda: cache._l1_max_ttl == math.inf)
        yield app


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def app(database_url: str, tmp_path: Path, clock: Clock) -> AsyncIterator[Gateway]:
    async with running(database_url, tmp_path, clock) as app:
        yield app


@pytest.fixture
async def path(app: Gateway) -> str:
    new = NewProduct(sku="TEA", name="Tea", price=Price(amount=1000, currency="EUR"))
    catalogue = inventory_of(app.container).catalogue()
    command = IdempotentCommand.without_key(uuid4())
    product = await catalogue.create(system_context("test"), new, command)
    return f"/products/{product.product_id}"


def client(app: Gateway) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://shop")


def count_loads() -> float:
    labels = {"cache": "inventory.product", "outcome": "miss"}
    return REGISTRY.get_sample_value("markethall_cache_total", labels) or 0.0


async def test_product_is_loaded_once_in_its_ttl(app: Gateway, path: str, clock: Clock) -> None:
    loads = []
    before = count_loads()

    async with client(app) as http:
        for seconds in (0.0, PRODUCT_TTL_SECONDS * MIN_FRESH_SHARE - 0.1, PRODUCT_TTL_SECONDS):
            clock.now += seconds
            assert (await http.get(path)).status_code == 200
            loads.append(count_loads() - before)

    assert loads == [1, 1, 2]


async def test_change_in_another_process_is_read(
    app: Gateway, path: str, database_url: str, tmp_path: Path, clock: Clock
) -> None:
    async with running(database_url, tmp_path, clock) as other, client(app) as http:
        product_id = UUID((await http.get(path)).json()["product_id"])

        await (
            inventory_of(other.container)
            .catalogue()
            .change(system_context("test"), product_id, ProductChange(name="Green tea"), None)
        )

        assert await until_changed(http, path) == "Green tea"


async def until_changed(http: httpx2.AsyncClient, path: str) -> str:
    name = ""
    for _ in range(MAX_ATTEMPTS):
        name = (await http.get(path)).json()["name"]
        if name != "Tea":
            break
        await asyncio.sleep(0.005)  # the poll interval
    return name
