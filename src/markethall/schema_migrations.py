"""Runs the migrations of contexts, from a checkout or from the installed package."""

import asyncio
from collections.abc import Iterable
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Column, MetaData, NullPool, Table, Text, func, select
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from markethall.contexts import Context
from markethall.shared.persistence.postgres import asyncpg_url


def upgrade(url: str, contexts: Iterable[Context] = Context, revision: str = "head") -> None:
    """Bring each context's schema up to the revision. Blocks; run it before the event loop."""
    for context in contexts:
        config = _config(context)
        config.attributes["url"] = url
        command.upgrade(config, revision)


def upgrade_outdated(url: str, contexts: Iterable[Context]) -> list[Context]:
    """Upgrade only what is not up to date: a role without rights to migrate may still start."""
    outdated = asyncio.run(_outdated_contexts(url, list(contexts)))
    upgrade(url, outdated)
    return outdated


async def _outdated_contexts(url: str, contexts: list[Context]) -> list[Context]:
    engine = create_async_engine(
        asyncpg_url(url), poolclass=NullPool, connect_args={"timeout": 10, "command_timeout": 10}
    )
    async with engine.connect() as connection:
        revisions = {context: await _current_revision(connection, context) for context in contexts}
    return [
        context for context, revision in revisions.items() if revision != _head_revision(context)
    ]


async def _current_revision(connection: AsyncConnection, context: Context) -> str | None:
    table = f"{context.value}.alembic_version"
    version_table = await connection.scalar(select(func.to_regclass(table)))
    if version_table is None:
        return None
    versions = Table("alembic_version", MetaData(), Column("version_num", Text), schema=context)
    revision: str | None = await connection.scalar(select(versions.c.version_num))
    return revision


def _head_revision(context: Context) -> str | None:
    return ScriptDirectory.from_config(_config(context)).get_current_head()


def _config(context: Context) -> Config:
    return Config(alembic_ini_path(), ini_section=context.value)


def alembic_ini_path() -> Path:
    """alembic.ini beside the sources, or inside the wheel."""
    package_directory = Path(__file__).parent
    candidates = [package_directory.parents[1] / "alembic.ini", package_directory / "alembic.ini"]
    return next(place for place in candidates if place.exists())
