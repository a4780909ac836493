"""Moves the data of one context into another database.

One transaction on the target writes the copy and compares it with the source. During this time the
tables of the source are locked against writes. After the commit on the target, the schema of the
source is renamed. So no write is lost, and a run that was killed can be repeated.
"""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import asyncpg

from markethall.relocation.schema_copy import (
    TEXT_SETTINGS,
    PgTools,
    RelocationFailed,
    RowChecksums,
    SchemaCopy,
    checksum_query,
    find_pg_tools,
    parse_url,
)
from markethall.schema_state import renamed_schema
from markethall.shared.persistence.postgres_url import InvalidPostgresUrl, asyncpg_dsn

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

Reporter = Callable[[str], None]

# time for the server to release the locks of a process that was just killed
_SERVED_WAIT_SECONDS: Final = 3.0
_CONNECT_TIMEOUT_SECONDS: Final = 10.0
_LOCK_TIMEOUT: Final = "10s"
_DATABASE_NAME: Final = re.compile(r"[a-z_][a-z0-9_]{0,62}")
_RELATIONS: Final = """
SELECT format('%I.%I', n.nspname, c.relname) AS relation, c.relkind = 'S' AS is_sequence
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = $1 AND c.relkind IN ('r', 'p', 'S') ORDER BY 2, 1
"""
_COUNT_OBJECTS: Final = """
SELECT count(*) FROM pg_depend
WHERE refclassid = 'pg_namespace'::regclass AND refobjid = to_regnamespace($1) AND deptype = 'n'
"""
_TRY_LOCK: Final = "SELECT pg_try_advisory_lock(hashtextextended($1, 0))"
# finds processes that serve the context: their last statement contains a table of its schema
_SERVING_PIDS: Final = """
SELECT array_agg(pid) FROM pg_stat_activity
WHERE datname = current_database() AND application_name = 'markethall'
    AND query ~ ('\\m' || $1 || '\\.')
"""


async def relocate(
    context: str, source_url: str, to: str, *, force: bool = False, report: Reporter
) -> str:
    """Move the data and return the URL of the new database. Raises RelocationFailed.

    `to` is a URL, or the name of a database on the same server, which is created if missing.
    `force` skips the check for processes that serve the context.
    """
    try:
        async with _connected(source_url, "source") as source:
            await _lock_relocation(source, context, "another relocation is running")
            if not force:
                await _refuse_if_served(source, context)
            async with (
                _target_database(source, source_url, to) as target_url,
                _connected(target_url, "target") as target,
            ):
                reason = "it is the same database, or another relocation is running"
                await _lock_relocation(target, context, reason)
                await _Relocation(context, source, target, source_url, target_url, report).run()
            return target_url
    except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise RelocationFailed(str(error).partition("\n")[0]) from error


@asynccontextmanager
async def _connected(url: str, name: str) -> "AsyncIterator[Connection]":
    try:
        connection = await asyncpg.connect(asyncpg_dsn(url), timeout=_CONNECT_TIMEOUT_SECONDS)
    except InvalidPostgresUrl as error:
        raise RelocationFailed(f"the address of the {name} {error}") from error
    except OSError as error:
        raise RelocationFailed(f"the {name} database cannot be reached: {error!r}") from error
    try:
        for setting in TEXT_SETTINGS:
            await connection.execute(setting)
        yield connection
    finally:
        await connection.close()


async def _lock_relocation(side: "Connection", context: str, reason: str) -> None:
    """Take an advisory lock until the connection ends. Raises RelocationFailed if it is taken.

    `relocate` takes it on the source and on the target. The second call also fails if both are the
    same database.
    """
    if not await side.fetchval(_TRY_LOCK, f"markethall.relocation.{context}"):
        raise RelocationFailed(reason)


async def _refuse_if_served(source: "Connection", context: str) -> None:
    """Raises RelocationFailed if a process serves the context.

    This also takes the leader lock of the context's background workers, so that a process that
    starts later does no background work.
    """
    has_lease, deadline = False, time.monotonic() + _SERVED_WAIT_SECONDS
    while True:
        has_lease = has_lease or await source.fetchval(_TRY_LOCK, f"markethall.relay.{context}")
        serving = await source.fetchval(_SERVING_PIDS, context)
        if has_lease and not serving:
            return
        if time.monotonic() > deadline:
            raise RelocationFailed(f"a process serves {context} on this database: stop it first")
        await asyncio.sleep(0.1)


