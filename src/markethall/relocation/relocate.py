"""Moves the data of one context into another database: all of it, compared, or nothing.

The copy is made and compared in one transaction there; the schema here is locked against writers
meanwhile, and renamed when the copy stands. So no write is lost between the two, whoever writes,
and whatever is killed: run it again.
"""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import asyncpg

from markethall.moving.addresses import MoveFailed, dsn, libpq, parts_of
from markethall.moving.copying import SAME_TEXT, Census, Copy, count
from markethall.moving.programs import Programs, programs_for
from markethall.topology import Context

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

__all__ = ["MoveFailed", "libpq", "move", "programs_for"]

Say = Callable[[str], None]

_PATIENCE: Final = 3.0  # seconds in which a process that was just killed has let go of its lock
_CONNECT: Final = 10.0
_LOCK_WAIT: Final = "10s"
_NAME: Final = re.compile(r"[a-z_][a-z0-9_]{0,62}")
_RELATIONS: Final = """
SELECT format('%I.%I', n.nspname, c.relname) AS relation, c.relkind = 'S' AS is_sequence
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = $1 AND c.relkind IN ('r', 'p', 'S') ORDER BY 2, 1
"""
_OBJECTS: Final = """
SELECT count(*) FROM pg_depend
WHERE refclassid = 'pg_namespace'::regclass AND refobjid = to_regnamespace($1) AND deptype = 'n'
"""
# the relay of the context holds the first; whoever serves it has used its tables
_LOCK: Final = "SELECT pg_try_advisory_lock(hashtextextended($1, 0))"
_WHO_SERVES: Final = """
SELECT array_agg(pid) FROM pg_stat_activity
WHERE datname = current_database() AND application_name = 'markethall'
    AND query ~ ('\\m' || $1 || '\\.')
"""


async def move(context: Context, source_url: str, to: str, *, force: bool = False, say: Say) -> str:
    """The URL of the database in which the context's data is now.

    `to` is a URL, or the name of a database on the same server, which is made where it is missing.
    `force` takes the data away from under processes that work with it. Raises MoveFailed.
    """
    try:
        async with _connected(source_url, "here") as source:
            await _claim(source, context, "another move is under way")
            if not force:
                await _refuse_if_served(source, context)
            async with (
                _home(source, source_url, to) as target_url,
                _connected(target_url, "there") as target,
            ):
                await _claim(target, context, "it is the same database, or a move is under way")
                await _Move(context, source, target, source_url, target_url, say).run()
            return target_url
    except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise MoveFailed(str(error).partition("\n")[0]) from error


@asynccontextmanager
async def _connected(url: str, where: str) -> "AsyncIterator[Connection]":
    try:
        connection = await asyncpg.connect(dsn(url), timeout=_CONNECT)
    except OSError as error:
        raise MoveFailed(f"the database {where} cannot be reached: {error!r}") from error
    try:
        for setting in SAME_TEXT:
            await connection.execute(setting)
        yield connection
    finally:
        await connection.close()


async def _claim(side: "Connection", context: Context, otherwise: str) -> None:
    """Until the connection ends. Two connections to one database cannot both have it."""
    if not await side.fetchval(_LOCK, f"markethall.move.{context}"):
        raise MoveFailed(otherwise)


async def _refuse_if_served(source: "Connection", context: Context) -> None:
    """Keeps the lead of the context's background work: who starts meanwhile cannot begin it."""
    leads, deadline = False, time.monotonic() + _PATIENCE
    while True:
        leads = leads or await source.fetchval(_LOCK, f"markethall.relay.{context}")
        serving = await source.fetchval(_WHO_SERVES, context.value)
        if leads and not serving:
            return
        if time.monotonic() > deadline:
            raise MoveFailed(f"a process serves {context} on this database: stop it first")
        await asyncio.sleep(0.1)  # one that was killed a moment ago is still on its way out


