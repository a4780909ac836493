"""Runs the migrations of contexts, from a checkout or from the installed package."""

import asyncio
from collections.abc import Iterable
from pathlib import Path

import asyncpg
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

from markethall.settings import Context
from markethall.shared.db import asyncpg_url


def upgrade(url: str, contexts: Iterable[Context] = Context, revision: str = "head") -> None:
    """Bring each context's schema up to the revision. Blocks; run it before the event loop."""
    for context in contexts:
        config = _config(context)
        config.attributes["url"] = url
        command.upgrade(config, revision)


def upgrade_if_behind(url: str, contexts: Iterable[Context]) -> list[Context]:
    """Upgrade only what is not up to date: a role without rights to migrate may still start."""
    behind = asyncio.run(_behind(url, list(contexts)))
    upgrade(url, behind)
    return behind


async def _behind(url: str, contexts: list[Context]) -> list[Context]:
    connection = await asyncpg.connect(asyncpg_url(url).replace("+asyncpg", ""), timeout=10)
    try:
        found = {context: await _revision(connection, context) for context in contexts}
    finally:
        await connection.close()
    return [context for context, revision in found.items() if revision != _head(context)]


async def _revision(
    connection: "asyncpg.Connection[asyncpg.Record]", context: Context
) -> str | None:
    table = f"{context.value}.alembic_version"
    if await connection.fetchval("SELECT to_regclass($1)", table) is None:
        return None
    revision: str | None = await connection.fetchval(f"SELECT version_num FROM {table}")  # noqa: S608 - a name of ours
    return revision


def _head(context: Context) -> str | None:
    return ScriptDirectory.from_config(_config(context)).get_current_head()


def _config(context: Context) -> Config:
    return Config(ini_file(), ini_section=context.value)


def ini_file() -> Path:
    """alembic.ini beside the sources, or inside the wheel."""
    here = Path(__file__).parent
    places = [here.parents[1] / "alembic.ini", here / "alembic.ini"]
    return next(place for place in places if place.exists())
