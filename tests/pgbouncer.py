"""Test a server that connects to Postgres through PgBouncer in transaction mode.

The file is not named `test_*.py`, because it needs the program pgbouncer: pytest runs it only if
its path is given, as `make test-pgbouncer` does.
"""

import asyncio
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest

from markethall.shared.kernel.errors import Unavailable
from markethall.shared.kernel.wait_budget import STATEMENT_TIMEOUT
from markethall.shared.persistence.postgres import PoolSize, Postgres
from tests.conftest import plain
from tests.e2e.dedicated_server import dedicated_database, dedicated_process, open_shop
from tests.e2e.servers import RunningServer, free_port
from tests.e2e.shop import expect_status
from tests.shared.test_postgres import backend_pid, sleep_in_read_session
from tests.test_cli import markethall

UNPRIVILEGED_UID = 65534
# PgBouncer opens at most three connections to Postgres, fewer than Markethall opens to PgBouncer,
# so that the statements of one client connection run on different Postgres connections
CONFIGURATION = """
[databases]
{database} = host={host} port={port} dbname={database} user={user} password={password}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen_port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 3
max_client_conn = 200
"""


@contextmanager
def pgbouncer(url: str, folder: Path) -> Iterator[str]:
    """Run PgBouncer in front of the database, and yield the database URL through PgBouncer."""
    parts, port = urlsplit(plain(url)), free_port()
    database = parts.path[1:]
    path = folder / "pgbouncer.ini"
    path.write_text(
        CONFIGURATION.format(
            database=database,
            host=parts.hostname,
            port=parts.port,
            user=parts.username,
            password=parts.password,
            listen_port=port,
        )
    )
    path.chmod(0o644)
    program = shutil.which("pgbouncer") or "/usr/sbin/pgbouncer"
    # PgBouncer refuses to run as root
    user = UNPRIVILEGED_UID if os.geteuid() == 0 else None
    with subprocess.Popen([program, "-q", str(path)], user=user, cwd="/") as process:
        try:
            yield f"postgresql://{parts.username}@127.0.0.1:{port}/{database}"
        finally:
            process.terminate()


@pytest.fixture
async def urls(scratch: Path, server_url: str, template: str) -> AsyncIterator[tuple[str, str]]:
    """The URL of a database through PgBouncer, and the direct URL."""
    async with dedicated_database(server_url, template) as direct_url:
        with pgbouncer(direct_url, scratch) as url:
            await wait_for_pgbouncer(url)
            yield url, direct_url


async def wait_for_pgbouncer(url: str) -> None:
    async with asyncio.timeout(30):
        while True:
            try:
                await (await asyncpg.connect(url, statement_cache_size=0)).close()
            except OSError:
                await asyncio.sleep(0.02)
            else:
                return


async def test_shop_works_and_background_work_leads(scratch: Path, urls: tuple[str, str]) -> None:
    url, direct_url = urls
    settings = {
        "database_url": url,
        "database_direct_url": direct_url,
        "database_pooler": "transaction",
    }
    with dedicated_process(scratch, "pooled", **settings) as (_, server):
        async with open_shop(server) as shop:
            buyers = await asyncio.gather(*(shop.customer() for _ in range(6)))
            product = await shop.product()
            orders = await asyncio.gather(
                *(shop.place(buyer, product["product_id"]) for buyer in buyers)
            )
            for buyer, answer in zip(buyers, orders, strict=True):
                order = expect_status(answer, 201)
                expect_status(await shop.confirm(buyer, order["payment"]["payment_id"]), 200)
                await shop.wait_for_status(buyer, order["order_id"], status="processing")
        assert events_of(server).isdisjoint({"worker.failed", "request.failed"})
        assert server.has_logged("worker.leader_acquired")


async def test_statements_of_many_clients_share_few_connections(urls: tuple[str, str]) -> None:
    url, direct_url = urls
    postgres = Postgres(url, PoolSize(min_size=1, max_size=20, timeout=30), direct_url=direct_url)

    pids = await asyncio.gather(*(backend_pid(postgres) for _ in range(200)))

    await postgres.close()
    assert 1 <= len(set(pids)) <= 3


async def test_shorter_timeout_of_request_cancels_its_statement(urls: tuple[str, str]) -> None:
    url, direct_url = urls
    postgres = Postgres(url, PoolSize(min_size=1, max_size=1, timeout=30), direct_url=direct_url)
    await backend_pid(postgres)
    token = STATEMENT_TIMEOUT.set(0.2)
    try:
        with pytest.raises(Unavailable):
            await sleep_in_read_session(postgres)
    finally:
        STATEMENT_TIMEOUT.reset(token)
    observer = await asyncpg.connect(plain(direct_url))
    sleeping = (
        "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND wait_event = 'PgSleep'"
    )

    assert await observer.fetchval(sleeping) == 0
    assert await backend_pid(postgres)
    await observer.close()
    await postgres.close()


async def test_pgbouncer_that_is_gone_is_unavailable(urls: tuple[str, str]) -> None:
    _, direct_url = urls
    gone = f"postgresql://someone@127.0.0.1:{free_port()}/x"
    postgres = Postgres(gone, PoolSize(timeout=5), direct_url=direct_url)

    with pytest.raises(Unavailable):
        await backend_pid(postgres)

    await postgres.close()


def test_pooler_without_direct_url_is_one_line(tmp_path: Path) -> None:
    given = {"database_url": "postgresql://h/d", "database_pooler": "transaction"}

    result = markethall("serve", "--port", "0", data_dir=str(tmp_path), **given)

    assert result.returncode == 2
    assert result.stderr.count("MARKETHALL_DATABASE_DIRECT_URL") == 1
    assert "Traceback" not in result.stderr


def events_of(server: RunningServer) -> set[str]:
    return {word for word in server.log.read_text().replace('"', " ").split() if "." in word}
