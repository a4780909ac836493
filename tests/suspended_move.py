"""Run `markethall relocate` and suspend it in the middle of the copy."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import asyncpg

from tests.conftest import on_server, plain

TIMEOUT_SECONDS: Final = 30
# Suspends the restore of the dump: after the first command with this tag, such as CREATE INDEX, an
# event trigger of the target database makes psql wait for an advisory lock.
SUSPEND_RESTORE: Final = """
CREATE FUNCTION public.suspend() RETURNS event_trigger LANGUAGE plpgsql AS
  $$ BEGIN PERFORM pg_advisory_xact_lock(1); END $$;
CREATE EVENT TRIGGER suspend ON ddl_command_end WHEN TAG IN ('{tag}') EXECUTE FUNCTION
public.suspend()
"""
RESUME_RESTORE: Final = "DROP EVENT TRIGGER suspend; DROP FUNCTION public.suspend()"
SUSPENDED_PID: Final = (
    "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
    " AND application_name = 'psql' AND wait_event = 'advisory'"
)
RESTORING: Final = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    " AND application_name = 'psql'"
)


@asynccontextmanager
async def suspended_move(
    source_url: str, target_url: str, tag: str = "CREATE INDEX"
) -> "AsyncIterator[subprocess.Popen[str]]":
    """Start a relocation of inventory, suspend it during the block, and then let it finish."""
    await on_server(target_url, SUSPEND_RESTORE.format(tag=tag))
    connection = await asyncpg.connect(plain(target_url))
    await connection.execute("SELECT pg_advisory_lock(1)")
    process = start_command("relocate", "inventory", "--to", target_url, database_url=source_url)
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            while await connection.fetchval(SUSPENDED_PID) is None:
                assert process.poll() is None, process.stderr and process.stderr.read()
                await asyncio.sleep(0.01)
        yield process
    finally:
        await connection.close()
        await asyncio.to_thread(process.communicate)
        await wait_until_restore_ended(target_url)
        await on_server(target_url, RESUME_RESTORE)


async def wait_until_restore_ended(target_url: str) -> None:
    """Wait until psql has ended, which may be a moment after its killed relocation has ended.

    Raises TimeoutError after 30 s.
    """
    connection = await asyncpg.connect(plain(target_url))
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            while await connection.fetchval(RESTORING):
                await asyncio.sleep(0.01)
    finally:
        await connection.close()


def start_command(*arguments: str, **environment: str) -> "subprocess.Popen[str]":
    given = {f"MARKETHALL_{name.upper()}": value for name, value in environment.items()}
    return subprocess.Popen(
        [sys.executable, "-m", "markethall", *arguments],
        env={**os.environ, **given},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