@asynccontextmanager
async def _target_database(source: "Connection", source_url: str, to: str) -> AsyncIterator[str]:
    """Yield the URL of the target. After a failure, drop the database if this run created it."""
    if "://" in to:
        yield to
        return
    if not _DATABASE_NAME.fullmatch(to):
        raise RelocationFailed("--to: an address, or a name for a database of a-z, 0-9 and _")
    is_new = not await source.fetchval("SELECT true FROM pg_database WHERE datname = $1", to)
    if is_new:
        await source.execute(f'CREATE DATABASE "{to}"')
    try:
        yield parse_url(source_url).set(database=to).render_as_string(hide_password=False)
    except BaseException:
        if is_new:
            with suppress(asyncpg.PostgresError, asyncpg.InterfaceError):
                await source.execute(f'DROP DATABASE "{to}" WITH (FORCE)')
        raise


@dataclass(frozen=True)
class _Relocation:
    context: str
    source: "Connection"
    target: "Connection"
    source_url: str
    target_url: str
    report: Reporter

    @property
    def renamed_source_schema(self) -> str:
        return renamed_schema(self.context)

    async def run(self) -> None:
        relations = await _relations(self.source, self.context)
        if not relations:
            await self._check_is_done()
            return
        renamed = self.renamed_source_schema
        if await self.source.fetchval("SELECT to_regnamespace($1) IS NOT NULL", renamed):
            raise RelocationFailed(f"{renamed} of an earlier relocation exists: drop it first")
        tools = find_pg_tools(_major_of(self.source), _major_of(self.target))
        async with self.source.transaction(isolation="repeatable_read"):
            await self._lock_out_writers(relations)
            # must be the first statement that reads, so that `_checksums` and pg_dump read the same
            # snapshot, taken after the tables are locked
            snapshot = await self.source.fetchval("SELECT pg_export_snapshot()")
            checksums = await _checksums(self.source, relations)
            await self._copy_unless_done(tools, snapshot, checksums)
            await self.source.execute(f"ALTER SCHEMA {self.context} RENAME TO {renamed}")
        self.report(f"the source schema is {renamed} now: drop it when you are sure")

    async def _check_is_done(self) -> None:
        """Report success if the target already has the context: an earlier run has moved it.

        Raises RelocationFailed otherwise.
        """
        if not await _relations(self.target, self.context):
            raise RelocationFailed(f"the source has no {self.context} to move")
        self.report(f"{self.context} is in the target already")

    async def _lock_out_writers(self, relations: Mapping[str, bool]) -> None:
        tables = ", ".join(name for name, is_sequence in relations.items() if not is_sequence)
        await self.source.execute(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'")
        await self.source.execute(f"LOCK TABLE {tables} IN SHARE MODE")

    async def _copy_unless_done(
        self, tools: PgTools, snapshot: str, checksums: RowChecksums
    ) -> None:
        if await self.target.fetchval(_COUNT_OBJECTS, self.context):
            await self._require_same_data(checksums)
            self.report(f"{self.context} was copied before, and nothing has changed since")
            return
        for relation, rows in checksums.items():
            self.report(f"{relation}: {rows}")
        copy = SchemaCopy(tools, self.context, self.source_url, self.target_url)
        await asyncio.to_thread(copy.run, snapshot, checksums)

    async def _require_same_data(self, checksums: RowChecksums) -> None:
        found = await _checksums(self.target, await _relations(self.target, self.context))
        names = [n for n in {**checksums, **found} if checksums.get(n) != found.get(n)]
        if names:
            differing = ", ".join(names)
            raise RelocationFailed(f"the target has another {self.context}: {differing} differ")


async def _relations(side: "Connection", context: str) -> dict[str, bool]:
    """Map each table and sequence of the context to whether it is a sequence."""
    rows = await side.fetch(_RELATIONS, context)
    return {row["relation"]: row["is_sequence"] for row in rows}


async def _checksums(side: "Connection", relations: Mapping[str, bool]) -> RowChecksums:
    return {
        relation: await side.fetchval(checksum_query(relation, is_sequence=is_sequence))
        for relation, is_sequence in relations.items()
    }


def _major_of(side: "Connection") -> int:
    return int(side.get_server_version().major)
