"""Alembic's entry point. Migrates one context, such as `users` with `-n users`.

Without `-n` all contexts are migrated, one after another. The URL of the database is the argument
`-x url=…` or, if it is missing, that of the settings.
"""

import asyncio
import subprocess
import sys

import sqlalchemy as sa
from alembic import context
from sqlalchemy.engine import Connection

from markethall.contexts import topology
from markethall.schema_migrations import migration_engine
from markethall.schema_state import (
    VERSION_TABLE,
    MigrationRecord,
    relocated_message,
    renamed_schema,
)
from markethall.settings import MigrationSettings, load_environment_files
from markethall.shared.composition.settings import SettingsError

section = context.config.config_ini_section
schema = "users" if section == "alembic" else section
metadata = topology().contexts[schema].load_metadata()


def run_other_contexts() -> None:
    """Run the same command for each other context if there is no `-n`.

    Each runs in a process of its own, because Alembic supports only one run per process.
    """
    if section != "alembic" or context.config.cmd_opts is None:
        return
    if context.config.cmd_opts.name != "alembic" or {"-n", "--name"} & set(sys.argv):
        raise SystemExit("leave -n out for all contexts, or name one of them")
    for other in context.config.file_config.sections():
        if other not in {"alembic", schema}:
            command = [sys.executable, "-m", "alembic", "-n", other, *sys.argv[1:]]
            subprocess.run(command, check=True)  # noqa: S603 - the user's arguments


def migrate(connection: Connection) -> None:
    """Migrate one context. A lock makes concurrent runs for the same context wait."""
    lock = sa.text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))")
    connection.execute(lock, {"name": f"markethall.migrate.{schema}"})
    # fails after 5 s, because a change that waits for a long query would block all later queries
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
    """Refuse to create an empty schema for relocated data. Raises SettingsError."""
    names = sa.inspect(connection).get_schema_names()
    is_migrated = context.get_context().get_current_revision() is not None
    if renamed_schema(schema) in names and not is_migrated:
        raise SettingsError([relocated_message(schema)])


def record_migration(connection: Connection) -> None:
    """Store revision and release in a table comment, which the readiness check reads."""
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
    load_environment_files()
    return given or MigrationSettings().database_url_of(schema)


async def main() -> None:
    engine = migration_engine(database_url())
    async with engine.begin() as connection:
        await connection.run_sync(migrate)
    await engine.dispose()


run_other_contexts()
asyncio.run(main())
