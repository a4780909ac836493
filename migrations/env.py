"""Migrate one context per run; the default section runs the other contexts first.

The database URL comes from `-x url=…`, else from the settings of the context.
"""

import asyncio
import subprocess
import sys
from importlib import import_module

from alembic import context
from sqlalchemy import text
from sqlalchemy.engine import Connection
from sqlalchemy.ext.asyncio import create_async_engine

from markethall.contexts import Context
from markethall.settings import MigrationSettings
from markethall.shared.persistence.postgres import asyncpg_url

section = context.config.config_ini_section
schema = "users" if section == "alembic" else section
metadata = import_module(f"markethall.{schema}.sql").metadata


def run_other_contexts() -> None:
    """Repeat the command for each other context, each in its own process.

    Alembic keeps one global context per process; a nested run would close it.
    """
    if section != "alembic" or context.config.cmd_opts is None:
        return
    if context.config.cmd_opts.name != "alembic" or {"-n", "--name"} & set(sys.argv):
        raise SystemExit("leave -n out for all contexts, or name one of them")
    for other in Context:
        if other != schema:
            command = [sys.executable, "-m", "alembic", "-n", other.value, *sys.argv[1:]]
            subprocess.run(command, check=True)  # noqa: S603 - the arguments of this command


def migrate(connection: Connection) -> None:
    """Migrate under an advisory lock: concurrent deployments take turns, context by context."""
    lock = text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))")
    connection.execute(lock, {"name": f"markethall.migrate.{schema}"})
    # DDL that waits behind a long query blocks every later query on the table, so fail early
    connection.execute(text("SET LOCAL lock_timeout = '5s'"))
    connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS {schema}"))
    context.configure(
        connection=connection,
        target_metadata=metadata,
        version_table_schema=schema,
        include_schemas=True,
        include_name=lambda name, kind, _: kind != "schema" or name == schema,
        transaction_per_migration=False,
    )
    with context.begin_transaction():
        context.run_migrations()


def database_url() -> str:
    given = context.config.attributes.get("url") or context.get_x_argument(as_dictionary=True).get(
        "url"
    )
    return given or MigrationSettings().database_url_of(Context(schema))


async def main() -> None:
    engine = create_async_engine(asyncpg_url(database_url()))
    async with engine.begin() as connection:
        await connection.run_sync(migrate)
    await engine.dispose()


run_other_contexts()
asyncio.run(main())
