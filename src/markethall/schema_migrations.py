"""Runs the Alembic migrations of contexts, from the repository or from the installed package."""

import asyncio
from collections.abc import Iterable
from typing import Final

import asyncpg
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Column, MetaData, NullPool, Table, Text, func, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from markethall.contexts import context_names, topology
from markethall.shared.composition.migrations import alembic_ini_path
from markethall.shared.persistence.postgres_url import asyncpg_dsn

_CONNECT_TIMEOUT: Final = 10.0  # seconds


def upgrade(url: str, contexts: Iterable[str] = ()) -> None:
    """Upgrade the schemas of these contexts, or of all. Call this outside of an event loop."""
    for context in contexts or context_names():
        config = alembic_config(context)
        config.attributes["url"] = url
        command.upgrade(config, "head")


def upgrade_outdated(url: str, contexts: Iterable[str]) -> list[str]:
    """Upgrade the outdated schemas only, and return their contexts.

    Even an upgrade without new revisions needs rights that the database role may lack.
    """
    outdated = asyncio.run(_outdated_contexts(url, list(contexts)))
    if outdated:
        upgrade(url, outdated)
    return outdated


def alembic_config(context: str) -> Config:
    """Return Alembic's configuration for the revisions of one context."""
    config = Config(alembic_ini_path(), ini_section=context)
    script_location = alembic_ini_path().parent / "migrations"
    config.set_main_option("script_location", str(script_location))
    config.set_main_option("path_separator", "os")
    config.set_main_option("version_locations", str(topology().contexts[context].migrations))
    return config


def migration_engine(url: str, *, command_timeout: float | None = None) -> AsyncEngine:
    """Return an engine without a pool. `command_timeout`, in seconds, applies to each statement.

    asyncpg gets the URL directly, because SQLAlchemy does not know all parameters of URLs.
    """
    return create_async_engine(
        "postgresql+asyncpg://",
        async_creator=lambda: asyncpg.connect(
            asyncpg_dsn(url), timeout=_CONNECT_TIMEOUT, command_timeout=command_timeout
        ),
        poolclass=NullPool,
    )


async def _outdated_contexts(url: str, contexts: list[str]) -> list[str]:
    engine = migration_engine(url, command_timeout=10)
    async with engine.connect() as connection:
        revisions = {context: await _current_revision(connection, context) for context in contexts}
    return [
        context for context, revision in revisions.items() if revision != _head_revision(context)
    ]


async def _current_revision(connection: AsyncConnection, context: str) -> str | None:
    version_table = await connection.scalar(select(func.to_regclass(f"{context}.alembic_version")))
    if version_table is None:
        return None
    versions = Table("alembic_version", MetaData(), Column("version_num", Text), schema=context)
    revision: str | None = await connection.scalar(select(versions.c.version_num))
    return revision


def _head_revision(context: str) -> str | None:
    return ScriptDirectory.from_config(alembic_config(context)).get_current_head()
