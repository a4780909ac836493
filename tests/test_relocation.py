"""Test `markethall relocate`: it moves all data or none, and can be repeated after a kill."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import psutil
import pytest

from markethall.relocation import RelocationFailed
from markethall.relocation.schema_copy import find_pg_tools, libpq_environment
from markethall.schema_state import upgrade_outdated
from tests.conftest import on_server
from tests.e2e.dedicated_server import DatabaseReader, dedicated_database, dedicated_server
from tests.suspended_move import SUSPENDED_PID, suspended_move
from tests.test_cli import markethall

CORRUPT = """
CREATE FUNCTION public.corrupt() RETURNS event_trigger LANGUAGE plpgsql AS
  $$ BEGIN UPDATE inventory.product SET name = 'another' WHERE sku = 'CUP-STONE-BLUE'; END $$;
CREATE EVENT TRIGGER corrupt ON ddl_command_end WHEN TAG IN ('CREATE INDEX')
  EXECUTE FUNCTION public.corrupt()
"""
TERMINATE_SUSPENDED = SUSPENDED_PID.replace("SELECT pid", "SELECT pg_terminate_backend(pid)")
STOCK = "SELECT product_id, on_hand, reserved FROM {}.stock ORDER BY product_id"
MOVEMENTS = "SELECT number, delta, on_hand_after FROM {}.stock_movement ORDER BY number"
SCHEMAS = "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'inventory%' ORDER BY 1"
# more data than a pipe can hold, so that pg_dump has to wait for psql
LONG = """
UPDATE inventory.product SET description = repeat('long ', 100000) WHERE sku = 'CUP-STONE-BLUE'
"""


@pytest.fixture(scope="module")
async def filled_database(
    server_url: str, template: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[str]:
    """The name of a database with a catalogue, from which tests create databases."""
    async with dedicated_database(server_url, template) as url:
        folder = tmp_path_factory.mktemp("filled_database")
        result = await asyncio.to_thread(markethall, "demo", database_url=url, data_dir=str(folder))
        assert result.returncode == 0, result.stderr
        yield urlsplit(url).path[1:]


@pytest.fixture
async def source(server_url: str, filled_database: str) -> AsyncIterator[str]:
    async with dedicated_database(server_url, filled_database) as url:
        yield url


@pytest.fixture
async def target(server_url: str) -> AsyncIterator[str]:
    async with dedicated_database(server_url, "template0") as url:
        yield url


async def relocate(source: str, to: str, *more: str) -> "subprocess.CompletedProcess[str]":
    return await asyncio.to_thread(
        markethall, "relocate", "inventory", "--to", to, *more, database_url=source
    )


async def schemas(url: str) -> list[str]:
    return [row[0] for row in await DatabaseReader(url).fetch_all(SCHEMAS)]


def error_line(result: "subprocess.CompletedProcess[str]") -> str:
    """Return the only error line of a failed command."""
    assert result.returncode == 1, result.stderr
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    return line


def children_of(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children()


async def test_all_data_is_moved_and_no_password_is_printed(source: str, target: str) -> None:
    stock, movements = [
        await DatabaseReader(source).fetch_all(sql.format("inventory"))
        for sql in (STOCK, MOVEMENTS)
    ]

    result = await relocate(source, target)

    assert (result.returncode, result.stdout) == (0, ""), result.stderr
    assert str(urlsplit(target).password) not in result.stderr
    assert "inventory.product: 24 rows" in result.stderr
    assert await DatabaseReader(target).fetch_all(STOCK.format("inventory")) == stock
    assert await DatabaseReader(target).fetch_all(MOVEMENTS.format("inventory")) == movements
    assert await asyncio.to_thread(upgrade_outdated, target, ["inventory"]) == []


async def test_constraints_are_moved_too(source: str, target: str) -> None:
    await relocate(source, target)

    with pytest.raises(asyncpg.CheckViolationError, match="on_hand changes only by a movement"):
        await on_server(target, "UPDATE inventory.stock SET on_hand = on_hand + 1")
    with pytest.raises(asyncpg.CheckViolationError, match="only added to"):
        await on_server(target, "DELETE FROM inventory.stock_movement")


async def test_the_source_schema_is_renamed_and_other_contexts_stay(
    source: str, target: str
) -> None:
    stock = await DatabaseReader(source).fetch_all(STOCK.format("inventory"))

    await relocate(source, target)

    assert await schemas(source) == ["inventory_before"]
    assert await DatabaseReader(source).fetch_all(STOCK.format("inventory_before")) == stock
    assert await asyncio.to_thread(upgrade_outdated, source, ["orders"]) == []


async def test_a_name_creates_a_database_on_the_same_server(source: str, server_url: str) -> None:
    name = urlsplit(source).path[1:] + "_own"
    result = await relocate(source, name)
    own = result.stdout.strip()
    try:
        assert result.returncode == 0, result.stderr
        assert own.endswith(f"/{name}")
        assert await DatabaseReader(own).fetch_value("SELECT count(*) FROM inventory.product") == 24
    finally:
        await on_server(server_url, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


async def test_data_can_be_moved_back_and_forth(source: str, target: str) -> None:
    stock = await DatabaseReader(source).fetch_all(STOCK.format("inventory"))

    for from_url, to_url in ((source, target), (target, source)) * 2:
        result = await relocate(from_url, to_url)
        assert result.returncode == 0, result.stderr
        await on_server(from_url, "DROP SCHEMA inventory_before CASCADE")

    assert await schemas(target) == []
    assert await DatabaseReader(source).fetch_all(STOCK.format("inventory")) == stock


async def test_a_second_run_reports_that_nothing_is_left_to_do(source: str, target: str) -> None:
    first = await relocate(source, target)

    second = await relocate(source, target)

    assert (second.returncode, second.stdout) == (0, first.stdout)
    assert "inventory is in the target already" in second.stderr


async def test_second_run_completes_after_a_kill_behind_the_copy(
    source: str, server_url: str, filled_database: str
) -> None:
    async with dedicated_database(server_url, filled_database) as copy:
        result = await relocate(source, copy)

    assert result.returncode == 0, result.stderr
    assert "copied before, and nothing has changed since" in result.stderr
    assert await schemas(source) == ["inventory_before"]


@pytest.mark.parametrize("tag", ["CREATE TABLE", "CREATE INDEX", "CREATE TRIGGER"])
async def test_kill_during_the_copy_changes_nothing(source: str, target: str, tag: str) -> None:
    stock = await DatabaseReader(source).fetch_all(STOCK.format("inventory"))

    async with suspended_move(source, target, tag) as process:
        process.kill()
    assert await schemas(target) == []
    remaining = await DatabaseReader(source).fetch_all(STOCK.format("inventory"))
    again = await relocate(source, target)

    assert remaining == stock
    assert again.returncode == 0, again.stderr
    assert await DatabaseReader(target).fetch_all(STOCK.format("inventory")) == stock


@pytest.mark.parametrize("program", ["pg_dump", "psql"])
async def test_an_incomplete_dump_is_never_committed(
    source: str, target: str, program: str
) -> None:
    await on_server(source, LONG)

    async with suspended_move(source, target, "CREATE TABLE") as process:
        (victim,) = [child for child in children_of(process.pid) if child.name() == program]
        victim.kill()
        if program == "psql":
            # end the Postgres backend, which waits for a lock and does not notice the end of psql
            await on_server(target, TERMINATE_SUSPENDED)
    assert await schemas(target) == []

    assert process.returncode == 1
    assert await schemas(source) == ["inventory"]


async def test_arguments_contain_no_password(source: str, target: str) -> None:
    await on_server(source, LONG)
    password = urlsplit(source).password

    async with suspended_move(source, target, "CREATE TABLE") as process:
        arguments = [" ".join(child.cmdline()) for child in children_of(process.pid)]

    assert any("pg_dump" in line for line in arguments)
    assert any("psql" in line for line in arguments)
    assert password
    assert not any(password in line for line in arguments)


async def test_source_is_read_only_during_the_copy(source: str, target: str) -> None:
    receive = "UPDATE inventory.stock SET reserved = reserved"

    async with suspended_move(source, target, "CREATE INDEX"):
        count = await DatabaseReader(source).fetch_value("SELECT count(*) FROM inventory.stock")
        with pytest.raises(asyncpg.LockNotAvailableError):
            await on_server(source, f"SET lock_timeout = '100ms'; {receive}")
        await on_server(source, "UPDATE orders.inbox SET state = state")

    assert count == 24
    assert await schemas(target) == ["inventory"]


async def test_a_copy_that_differs_is_not_committed(source: str, target: str) -> None:
    await on_server(target, CORRUPT)

    result = await relocate(source, target)

    assert "inventory.product is not the same" in error_line(result)
    assert await schemas(target) == []
    assert await schemas(source) == ["inventory"]


async def test_failed_relocation_drops_the_database_it_created(
    source: str, server_url: str
) -> None:
    name = urlsplit(source).path[1:] + "_own"
    await on_server(source, "CREATE SCHEMA inventory_before")

    result = await relocate(source, name)

    assert "inventory_before of an earlier relocation exists" in error_line(result)
    found = await DatabaseReader(server_url).fetch_all(
        "SELECT FROM pg_database WHERE datname = $1", name
    )
    assert found == []


async def test_other_data_in_the_target_is_not_touched(
    source: str, server_url: str, filled_database: str
) -> None:
    async with dedicated_database(server_url, filled_database) as target:
        await on_server(target, "UPDATE inventory.product SET name = name || '!'")
        result = await relocate(source, target)

        assert "the target has another inventory: inventory.product differ" in error_line(result)
        assert await schemas(target) == ["inventory"]
    assert await schemas(source) == ["inventory"]


async def test_an_empty_schema_in_the_target_is_replaced(source: str, target: str) -> None:
    await on_server(target, "CREATE SCHEMA inventory")

    result = await relocate(source, target)

    assert result.returncode == 0, result.stderr
    assert await DatabaseReader(target).fetch_value("SELECT count(*) FROM inventory.product") == 24


async def test_the_target_must_be_another_database(source: str) -> None:
    result = await relocate(source, source)

    assert "it is the same database" in error_line(result)
    assert await schemas(source) == ["inventory"]


async def test_a_missing_context_cannot_be_moved(target: str, server_url: str) -> None:
    async with dedicated_database(server_url, "template0") as other:
        result = await relocate(target, other)

    assert "the source has no inventory to move" in error_line(result)


async def test_served_context_is_moved_only_with_force(
    source: str, target: str, scratch: Path
) -> None:
    with dedicated_server(scratch, "served", database_url=source):
        refused = await relocate(source, target)
        remaining = await schemas(source)
        forced = await relocate(source, target, "--force")

    assert "a process serves inventory on this database: stop it first" in error_line(refused)
    assert remaining == ["inventory"]
    assert forced.returncode == 0, forced.stderr
    assert await schemas(target) == ["inventory"]


async def test_a_context_can_be_moved_while_others_are_served(
    source: str, target: str, scratch: Path, redis_url: str
) -> None:
    settings = {"database_url": source, "redis_url": redis_url, "contexts": "users"}
    with dedicated_server(scratch, "others", **settings):
        result = await relocate(source, target)

    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("to", ["Inventory", "a b", "x" * 64, 'a"; DROP DATABASE b'])
async def test_name_that_needs_quotes_is_rejected(source: str, to: str) -> None:
    result = await relocate(source, to)

    assert "a name for a database of a-z, 0-9 and _" in error_line(result)


def test_an_unreachable_database_is_reported_without_its_password() -> None:
    other = "postgresql://me:hidden@127.0.0.1:1/x"

    result = markethall("relocate", "inventory", "--to", "own", database_url=other)

    assert "the source database cannot be reached" in error_line(result)
    assert "hidden" not in result.stderr


def test_memory_storage_cannot_be_moved() -> None:
    result = markethall("relocate", "inventory", "--to", "own", storage="memory")

    assert result.returncode == 2
    assert "memory cannot be relocated" in result.stderr


def test_an_older_pg_dump_on_path_is_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_pg_tools(tmp_path, 14, monkeypatch)

    assert find_pg_tools(14, 18).folder == tmp_path
    assert find_pg_tools(18, 18).folder != tmp_path


def test_the_needed_version_of_pg_dump_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_pg_tools(tmp_path, 14, monkeypatch)
    monkeypatch.setattr(sys, "path", [])

    with pytest.raises(RelocationFailed, match="of Postgres 18 are needed; found: 14"):
        find_pg_tools(18, 18)


def test_an_older_target_server_is_refused() -> None:
    with pytest.raises(
        RelocationFailed, match="the target server is Postgres 17, older than the source, 18"
    ):
        find_pg_tools(18, 17)


def fake_pg_tools(folder: Path, major: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set PATH to a directory with fake pg_dump and psql of this version."""
    for name in ("pg_dump", "psql"):
        program = folder / name
        program.write_text(f"#!/bin/sh\necho '{name} (PostgreSQL) {major}.1'\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


def test_every_part_of_a_database_url_becomes_an_environment_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MARKETHALL_SECRET_KEY", "not for pg_dump")

    environment = libpq_environment(
        "postgresql+asyncpg://me:p%40ss@db.example:6432/shop?ssl=require"
    )

    assert environment["PGPASSWORD"] == "p@ss"
    assert (environment["PGHOST"], environment["PGPORT"], environment["PGUSER"]) == (
        "db.example",
        "6432",
        "me",
    )
    assert (environment["PGDATABASE"], environment["PGSSLMODE"]) == ("shop", "require")
    assert not [name for name in environment if name.startswith("MARKETHALL")]
