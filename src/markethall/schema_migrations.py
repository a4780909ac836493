"""Runs the Alembic migrations of contexts, from the repository or from the installed package."""

from collections.abc import Iterable
from typing import Final

import asyncpg
from alembic import command
from alembic.config import Config
from sqlalchemy import NullPool
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from markethall.contexts import context_names, topology
from markethall.shared.composition.manifest import alembic_ini_path
from markethall.shared.persistence.postgres_url import asyncpg_dsn

_CONNECT_TIMEOUT: Final = 10.0  # seconds


def upgrade(url: str, contexts: Iterable[str] = ()) -> None:
    """Upgrade the schemas of these contexts, or of all. Call this outside of an event loop."""
    for context in contexts or context_names():
        config = alembic_config(context)
        config.attributes["url"] = url
        command.upgrade(config, "head")


def alembic_config(context: str) -> Config:
    """Return Alembic's configuration for the revisions of one context."""
    config = Config(alembic_ini_path(), ini_section=context)
    script_location = alembic_ini_path().parent / "migrations"
    config.set_main_option("script_location", str(script_location))
    config.set_main_option("path_separator", "os")
    config.set_main_option("version_locations", str(topology().contexts[context].migrations))
    return config


def migration_engine(url: str) -> AsyncEngine:
    """Return an engine without a pool.

    asyncpg gets the URL directly, because SQLAlchemy does not know all parameters of URLs.
    """
    return create_async_engine(
        "postgresql+asyncpg://",
        async_creator=lambda: asyncpg.connect(asyncpg_dsn(url), timeout=_CONNECT_TIMEOUT),
        poolclass=NullPool,
    )
