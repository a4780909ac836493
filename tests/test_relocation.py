"""`markethall move`: all of one context's data, compared, or nothing; after a kill, once more."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest

from markethall.migrating import upgrade_if_behind
from markethall.moving import MoveFailed, libpq, programs_for
from markethall.topology import Context
from tests.conftest import on_server
from tests.e2e.own import Books, own_database, own_hall
from tests.parked import PARKED, parked
from tests.test_cli import markethall

SPOIL = """
CREATE FUNCTION public.spoil() RETURNS event_trigger LANGUAGE plpgsql AS
  $$ BEGIN UPDATE inventory.product SET name = 'another' WHERE sku = 'CUP-STONE-BLUE'; END $$;
CREATE EVENT TRIGGER spoil ON ddl_command_end WHEN TAG IN ('CREATE INDEX')
  EXECUTE FUNCTION public.spoil()
"""
END_PARKED = PARKED.replace("SELECT pid", "SELECT pg_terminate_backend(pid)")
SHELF = "SELECT product_id, on_hand, reserved FROM {}.stock ORDER BY product_id"
LEDGER = "SELECT number, delta, on_hand_after FROM {}.stock_movement ORDER BY number"
SCHEMAS = "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'inventory%' ORDER BY 1"
# more than a pipe holds, so that pg_dump has to wait for psql
LONG = """
UPDATE inventory.product SET description = repeat('long ', 100000) WHERE sku = 'CUP-STONE-BLUE'
"""


@pytest.fixture(scope="module")
async def stocked(
    server_url: str, template: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[str]:
    """The name of a database with a catalogue in it, to be copied."""
    async with own_database(server_url, template) as url:
        folder = tmp_path_factory.mktemp("stocked")
        done = await asyncio.to_thread(markethall, "demo", database_url=url, data_dir=str(folder))
        assert done.returncode == 0, done.stderr
        yield urlsplit(url).path[1:]


@pytest.fixture
async def here(server_url: str, stocked: str) -> AsyncIterator[str]:
    async with own_database(server_url, stocked) as url:
        yield url


@pytest.fixture
async def there(server_url: str) -> AsyncIterator[str]:
    async with own_database(server_url, "template0") as url:
        yield url


async def moved(here: str, to: str, *more: str) -> "subprocess.CompletedProcess[str]":
    return await asyncio.to_thread(
        markethall, "move", "inventory", "--to", to, *more, database_url=here
    )


async def schemas(url: str) -> list[str]:
    return [row[0] for row in await Books(url).all(SCHEMAS)]


def refusal(done: "subprocess.CompletedProcess[str]") -> str:
    """The one line that says why."""
    assert done.returncode == 1, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    return line


def children_of(pid: int) -> list[Path]:
    found = Path(f"/proc/{pid}/task").glob("*/children")
    return [Path(f"/proc/{child}") for file in found for child in file.read_text().split()]


async def test_all_of_it_goes_along_and_only_the_address_is_printed(here: str, there: str) -> None:
    shelf, ledger = [await Books(here).all(sql.format("inventory")) for sql in (SHELF, LEDGER)]

    done = await moved(here, there)

    assert (done.returncode, done.stdout) == (0, f"{there}\n"), done.stderr
    assert "inventory.product: 24 rows" in done.stderr
    assert await Books(there).all(SHELF.format("inventory")) == shelf
    assert await Books(there).all(LEDGER.format("inventory")) == ledger
    assert await asyncio.to_thread(upgrade_if_behind, there, [Context.INVENTORY]) == []


async def test_the_rules_go_along_too(here: str, there: str) -> None:
    await moved(here, there)

    with pytest.raises(asyncpg.CheckViolationError, match="on_hand changes only by a movement"):
        await on_server(there, "UPDATE inventory.stock SET on_hand = on_hand + 1")
    with pytest.raises(asyncpg.CheckViolationError, match="only added to"):
        await on_server(there, "DELETE FROM inventory.stock_movement")


async def test_what_is_left_behind_is_put_aside_and_the_neighbours_stay(
    here: str, there: str
) -> None:
    shelf = await Books(here).all(SHELF.format("inventory"))

    await moved(here, there)

    assert await schemas(here) == ["inventory_before"]
    assert await Books(here).all(SHELF.format("inventory_before")) == shelf
    assert await asyncio.to_thread(upgrade_if_behind, here, [Context.ORDERS]) == []


async def test_a_name_is_a_new_database_on_the_same_server(here: str, server_url: str) -> None:
    name = urlsplit(here).path[1:] + "_own"
    done = await moved(here, name)
    own = done.stdout.strip()
    try:
        assert done.returncode == 0, done.stderr
        assert own.endswith(f"/{name}")
        assert await Books(own).value("SELECT count(*) FROM inventory.product") == 24
    finally:
        await on_server(server_url, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


async def test_there_and_back_again_any_number_of_times(here: str, there: str) -> None:
    shelf = await Books(here).all(SHELF.format("inventory"))

    for source, target in ((here, there), (there, here)) * 2:
        done = await moved(source, target)
        assert done.returncode == 0, done.stderr
        await on_server(source, "DROP SCHEMA inventory_before CASCADE")

    assert await schemas(there) == []
    assert await Books(here).all(SHELF.format("inventory")) == shelf


async def test_when_all_is_done_a_second_run_says_so(here: str, there: str) -> None:
    first = await moved(here, there)

    second = await moved(here, there)

    assert (second.returncode, second.stdout) == (0, first.stdout)
    assert "inventory is there already" in second.stderr


async def test_killed_after_the_copy_the_second_run_only_finishes(
    here: str, server_url: str, stocked: str
) -> None:
    async with own_database(server_url, stocked) as copied:
        done = await moved(here, copied)

    assert done.returncode == 0, done.stderr
    assert "copied before, and nothing has changed since" in done.stderr
    assert await schemas(here) == ["inventory_before"]


@pytest.mark.parametrize("tag", ["CREATE TABLE", "CREATE INDEX", "CREATE TRIGGER"])
async def test_killed_in_the_middle_nothing_is_there_and_nothing_is_gone(
    here: str, there: str, tag: str
) -> None:
    shelf = await Books(here).all(SHELF.format("inventory"))

    async with parked(here, there, tag) as process:
        process.kill()
    assert await schemas(there) == []
    kept = await Books(here).all(SHELF.format("inventory"))
    again = await moved(here, there)

    assert kept == shelf
    assert again.returncode == 0, again.stderr
    assert await Books(there).all(SHELF.format("inventory")) == shelf


@pytest.mark.parametrize("program", ["pg_dump", "psql"])
async def test_half_a_dump_is_never_committed(here: str, there: str, program: str) -> None:
    await on_server(here, LONG)

    async with parked(here, there, "CREATE TABLE") as process:
        (victim,) = [c for c in children_of(process.pid) if program in (c / "comm").read_text()]
        os.kill(int(victim.name), signal.SIGKILL)
        if program == "psql":
            # its server process waits for the test, and does not notice
            await on_server(there, END_PARKED)
    assert await schemas(there) == []

    assert process.returncode == 1
    assert await schemas(here) == ["inventory"]


async def test_no_argument_holds_a_password(here: str, there: str) -> None:
    await on_server(here, LONG)
    password = urlsplit(here).password

    async with parked(here, there, "CREATE TABLE") as process:
        arguments = [(child / "cmdline").read_text() for child in children_of(process.pid)]

    assert any("pg_dump" in line for line in arguments)
    assert any("psql" in line for line in arguments)
    assert password
    assert not any(password in line for line in arguments)


async def test_while_it_is_copied_it_can_be_read_and_not_written(here: str, there: str) -> None:
    receive = "UPDATE inventory.stock SET reserved = reserved"

    async with parked(here, there, "CREATE INDEX"):
        count = await Books(here).value("SELECT count(*) FROM inventory.stock")
        with pytest.raises(asyncpg.LockNotAvailableError):
            await on_server(here, f"SET lock_timeout = '100ms'; {receive}")
        await on_server(here, "UPDATE orders.inbox SET state = state")

    assert count == 24
    assert await schemas(there) == ["inventory"]


async def test_what_is_not_the_same_there_is_not_kept(here: str, there: str) -> None:
    await on_server(there, SPOIL)

    done = await moved(here, there)

    assert "inventory.product is not the same" in refusal(done)
    assert await schemas(there) == []
    assert await schemas(here) == ["inventory"]


async def test_a_database_made_for_nothing_is_taken_away_again(here: str, server_url: str) -> None:
    name = urlsplit(here).path[1:] + "_own"
    await on_server(here, "CREATE SCHEMA inventory_before")

    done = await moved(here, name)

    assert "inventory_before is still here" in refusal(done)
    found = await Books(server_url).all("SELECT FROM pg_database WHERE datname = $1", name)
    assert found == []


async def test_other_data_there_is_not_touched(here: str, server_url: str, stocked: str) -> None:
    async with own_database(server_url, stocked) as there:
        await on_server(there, "UPDATE inventory.product SET name = name || '!'")
        done = await moved(here, there)

        assert "there is another inventory already; it differs in inventory.product" in refusal(
            done
        )
        assert await schemas(there) == ["inventory"]
    assert await schemas(here) == ["inventory"]


async def test_an_empty_schema_made_by_hand_is_no_hindrance(here: str, there: str) -> None:
    await on_server(there, "CREATE SCHEMA inventory")

    done = await moved(here, there)

    assert done.returncode == 0, done.stderr
    assert await Books(there).value("SELECT count(*) FROM inventory.product") == 24


async def test_nobody_moves_onto_himself(here: str) -> None:
    done = await moved(here, here)

    assert "it is the same database" in refusal(done)
    assert await schemas(here) == ["inventory"]


async def test_what_is_not_here_cannot_be_moved(there: str, server_url: str) -> None:
    async with own_database(server_url, "template0") as nowhere:
        done = await moved(there, nowhere)

    assert "there is no inventory here to move" in refusal(done)


async def test_a_context_that_is_being_served_stays_unless_forced(
    here: str, there: str, scratch: Path
) -> None:
    with own_hall(scratch, "served", database_url=here):
        refused = await moved(here, there)
        kept = await schemas(here)
        forced = await moved(here, there, "--force")

    assert "a process serves inventory on this database: stop it first" in refusal(refused)
    assert kept == ["inventory"]
    assert forced.returncode == 0, forced.stderr
    assert await schemas(there) == ["inventory"]


async def test_a_context_can_be_moved_while_its_neighbours_are_served(
    here: str, there: str, scratch: Path
) -> None:
    with own_hall(scratch, "neighbours", database_url=here, serve="users"):
        done = await moved(here, there)

    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("to", ["Inventory", "a b", "x" * 64, 'a"; DROP DATABASE b'])
async def test_a_name_that_would_need_quotes_is_refused(here: str, to: str) -> None:
    done = await moved(here, to)

    assert "a name for a database of a-z, 0-9 and _" in refusal(done)


def test_a_database_that_is_not_reached_is_said_without_its_password() -> None:
    nowhere = "postgresql://me:hidden@127.0.0.1:1/x"

    done = markethall("move", "inventory", "--to", "own", database_url=nowhere)

    assert "the database here cannot be reached" in refusal(done)
    assert "hidden" not in done.stderr


def test_memory_has_nothing_to_move() -> None:
    done = markethall("move", "inventory", "--to", "own", storage="memory")

    assert done.returncode == 2
    assert "memory cannot be moved" in done.stderr


def test_an_older_pg_dump_on_the_path_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(tmp_path, 14, monkeypatch)

    assert programs_for(14, 18).folder == tmp_path
    assert programs_for(18, 18).folder != tmp_path


def test_without_a_pg_dump_that_is_new_enough_it_says_which_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(tmp_path, 14, monkeypatch)
    monkeypatch.setattr(sys, "path", [])

    with pytest.raises(MoveFailed, match="of Postgres 18 are needed; found: 14"):
        programs_for(18, 18)


def test_a_move_to_an_older_server_is_refused() -> None:
    with pytest.raises(MoveFailed, match="the server there is Postgres 17, older than 18 here"):
        programs_for(18, 17)


def plant(folder: Path, major: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs of that version, the only ones on PATH."""
    for name in ("pg_dump", "psql"):
        program = folder / name
        program.write_text(f"#!/bin/sh\necho '{name} (PostgreSQL) {major}.1'\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


def test_all_that_an_address_says_goes_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MARKETHALL_SECRET", "not for them")

    given = libpq("postgresql+asyncpg://me:p%40ss@db.example:6432/shop?ssl=require")

    assert given["PGPASSWORD"] == "p@ss"
    assert (given["PGHOST"], given["PGPORT"], given["PGUSER"]) == ("db.example", "6432", "me")
    assert (given["PGDATABASE"], given["PGSSLMODE"]) == ("shop", "require")
    assert not [name for name in given if name.startswith("MARKETHALL")]
