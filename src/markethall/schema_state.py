"""Compares the schema of a context in its database with the revision that this process needs.

Each migration records its revision and its release as a comment on the context's version table
(migrations/env.py), so that one statement reads the state of all contexts of a database.
"""

import asyncio
import json
import re
from collections.abc import Collection, Mapping
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

import sqlalchemy as sa

from markethall.contexts import topology
from markethall.shared.kernel.errors import Unavailable
from markethall.shared.persistence.postgres import Connection, PoolSize, Postgres, Statement

VERSION_TABLE: Final = "alembic_version"
# seconds; if the database does not answer within this time, a command starts without the check
_CHECK_TIMEOUT: Final = 3.0

_REVISION_LINE: Final = re.compile(r"^(revision|down_revision)\b[^=\n]*=(.*)$", re.MULTILINE)
_QUOTED: Final = re.compile(r"""["'](.+?)["']""")

_READ = Statement(
    sa.text(
        "SELECT n.nspname AS schema, obj_description(c.oid, 'pg_class') AS record"
        " FROM pg_namespace n"
        f" LEFT JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = '{VERSION_TABLE}'"
        " WHERE n.nspname = ANY(:schemas)"
    ).bindparams(sa.bindparam("schemas", type_=sa.ARRAY(sa.Text)))
)


class SchemaState(StrEnum):
    CURRENT = "ok"
    NOT_MIGRATED = "not migrated"
    RELOCATED = "its data was moved to another database"
    OLDER = "older than this process: migrate it"
    NEWER = "more than one release newer than this process"


class MigrationRecord(NamedTuple):
    """The revision of a schema, and the release (x.y.z) that migrated the schema to it."""

    revision: str
    release: str

    def to_comment(self) -> str:
        return json.dumps(self._asdict())

    @classmethod
    def from_comment(cls, comment: str | None) -> "MigrationRecord | None":
        """Return the record in the comment, or None if the schema was never migrated."""
        return cls(**json.loads(comment)) if comment else None


def renamed_schema(context: str) -> str:
    """Return the name to which a relocation renames the schema of the source."""
    return f"{context}_before"


async def read_schema_states(
    connection: Connection, contexts: Collection[str]
) -> Mapping[str, SchemaState]:
    """Return the state of the schema of each context. Raises Unavailable."""
    comments = await _read_comments(connection, contexts)
    return {context: _state_of(context, comments) for context in contexts}


def read_revisions(folder: Path) -> tuple[str, ...]:
    """Return the revisions of the migrations in a folder; the first is the newest.

    It reads the files without Alembic, whose import takes 200 ms and 20 MB.
    """
    links = [dict(_REVISION_LINE.findall(file.read_text())) for file in folder.glob("*.py")]
    parents = {name for link in links for name in _QUOTED.findall(link.get("down_revision", ""))}
    revisions = [name for link in links for name in _QUOTED.findall(link.get("revision", ""))]
    return tuple(sorted(revisions, key=parents.__contains__))


def upgrade_outdated(url: str, contexts: Collection[str]) -> list[str]:
    """Upgrade the outdated schemas only, and return their contexts. Raises Unavailable.

    Even an upgrade without new revisions needs rights that the database role may lack. Call this
    outside of an event loop.
    """
    outdated = asyncio.run(_outdated_contexts(url, contexts))
    if outdated:
        # imported here, because it imports Alembic
        from markethall.schema_migrations import upgrade

        upgrade(url, outdated)
    return outdated


async def relocated_contexts(url: str, contexts: Collection[str]) -> list[str]:
    """Return the contexts whose data was relocated. Empty if the database does not answer."""
    try:
        comments = await _read_comments_at(url, contexts)
    except Unavailable:
        return []
    states = {context: _state_of(context, comments) for context in contexts}
    return [context for context, state in states.items() if state is SchemaState.RELOCATED]


def relocated_message(context: str) -> str:
    return (
        f"{context}: its data was moved out of this database, where only"
        f" {renamed_schema(context)} is left: set MARKETHALL_DATABASE_URLS to its new database,"
        f" or drop {renamed_schema(context)} to begin without data"
    )


async def _outdated_contexts(url: str, contexts: Collection[str]) -> list[str]:
    comments = await _read_comments_at(url, contexts)
    records = {each: MigrationRecord.from_comment(comments.get(each)) for each in contexts}
    return [
        context
        for context, record in records.items()
        if record is None or record.revision != _known_revisions(context)[0]
    ]


async def _read_comments_at(url: str, contexts: Collection[str]) -> Mapping[str, str | None]:
    postgres = Postgres(url, PoolSize(min_size=1, max_size=1, timeout=_CHECK_TIMEOUT))
    async with postgres.dedicated_connection() as connection:
        return await _read_comments(connection, contexts)


async def _read_comments(
    connection: Connection, contexts: Collection[str]
) -> Mapping[str, str | None]:
    """Return the comments on the version tables of the contexts, by schema."""
    schemas = [*contexts, *map(renamed_schema, contexts)]
    rows = await connection.fetch_all(_READ, schemas=schemas)
    return {row["schema"]: row["record"] for row in rows}


def _state_of(context: str, comments: Mapping[str, str | None]) -> SchemaState:
    record = MigrationRecord.from_comment(comments.get(context))
    if record is None:
        is_relocated = renamed_schema(context) in comments
        return SchemaState.RELOCATED if is_relocated else SchemaState.NOT_MIGRATED
    manifest = topology().contexts[context]
    known = _known_revisions(context)
    if record.revision == known[0]:
        return SchemaState.CURRENT
    if record.revision in known:
        return SchemaState.OLDER
    if _is_next_release(manifest.release, record.release):
        return SchemaState.CURRENT
    return SchemaState.NEWER


def _is_next_release(own: str, other: str) -> bool:
    """Tell whether `other` is at most one minor release newer, or x.0 of the next major release."""
    own_major, own_minor = _major_and_minor(own)
    major, minor = _major_and_minor(other)
    if major == own_major:
        return minor <= own_minor + 1
    return (major, minor) == (own_major + 1, 0)


def _major_and_minor(release: str) -> tuple[int, int]:
    major, minor = release.split(".")[:2]
    return int(major), int(minor)


@cache
def _known_revisions(context: str) -> tuple[str, ...]:
    """Return the revisions of this release, the newest first. Blocks while it reads files."""
    return read_revisions(topology().contexts[context].migrations)


async def load_known_revisions(contexts: Collection[str]) -> None:
    """Read and cache the revisions of these contexts in a thread, because reading blocks."""
    await asyncio.to_thread(lambda: [_known_revisions(context) for context in contexts])
