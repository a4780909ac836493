"""Moves the data of one context into another database: all of it, compared, or nothing.

The copy is made and compared in one transaction there; the schema here is locked against writers
meanwhile, and renamed when the copy stands. So no write is lost between the two, whoever writes,
and whatever is killed: run it again.
"""

import asyncio
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, cast

import asyncpg
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from markethall.embedded.binaries import wheel_folder
from markethall.topology import Context

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

Say = Callable[[str], None]
# table or sequence -> how many rows, and a sum over all of them
Census = Mapping[str, str]

_PATIENCE: Final = 3.0  # seconds in which a process that was just killed has let go of its lock
_CONNECT: Final = 10.0
_LOCK_WAIT: Final = "10s"
_NAME: Final = re.compile(r"[a-z_][a-z0-9_]{0,62}")
# what libpq takes from its environment: a password in an argument is seen by everybody
_LIBPQ: Final = {
    "host": "PGHOST",
    "port": "PGPORT",
    "ssl": "PGSSLMODE",
    "sslmode": "PGSSLMODE",
    "sslrootcert": "PGSSLROOTCERT",
    "sslcert": "PGSSLCERT",
    "sslkey": "PGSSLKEY",
    "options": "PGOPTIONS",
}
# an empty schema of that name may have been made by hand
_BEGIN: Final = """
\\o /dev/null
BEGIN;
SET client_min_messages = warning;
DROP SCHEMA IF EXISTS {schema};
"""
# a row's text is the same on both sides
_SAME_TEXT: Final = (
    "SET timezone = 'UTC'",
    "SET datestyle = 'ISO'",
    "SET intervalstyle = 'iso_8601'",
    "SET extra_float_digits = 1",
    "SET bytea_output = 'hex'",
)
# of the rows in any order, and in no more memory than one of them needs
_ROWS: Final = """
SELECT count(*) || ' rows, sum ' || coalesce(sum(('x' || encode(
    substring(sha256(convert_to(the_row::text, 'UTF8')) FROM 1 FOR 8), 'hex'))::bit(64)::bigint), 0)
FROM {relation} the_row
"""
_SEQUENCE: Final = """
SELECT 'at ' || last_value || CASE WHEN is_called THEN '' ELSE ', unused' END FROM {relation}
"""
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


class MoveFailed(RuntimeError):
    """In one line. The source is as it was, and there is no half copy."""


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
        connection = await asyncpg.connect(_dsn(url), timeout=_CONNECT)
    except OSError as error:
        raise MoveFailed(f"the database {where} cannot be reached: {error!r}") from error
    try:
        for setting in _SAME_TEXT:
            await connection.execute(setting)
        yield connection
    finally:
        await connection.close()


def _dsn(url: str) -> str:
    """As asyncpg reads it: SQLAlchemy's name for sslmode is its own."""
    parts = _parts(url)
    if mode := parts.query.get("ssl"):
        parts = parts.difference_update_query(["ssl"]).update_query_dict({"sslmode": str(mode)})
    return parts.render_as_string(hide_password=False)


def _parts(url: str) -> URL:
    try:
        return make_url(url).set(drivername="postgresql")
    except (ArgumentError, ValueError):
        # without its text: there is a password in it
        raise MoveFailed("an address is like postgresql://user:…@host/database") from None


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
        yield _parts(source_url).set(database=to).render_as_string(hide_password=False)
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

    async def _copy_unless_there(self, programs: "Programs", snapshot: str, census: Census) -> None:
        if await self.target.fetchval(_OBJECTS, self.context.value):
            await self._refuse_another(census)
            self.say(f"{self.context} was copied before, and nothing has changed since")
            return
        for relation, rows in census.items():
            self.say(f"{relation}: {rows}")
        copy = _Copy(programs, self.context, self.source_url, self.target_url)
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
        relation: await side.fetchval(_count(relation, is_sequence=is_sequence))
        for relation, is_sequence in relations.items()
    }


def _count(relation: str, *, is_sequence: bool) -> str:
    return (_SEQUENCE if is_sequence else _ROWS).format(relation=relation)


def _major_of(side: "Connection") -> int:
    return int(side.get_server_version().major)


@dataclass(frozen=True)
class Programs:
    """pg_dump and psql of one Postgres installation."""

    folder: Path
    major: int

    @property
    def pg_dump(self) -> str:
        return str(self.folder / "pg_dump")

    @property
    def psql(self) -> str:
        return str(self.folder / "psql")


