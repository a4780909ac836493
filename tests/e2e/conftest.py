"""The wirings on which the one end-to-end suite runs."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest

from tests.conftest import on_server, url_of
from tests.e2e.halls import ADMIN, Execute, Hall, as_json, restricted_urls, running
from tests.e2e.shop import Shop

WIRINGS = ["memory", "postgres", "roles", "workers"]


@pytest.fixture(scope="session", params=WIRINGS)
async def hall(
    request: pytest.FixtureRequest, scratch: Path, server_url: str, template: str
) -> AsyncIterator[Hall]:
    wiring: str = request.param
    folder = scratch / f"hall-{wiring}"
    folder.mkdir(exist_ok=True)
    data = {"MARKETHALL_DATA_DIR": str(folder)}
    if wiring == "memory":
        with running(folder, data, "--memory") as hall:
            yield hall
        return
    database = f"hall_{wiring}"
    await on_server(server_url, f"CREATE DATABASE {database} TEMPLATE {template}")
    url = url_of(server_url, database)
    if wiring == "roles":
        urls = await restricted_urls(server_url, database, Execute(url))
        addresses = {"MARKETHALL_DATABASE_URLS": as_json(urls)}
    else:
        addresses = {"MARKETHALL_DATABASE_URL": url}
    workers = ["--workers", "2"] if wiring == "workers" else []
    with running(folder, data | addresses, *workers) as hall:
        yield hall
    await on_server(server_url, f"DROP DATABASE {database} WITH (FORCE)")


@pytest.fixture
async def shop(hall: Hall) -> AsyncIterator[Shop]:
    async with httpx2.AsyncClient(timeout=20) as http:
        shop = Shop(hall, http)
        await shop.sign_in_admin(*ADMIN)
        yield shop
