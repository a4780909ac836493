"""Run Alembic for one context: that of the section, `-n users`.

The default section runs the other sections first, each in a process of its own, then users.
The URL of the database: `-x url=…`, else the one in the settings of the context.
"""

import asyncio
import subprocess
import sys

import sqlalchemy as sa
from alembic import context
from sqlalchemy.engine import Connection
from sqlalchemy.ext.asyncio import create_async_engine

from markethall.contexts import topology
from markethall.schema_state import (
    VERSION_TABLE,
    MigrationRecord,
    relocated_message,
    renamed_schema,
)
from markethall.settings import MigrationSettings
from markethall.shared.composition.settings import SettingsError
from markethall.shared.persistence.postgres_url import asyncpg_url

section = context.config.config_ini_section
schema = "users" if section == "alembic" else section
metadata = topology().contexts[schema].load_metadata()


def run_other_contexts() -> None:
    """Repeat the typed command for each other section.

    In this process, the end of another run would remove Alembic's context of ours.
    """
    if section != "alembic" or context.config.cmd_opts is None:
        return
    if context.config.cmd_opts.name != "alembic" or {"-n", "--name"} & set(sys.argv):
        raise SystemExit("leave -n out for all contexts, or name one of them")
    for other in context.config.file_config.sections():
        if other not in {"alembic", schema}:
            command = [sys.executable, "-m", "alembic", "-n", other, *sys.argv[1:]]
            subprocess.run(command, check=True)  # noqa: S603 - what was typed


def migrate(connection: Connection) -> None:
    """Migrate one context. Two runs at once wait for each other, context by context."""
    lock = sa.text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))")
    connection.execute(lock, {"name": f"markethall.migrate.{schema}"})
    # a change that waits behind a long query blocks every later query: fail instead
    connection.execute(sa.text("SET LOCAL lock_timeout = '5s'"))
    connection.execute(sa.text(f"CREATE SCHEMA IF NOT EXISTS {schema}"))
    context.configure(
        connection=connection,
        target_metadata=metadata,
        version_table_schema=schema,
        include_schemas=True,
        include_name=lambda name, kind, _: kind != "schema" or name == schema,
        transaction_per_migration=False,
    )
    with context.begin_transaction():
        refuse_relocated(connection)
        context.run_migrations()
        record_migration(connection)


def refuse_relocated(connection: Connection) -> None:
    """Raise SettingsError rather than create an empty schema beside data that was moved away."""
    names = sa.inspect(connection).get_schema_names()
    is_migrated = context.get_context().get_current_revision() is not None
    if renamed_schema(schema) in names and not is_migrated:
        raise SettingsError([relocated_message(schema)])


def record_migration(connection: Connection) -> None:
    """Record revision and release, which readiness compares with those of each process."""
    revision = context.get_context().get_current_revision()
    comment = "NULL"
    if revision is not None:
        record = MigrationRecord(revision, topology().contexts[schema].release)
        comment = f"'{record.to_comment()}'"
    connection.exec_driver_sql(f"COMMENT ON TABLE {schema}.{VERSION_TABLE} IS {comment}")


def database_url() -> str:
    given = context.config.attributes.get("url") or context.get_x_argument(as_dictionary=True).get(
        "url"
    )
    return given or MigrationSettings().database_url_of(schema)


async def main() -> None:
    engine = create_async_engine(asyncpg_url(database_url()))
    async with engine.begin() as connection:
        await connection.run_sync(migrate)
    await engine.dispose()


run_other_contexts()
asyncio.run(main())