def programs_for(source: int, target: int) -> Programs:
    """The oldest that read a server of the major version `source`. Raises MoveFailed."""
    if target < source:
        raise MoveFailed(f"the server there is Postgres {target}, older than {source} here")
    found = list(_installations())
    able = [programs for programs in found if programs.major >= source]
    if not able:
        have = ", ".join(str(programs.major) for programs in found) or "none"
        raise MoveFailed(f"pg_dump and psql of Postgres {source} are needed; found: {have}")
    return min(able, key=lambda programs: programs.major)


def _installations() -> Iterator[Programs]:
    """On PATH, and in the wheel of the embedded server."""
    on_path = shutil.which("pg_dump")
    for folder in (on_path and Path(on_path).parent, wheel_folder()):
        majors = [_major_in(folder / name) for name in ("pg_dump", "psql")] if folder else [0]
        if folder and all(majors):
            yield Programs(folder, min(majors))


def _major_in(program: Path) -> int:
    """0 where there is no such program of Postgres."""
    with suppress(OSError):
        told = subprocess.run(  # noqa: S603 - asks for its version
            [str(program), "--version"], capture_output=True, text=True, check=False
        )
        if found := re.search(r"\(PostgreSQL\) (\d+)", told.stdout):
            return int(found[1])
    return 0


@dataclass(frozen=True)
class _Copy:
    """pg_dump into psql, in one transaction there, which ends with a comparison."""

    programs: Programs
    schema: str
    source_url: str
    target_url: str

    def run(self, snapshot: str, census: Census) -> None:
        with tempfile.TemporaryFile("w+") as words:
            if not self._is_copied(snapshot, census, words):
                raise MoveFailed(f"the copy failed, nothing is left of it: {_telling(words)}")

    def _is_copied(self, snapshot: str, census: Census, words: IO[str]) -> bool:
        with subprocess.Popen(  # noqa: S603 - a program of Postgres
            [self.programs.psql, "-X", "-q", "-v", "ON_ERROR_STOP=1"],
            env=libpq(self.target_url),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=words,
        ) as psql:
            whole = self._is_written(psql, snapshot, census, words)
        return whole and psql.returncode == 0

    def _is_written(
        self, psql: "subprocess.Popen[bytes]", snapshot: str, census: Census, words: IO[str]
    ) -> bool:
        """COMMIT is said when all before it was done: who is killed sooner leaves nothing.

        psql's own --single-transaction would commit whatever has come when its input ends.
        """
        script, told = cast("IO[bytes]", psql.stdin), cast("IO[bytes]", psql.stdout)
        with suppress(BrokenPipeError), script:
            script.write(_BEGIN.format(schema=self.schema).encode())
            script.flush()
            if not self._is_dumped(snapshot, script, words):
                return False
            script.write("".join(_compared(census)).encode())
            script.flush()
            if told.readline() == b"compared\n":
                script.write(b"COMMIT;\n")
                script.flush()
                return True
        return False

    def _is_dumped(self, snapshot: str, script: IO[bytes], words: IO[str]) -> bool:
        command = [self.programs.pg_dump, "--schema", self.schema, "--snapshot", snapshot]
        done = subprocess.run(  # noqa: S603 - a program of Postgres
            [*command, "--no-owner", "--no-privileges"],
            env=libpq(self.source_url),
            stdout=script,
            stderr=words,
            check=False,
        )
        return done.returncode == 0


def _compared(census: Census) -> Iterator[str]:
    """Fails where a relation is not as counted; gathers statistics; says that all is well."""
    yield "".join(f"{setting};\n" for setting in _SAME_TEXT)
    for relation, rows in census.items():
        count = _count(relation, is_sequence=rows.startswith("at "))
        yield f"DO $do$ BEGIN IF ({count}) <> '{rows}' THEN\n"
        yield f"RAISE EXCEPTION '{relation} is not the same'; END IF; END $do$;\n"
        if not rows.startswith("at "):
            yield f"ANALYZE {relation};\n"
    yield "\\echo compared\n"


def _telling(words: IO[str]) -> str:
    """The first line that names an error; the data that Postgres quotes below it is not told."""
    words.seek(0)
    lines = [line.strip() for line in words if line.strip()]
    errors = [line for line in lines if re.search(r"ERROR|FATAL|error:", line)]
    return (errors or lines[-1:] or ["no reason was given"])[0]


def libpq(url: str) -> dict[str, str]:
    """The environment that says where to connect: arguments are seen by everybody."""
    parts = _parts(url)
    given = {
        "PGHOST": parts.host,
        "PGPORT": parts.port,
        "PGUSER": parts.username,
        "PGPASSWORD": parts.password,
        "PGDATABASE": parts.database,
        **{_LIBPQ[name]: value for name, value in parts.query.items() if name in _LIBPQ},
    }
    ours = {name: value for name, value in os.environ.items() if not name.startswith("MARKETHALL_")}
    return {**ours, **{name: str(value) for name, value in given.items() if value}}
