"""Fixtures of the end-to-end suite: a running server in each topology."""

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

# the topologies in SPLIT distribute the contexts over several servers; the four others run one
# server: "roles" with one database role per context, "workers" with two worker processes
SPLIT = [name for name in PROCESS_PARTITIONS if name != MONOLITH]
SECRET = "a-secret-of-the-split-servers-0123456789-0123456789"
TOPOLOGIES = ["memory", "postgres", "roles", "workers", *SPLIT]


@pytest.fixture(scope="session", params=TOPOLOGIES)
async def server(
    request: pytest.FixtureRequest, scratch: Path, server_url: str, template: str
) -> AsyncIterator[RunningServer]:
    topology_name: str = request.param
    folder = scratch / f"server-{topology_name}"
    folder.mkdir(exist_ok=True)
    data = {"MARKETHALL_DATA_DIR": str(folder)}
    async with AsyncExitStack() as stack:
        if topology_name == "memory":
            yield stack.enter_context(running(folder, data, "--memory"))
            return
        url = await stack.enter_async_context(_database(server_url, template, topology_name))
        if topology_name in SPLIT:
            urls = dict.fromkeys(CONTEXTS, url)
            if topology_name == FULL_SPLIT:
                for context in CONTEXTS:
                    database = dedicated_database(server_url, template)
                    urls[context] = await stack.enter_async_context(database)
            yield await stack.enter_async_context(_split(topology_name, folder, urls))
            return
        if topology_name == "roles":
            urls = await restricted_urls(server_url, database_of(topology_name), Execute(url))
            data["MARKETHALL_DATABASE_URLS"] = as_json(urls)
        else:
            data["MARKETHALL_DATABASE_URL"] = url
        workers = ["--workers", "2"] if topology_name == "workers" else []
        yield stack.enter_context(running(folder, data, *workers))


@asynccontextmanager
async def _database(server_url: str, template: str, topology_name: str) -> AsyncIterator[str]:
    name = database_of(topology_name)
    await on_server(server_url, f"CREATE DATABASE {name} TEMPLATE {template}")
    yield url_of(server_url, name)
    await on_server(server_url, f"DROP DATABASE {name} WITH (FORCE)")


@asynccontextmanager
async def _split(
    topology_name: str, folder: Path, urls: Mapping[str, str]
) -> AsyncIterator[RunningServer]:
    """Start a split cluster with its own Valkey, so that its streams hold only its own events."""
    partition = [frozenset(block) for block in PARTITIONS[topology_name]]
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