@asynccontextmanager
async def _home(source: "Connection", source_url: str, to: str) -> AsyncIterator[str]:
    """A database made for this is taken away again when nothing has come into it."""
    if "://" in to:
        yield to
        return
    if not _NAME.fullmatch(to):
        raise MoveFailed("--to: an address, or a name for a database of a-z, 0-9 and _")
    made = not await source.fetchval("SELECT true FROM pg_database WHERE datname = $1", to)
    if made:
        await source.execute(f'CREATE DATABASE "{to}"')
    try:
        yield parts_of(source_url).set(database=to).render_as_string(hide_password=False)
    except BaseException:
        if made:
            with suppress(asyncpg.PostgresError, asyncpg.InterfaceError):
                await source.execute(f'DROP DATABASE "{to}" WITH (FORCE)')
        raise


@dataclass(frozen=True)
class _Move:
    context: Context
    source: "Connection"
    target: "Connection"
    source_url: str
    target_url: str
    say: Say

    @property
    def left_behind(self) -> str:
        return f"{self.context}_before"

    async def run(self) -> None:
        relations = await _relations(self.source, self.context)
        if not relations:
            await self._is_done()
            return
        if await self.source.fetchval("SELECT to_regnamespace($1) IS NOT NULL", self.left_behind):
            raise MoveFailed(f"{self.left_behind} is still here, of an earlier move: drop it first")
        programs = programs_for(_major_of(self.source), _major_of(self.target))
        async with self.source.transaction(isolation="repeatable_read"):
            await self._keep_writers_out(relations)
            # the first statement that reads: from here on we and pg_dump see the same
            snapshot = await self.source.fetchval("SELECT pg_export_snapshot()")
            census = await _census(self.source, relations)
            await self._copy_unless_there(programs, snapshot, census)
            await self.source.execute(f"ALTER SCHEMA {self.context} RENAME TO {self.left_behind}")
        self.say(f"left behind as {self.left_behind}: drop it when you are sure")

    async def _is_done(self) -> None:
        """A run before this one may have been killed when all was done."""
        if not await _relations(self.target, self.context):
            raise MoveFailed(f"there is no {self.context} here to move")
        self.say(f"{self.context} is there already")

    async def _keep_writers_out(self, relations: Mapping[str, bool]) -> None:
        tables = ", ".join(name for name, is_sequence in relations.items() if not is_sequence)
        await self.source.execute(f"SET LOCAL lock_timeout = '{_LOCK_WAIT}'")
        await self.source.execute(f"LOCK TABLE {tables} IN SHARE MODE")

    async def _copy_unless_there(self, programs: Programs, snapshot: str, census: Census) -> None:
        if await self.target.fetchval(_OBJECTS, self.context.value):
            await self._refuse_another(census)
            self.say(f"{self.context} was copied before, and nothing has changed since")
            return
        for relation, rows in census.items():
            self.say(f"{relation}: {rows}")
        copy = Copy(programs, self.context, self.source_url, self.target_url)
        await asyncio.to_thread(copy.run, snapshot, census)

    async def _refuse_another(self, census: Census) -> None:
        theirs = await _census(self.target, await _relations(self.target, self.context))
        differing = [name for name in {**census, **theirs} if census.get(name) != theirs.get(name)]
        if differing:
            names = ", ".join(differing)
            raise MoveFailed(f"there is another {self.context} already; it differs in {names}")


async def _relations(side: "Connection", context: Context) -> dict[str, bool]:
    rows = await side.fetch(_RELATIONS, context.value)
    return {row["relation"]: row["is_sequence"] for row in rows}


async def _census(side: "Connection", relations: Mapping[str, bool]) -> Census:
    return {
        relation: await side.fetchval(count(relation, is_sequence=is_sequence))
        for relation, is_sequence in relations.items()
    }


def _major_of(side: "Connection") -> int:
    return int(side.get_server_version().major)
