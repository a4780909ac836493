"""`markethall relocate`, stopped in the middle of its copy."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import asyncpg

from tests.conftest import on_server, plain

PATIENCE: Final = 30
# stops whoever restores there at a command of the schema, until the test lets them go on
PARK: Final = """
CREATE FUNCTION public.park() RETURNS event_trigger LANGUAGE plpgsql AS
  $$ BEGIN PERFORM pg_advisory_xact_lock(1); END $$;
CREATE EVENT TRIGGER park ON ddl_command_end WHEN TAG IN ('{tag}') EXECUTE FUNCTION public.park()
"""
UNPARK: Final = "DROP EVENT TRIGGER park; DROP FUNCTION public.park()"
PARKED: Final = (
    "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
    " AND application_name = 'psql' AND wait_event = 'advisory'"
)
RESTORING: Final = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    " AND application_name = 'psql'"
)


@asynccontextmanager
async def parked(
    here: str, there: str, tag: str = "CREATE INDEX"
) -> "AsyncIterator[subprocess.Popen[str]]":
    """A move of inventory in the middle of its copy; it goes on after the block."""
    await on_server(there, PARK.format(tag=tag))
    connection = await asyncpg.connect(plain(there))
    await connection.execute("SELECT pg_advisory_lock(1)")
    process = begun("relocate", "inventory", "--to", there, database_url=here)
    try:
        async with asyncio.timeout(PATIENCE):
            while await connection.fetchval(PARKED) is None:
                assert process.poll() is None, process.stderr and process.stderr.read()
                await asyncio.sleep(0.01)
        yield process
    finally:
        await connection.close()
        await asyncio.to_thread(process.communicate)
        await nobody_restores(there)
        await on_server(there, UNPARK)


async def nobody_restores(there: str) -> None:
    """psql outlives a move that was killed, until its input ends."""
    connection = await asyncpg.connect(plain(there))
    try:
        async with asyncio.timeout(PATIENCE):
            while await connection.fetchval(RESTORING):
                await asyncio.sleep(0.01)
    finally:
        await connection.close()


def begun(*arguments: str, **environment: str) -> "subprocess.Popen[str]":
    given = {f"MARKETHALL_{name.upper()}": value for name, value in environment.items()}
    return subprocess.Popen(
        [sys.executable, "-m", "markethall", *arguments],
        env={**os.environ, **given},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
