"""One run of alembic serves one context; the default section runs the others first, in turn.

The address of the database: `-x url=…`, else what the settings say for the context.
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


def run_the_others() -> None:
    """Repeat the command that was typed, for each other context, in a process of its own.

    (In this one, the end of another run would take alembic's context away from ours.)
    """
    if section != "alembic" or context.config.cmd_opts is None:
        return
    if context.config.cmd_opts.name != "alembic" or {"-n", "--name"} & set(sys.argv):
        raise SystemExit("leave -n out for all contexts, or name one of them")
    for other in Context:
        if other != schema:
            command = [sys.executable, "-m", "alembic", "-n", other.value, *sys.argv[1:]]
            subprocess.run(command, check=True)  # noqa: S603 - what was typed


def migrate(connection: Connection) -> None:
    """Two deployments that migrate at once wait for each other, context by context."""
    lock = text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))")
    connection.execute(lock, {"name": f"markethall.migrate.{schema}"})
    # a change that waits behind a long query keeps everybody behind itself waiting: rather fail
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


def address() -> str:
    given = context.config.attributes.get("url") or context.get_x_argument(as_dictionary=True).get(
        "url"
    )
    return given or MigrationSettings().database_url_of(Context(schema))


async def main() -> None:
    engine = create_async_engine(asyncpg_url(address()))
    async with engine.begin() as connection:
        await connection.run_sync(migrate)
    await engine.dispose()


run_the_others()
asyncio.run(main())
