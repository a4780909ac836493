"""Test upgrades and downgrades of one and of all contexts, by functions and by `alembic`."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest
import sqlalchemy as sa
from alembic import command

from markethall import schema_migrations
from markethall.contexts import context_names
from markethall.schema_migrations import upgrade
from markethall.schema_state import upgrade_outdated
from markethall.shared.kernel.ids import new_id
from tests.conftest import on_server, plain, url_of

ROOT = Path(__file__).parents[1]
TABLES = (
    "SELECT table_schema || '.' || table_name FROM information_schema.tables"
    " WHERE table_schema = ANY($1) ORDER BY 1"
)
CODE = (
    "SELECT n.nspname || '.' || p.proname FROM pg_proc p JOIN pg_namespace n"
    " ON n.oid = p.pronamespace WHERE n.nspname = ANY($1) ORDER BY 1"
)


@pytest.fixture
async def empty_url(server_url: str) -> AsyncIterator[str]:
    """The URL of an empty database."""
    name = f"empty_{new_id().hex}"
    await on_server(server_url, f"CREATE DATABASE {name}")
    yield url_of(server_url, name)
    await on_server(server_url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.mark.parametrize("context", context_names())
async def test_context_is_upgraded_downgraded_and_upgraded_again(
    empty_url: str, context: str
) -> None:
    await asyncio.to_thread(upgrade, empty_url, [context])
    first = await created_objects(empty_url)
    await asyncio.to_thread(downgrade, empty_url, context)
    between = await created_objects(empty_url)
    await asyncio.to_thread(upgrade, empty_url, [context])
    again = await created_objects(empty_url)

    assert f"{context}.outbox" in first
    assert between == [f"{context}.alembic_version"]
    assert again == first
    assert all(name.startswith(f"{context}.") for name in first)


async def test_alembic_upgrades_all_contexts_without_drift(empty_url: str) -> None:
    alembic(empty_url, "upgrade", "head")
    by_alembic = await created_objects(empty_url)
    schemas = {name.partition(".")[0] for name in by_alembic}

    checked = alembic(empty_url, "check")
    alembic(empty_url, "downgrade", "base")

    assert schemas == set(context_names())
    assert checked.count("No new upgrade operations") == len(context_names())
    assert await created_objects(empty_url) == sorted(f"{name}.alembic_version" for name in schemas)


async def test_context_is_checked_against_its_own_schema_only(empty_url: str) -> None:
    await asyncio.to_thread(upgrade, empty_url, ["users", "inventory"])
    await on_server(empty_url, "CREATE TABLE inventory.unexpected (x integer)")

    users = alembic(empty_url, "-n", "users", "check")
    inventory = alembic(empty_url, "-n", "inventory", "check", fails=True)

    assert "No new upgrade operations" in users
    assert "unexpected" in inventory


async def test_current_schema_is_not_upgraded(empty_url: str) -> None:
    first = await asyncio.to_thread(upgrade_outdated, empty_url, list(context_names()))
    second = await asyncio.to_thread(upgrade_outdated, empty_url, list(context_names()))

    assert first == list(context_names())
    assert second == []


async def test_only_outdated_contexts_are_upgraded(empty_url: str) -> None:
    await asyncio.to_thread(upgrade, empty_url, ["users"])
    await asyncio.to_thread(upgrade, empty_url, ["orders"])
    await asyncio.to_thread(downgrade, empty_url, "orders")

    upgraded = await asyncio.to_thread(upgrade_outdated, empty_url, ["users", "orders"])

    assert upgraded == ["orders"]


async def test_unprivileged_role_can_start_when_current(empty_url: str, server_url: str) -> None:
    await asyncio.to_thread(upgrade, empty_url)
    role = f"guest_{new_id().hex[:12]}"
    await on_server(empty_url, f"CREATE ROLE {role} LOGIN PASSWORD 'guest'")
    await on_server(empty_url, f"GRANT USAGE ON SCHEMA users TO {role}")
    await on_server(empty_url, f"GRANT SELECT ON ALL TABLES IN SCHEMA users TO {role}")
    guest = sa.make_url(empty_url).set(username=role, password="guest")

    upgraded = await asyncio.to_thread(
        upgrade_outdated, guest.render_as_string(hide_password=False), ["users"]
    )

    assert upgraded == []
    await on_server(empty_url, f"DROP OWNED BY {role}")
    await on_server(server_url, f"DROP ROLE {role}")


async def test_concurrent_migrations_are_serialised(empty_url: str) -> None:
    results = await asyncio.gather(
        *(asyncio.to_thread(alembic, empty_url, "-n", "users", "upgrade", "head") for _ in range(3))
    )

    assert len(results) == 3
    assert "users.outbox" in await created_objects(empty_url)


def test_alembic_without_database_names_missing_setting() -> None:
    output = alembic("", "upgrade", "head", fails=True)

    assert "MARKETHALL_DATABASE_URL" in output


def downgrade(url: str, context: str) -> None:
    config = schema_migrations.alembic_config(context)
    config.attributes["url"] = url
    command.downgrade(config, "base")


def alembic(url: str, *arguments: str, fails: bool = False) -> str:
    result = subprocess.run(
        [sys.executable, "-m", "alembic", *arguments],
        cwd=ROOT,
        env=environment(url),
        capture_output=True,
        text=True,
        check=False,
    )
    output = result.stdout + result.stderr
    assert (result.returncode != 0) is fails, output
    return output


def environment(url: str) -> dict[str, str]:
    inherited = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return inherited | {"PYTHONPATH": "src"} | ({"MARKETHALL_DATABASE_URL": url} if url else {})


async def created_objects(url: str) -> list[str]:
    """Return the names of the tables and functions in our schemas."""
    schemas = list(context_names())
    connection = await asyncpg.connect(plain(url))
    try:
        rows = [*await connection.fetch(TABLES, schemas), *await connection.fetch(CODE, schemas)]
    finally:
        await connection.close()
    return sorted(row[0] for row in rows)
