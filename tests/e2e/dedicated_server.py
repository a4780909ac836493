"""Servers and databases for one test, with settings that the shared servers do not have."""

import asyncio
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import httpx2

from markethall.shared.kernel.ids import new_id
from tests.conftest import on_server, plain, url_of
from tests.e2e.servers import (
    ADMIN,
    CONTEXTS,
    RunningServer,
    end,
    free_port,
    running,
    spawn,
    wait_until_ready,
)
from tests.e2e.shop import Shop


@asynccontextmanager
async def dedicated_database(server_url: str, template: str) -> AsyncIterator[str]:
    """Create a migrated, empty database and drop it afterwards."""
    name = f"own_{new_id().hex}"
    await on_server(server_url, f"CREATE DATABASE {name} TEMPLATE {template}")
    try:
        yield url_of(server_url, name)
    finally:
        await on_server(server_url, f"DROP DATABASE {name} WITH (FORCE)")


def database_of(topology_name: str) -> str:
    """Return the name of the database of a topology, a valid SQL identifier without quotes."""
    return "server_" + "".join(
        character if character.isalnum() else "_" for character in topology_name
    )


@contextmanager
def dedicated_server(
    scratch: Path, name: str, *arguments: str, **settings: str
) -> Iterator[RunningServer]:
    """Run a server during the block.

    The names of settings are in lower case, without the prefix MARKETHALL_.
    """
    folder = scratch / f"own-{name}"
    folder.mkdir(exist_ok=True)
    with running(folder, environment(folder, **settings), *arguments) as server:
        yield server


def environment(folder: Path, **settings: str) -> dict[str, str]:
    variables = {f"MARKETHALL_{name.upper()}": value for name, value in settings.items()}
    return {"MARKETHALL_DATA_DIR": str(folder), **variables}


@asynccontextmanager
async def open_shop(server: RunningServer) -> AsyncIterator[Shop]:
    async with httpx2.AsyncClient(timeout=20) as http:
        shop = Shop(server, http)
        await shop.sign_in_admin(*ADMIN)
        yield shop


def port_of(server: RunningServer) -> int:
    return urlsplit(server.urls["users"]).port or 0


class DatabaseReader:
    """Reads a database with a new connection for each query."""

    def __init__(self, url: str) -> None:
        self._url = plain(url)

    async def fetch_all(self, sql: str, *values: object) -> list[asyncpg.Record]:
        connection = await asyncpg.connect(self._url)
        try:
            found: list[asyncpg.Record] = await connection.fetch(sql, *values)
            return found
        finally:
            await connection.close()

    async def fetch_value(self, sql: str, *values: object) -> object:
        rows = await self.fetch_all(sql, *values)
        return rows[0][0] if rows else None


@contextmanager
def dedicated_process(
    scratch: Path, name: str, *arguments: str, **settings: str
) -> "Iterator[tuple[subprocess.Popen[bytes], RunningServer]]":
    """Run a server during the block. Yield its process and its URLs.

    Tests that stop the server need the process.
    """
    folder, port = scratch / f"own-{name}", free_port()
    folder.mkdir(exist_ok=True)
    log = folder / f"serve-{port}.log"
    with log.open("ab") as output:
        process = spawn(port, environment(folder, **settings), arguments, output)
    try:
        wait_until_ready(process, port, log)
        url = f"http://127.0.0.1:{port}"
        yield process, RunningServer(dict.fromkeys(CONTEXTS, url), (process.pid,), log)
    finally:
        end(process)


async def wait_for_exit(process: "subprocess.Popen[bytes]", within: float) -> int:
    """Wait for the exit, and return its code. Raises TimeoutExpired after `within` seconds."""
    return await asyncio.to_thread(process.wait, within)
