"""The wirings on which the one end-to-end suite runs."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest

from markethall.local.valkey import EmbeddedValkey
from tests.conftest import on_server, url_of
from tests.e2e.dedicated_server import database_of, dedicated_database
from tests.e2e.servers import (
    ADMIN,
    CONTEXTS,
    Execute,
    RunningServer,
    as_json,
    restricted_urls,
    running,
)
from tests.e2e.shop import Shop
from tests.e2e.split_cluster import split_cluster
from tests.partitions.partitions import FULL_SPLIT, MONOLITH, PARTITIONS, PROCESS_PARTITIONS

# all in one process in several ways, and in several processes
SPLIT = [name for name in PROCESS_PARTITIONS if name != MONOLITH]
SECRET = "a-secret-of-the-split-halls-0123456789-0123456789"
WIRINGS = ["memory", "postgres", "roles", "workers", *SPLIT]


@pytest.fixture(scope="session", params=WIRINGS)
async def server(
    request: pytest.FixtureRequest, scratch: Path, server_url: str, template: str
) -> AsyncIterator[RunningServer]:
    wiring: str = request.param
    folder = scratch / f"hall-{wiring}"
    folder.mkdir(exist_ok=True)
    data = {"MARKETHALL_DATA_DIR": str(folder)}
    async with AsyncExitStack() as stack:
        if wiring == "memory":
            yield stack.enter_context(running(folder, data, "--memory"))
            return
        url = await stack.enter_async_context(_database(server_url, template, wiring))
        if wiring in SPLIT:
            urls = dict.fromkeys(CONTEXTS, url)
            if wiring == FULL_SPLIT:
                for context in CONTEXTS:
                    own = dedicated_database(server_url, template)
                    urls[context] = await stack.enter_async_context(own)
            yield await stack.enter_async_context(_split(wiring, folder, urls))
            return
        if wiring == "roles":
            urls = await restricted_urls(server_url, database_of(wiring), Execute(url))
            data["MARKETHALL_DATABASE_URLS"] = as_json(urls)
        else:
            data["MARKETHALL_DATABASE_URL"] = url
        workers = ["--workers", "2"] if wiring == "workers" else []
        yield stack.enter_context(running(folder, data, *workers))


@asynccontextmanager
async def _database(server_url: str, template: str, wiring: str) -> AsyncIterator[str]:
    name = database_of(wiring)
    await on_server(server_url, f"CREATE DATABASE {name} TEMPLATE {template}")
    yield url_of(server_url, name)
    await on_server(server_url, f"DROP DATABASE {name} WITH (FORCE)")


@asynccontextmanager
async def _split(
    wiring: str, folder: Path, urls: Mapping[str, str]
) -> AsyncIterator[RunningServer]:
    """A Valkey of its own: events in it are from nobody else."""
    partition = [frozenset(block) for block in PARTITIONS[wiring]]
    with EmbeddedValkey() as redis_url:
        async with split_cluster(
            folder, partition, urls, redis_url, None, secret_key=SECRET
        ) as split:
            yield replace(split.server, secret=SECRET)


@pytest.fixture
async def shop(server: RunningServer) -> AsyncIterator[Shop]:
    async with httpx2.AsyncClient(timeout=20) as http:
        shop = Shop(server, http)
        await shop.sign_in_admin(*ADMIN)
        yield shop
