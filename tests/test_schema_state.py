"""Test that a process compares the schemas in its databases with its own revisions."""

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from alembic.script import ScriptDirectory

from markethall.app import create_app
from markethall.contexts import context_names, topology
from markethall.operations.readiness import RESULT_TTL, Readiness
from markethall.schema_migrations import alembic_config, upgrade
from markethall.schema_state import MigrationRecord, read_revisions
from markethall.settings import read_settings
from markethall.shared.observability.metrics import REGISTRY
from tests.conftest import on_server
from tests.e2e.dedicated_server import DatabaseReader, dedicated_database
from tests.test_app import client_of
from tests.test_cli import markethall
from tests.test_migrating import downgrade
from tests.test_settings import PRODUCTION

SCHEMAS = "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'inventory%' ORDER BY 1"


@pytest.fixture
async def url(server_url: str, template: str) -> AsyncIterator[str]:
    """The URL of a new database with all schemas."""
    async with dedicated_database(server_url, template) as url:
        yield url


@pytest.fixture
async def empty_url(server_url: str) -> AsyncIterator[str]:
    async with dedicated_database(server_url, "template0") as url:
        yield url


async def readiness_of(url: str, folder: Any) -> httpx2.Response:
    settings = read_settings(database_url=url, data_dir=folder)
    async with client_of(create_app(settings)) as http:
        return await http.get("/ready")


def statement_count() -> float:
    return REGISTRY.get_sample_value("markethall_db_statements_total") or 0


async def record(url: str, context: str, revision: str, release: str) -> None:
    comment = MigrationRecord(revision, release).to_comment()
    await on_server(url, f"COMMENT ON TABLE {context}.alembic_version IS '{comment}'")


@pytest.mark.parametrize("context", context_names())
def test_revisions_are_those_of_alembic(context: str) -> None:
    scripts = ScriptDirectory.from_config(alembic_config(context))

    revisions = read_revisions(topology().contexts[context].migrations)

    assert list(revisions) == [script.revision for script in scripts.walk_revisions()]


def test_newest_revision_is_first(tmp_path: Path) -> None:
    (tmp_path / "__init__.py").write_text("")
    (tmp_path / "1_first.py").write_text('revision = "a1"\ndown_revision = None\n')
    (tmp_path / "2_second.py").write_text(
        'revision: str = "b2"\ndown_revision: str | None = "a1"\n'
    )
    (tmp_path / "3_third.py").write_text("revision = 'c3'\ndown_revision = ('b2',)\n")

    revisions = read_revisions(tmp_path)

    assert revisions[0] == "c3"
    assert sorted(revisions) == ["a1", "b2", "c3"]


async def test_current_schemas_are_recognized_without_alembic(url: str) -> None:
    code = (
        "import sys; from markethall import cli, schema_state\n"
        f"assert schema_state.upgrade_outdated({url!r}, {list(context_names())}) == []\n"
        "sys.exit('alembic' in sys.modules)"
    )

    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code)

    assert await process.wait() == 0


async def test_migrated_schemas_are_ready(url: str, tmp_path: Any) -> None:
    ready = await readiness_of(url, tmp_path)

    assert ready.status_code == 200
    assert ready.json()["checks"] == {"postgres": "ok"}


async def test_missing_schemas_are_not_ready_and_requests_get_503(
    empty_url: str, tmp_path: Any
) -> None:
    await asyncio.to_thread(upgrade, empty_url, ["users", "payments"])
    settings = read_settings(database_url=empty_url, data_dir=tmp_path)
    async with client_of(create_app(settings)) as http:
        ready, products = await http.get("/ready"), await http.get("/products")

    assert ready.status_code == 503
    assert ready.json()["details"]["failing"] == ["schema inventory", "schema orders"]
    assert "schema orders: not migrated" in ready.json()["detail"]
    assert products.status_code == 503
    assert products.headers["retry-after"]


async def test_downgraded_schema_is_not_ready(url: str, tmp_path: Any) -> None:
    await asyncio.to_thread(downgrade, url, "orders")

    assert (await readiness_of(url, tmp_path)).json()["details"]["failing"] == ["schema orders"]


@pytest.mark.parametrize(
    ("release", "status"), [("0.1.7", 200), ("0.2.0", 200), ("1.0.0", 200), ("0.3.0", 503)]
)
async def test_schema_may_be_one_release_newer(
    url: str, tmp_path: Any, release: str, status: int
) -> None:
    assert topology().contexts["orders"].release == "0.1.0"
    await record(url, "orders", "000000000000", release)

    ready = await readiness_of(url, tmp_path)

    assert ready.status_code == status
    if status == 503:
        assert "more than one release newer" in ready.json()["detail"]


async def test_schema_of_an_earlier_revision_is_not_ready(
    url: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("markethall.schema_state._known_revisions", lambda _: ("second", "first"))
    for context in context_names():
        await record(url, context, "second", "0.1.0")
    await record(url, "orders", "first", "0.1.0")

    ready = await readiness_of(url, tmp_path)

    assert ready.json()["details"]["failing"] == ["schema orders"]
    assert "older than this process" in ready.json()["detail"]


async def test_many_probes_cost_one_statement(url: str, tmp_path: Any) -> None:
    settings = read_settings(database_url=url, data_dir=tmp_path)
    app = create_app(settings)
    now = 100.0
    readiness = Readiness(settings, app.container, lambda: now)
    await readiness.check()
    before = statement_count()

    await asyncio.gather(*(readiness.check() for _ in range(50)))
    shared = statement_count() - before
    now += RESULT_TTL
    await asyncio.gather(*(readiness.check() for _ in range(50)))
    after_ttl = statement_count() - before
    await app.container.close()

    assert (shared, after_ttl) == (0, 1)


async def test_process_without_the_new_url_refuses_to_start_or_migrate(
    url: str, server_url: str, tmp_path: Any
) -> None:
    await on_server(url, "ALTER SCHEMA inventory RENAME TO inventory_before")
    given = {"database_url": url, "data_dir": str(tmp_path)}

    served = await asyncio.to_thread(markethall, "serve", "--port", "0", **given)
    served_without_migration = await asyncio.to_thread(
        markethall, "serve", "--port", "0", **{**PRODUCTION, **given, "bcrypt_cost": "10"}
    )
    migrated = await asyncio.to_thread(markethall, "migrate", **given)
    ready = await readiness_of(url, tmp_path)

    for result in (served, served_without_migration, migrated):
        assert result.returncode == 2, result.stderr
        (line,) = [line for line in result.stderr.splitlines() if "inventory" in line]
        assert "MARKETHALL_DATABASE_URLS" in line
        assert "Traceback" not in result.stderr
    schemas = [row[0] for row in await DatabaseReader(url).fetch_all(SCHEMAS)]
    assert schemas == ["inventory_before"]
    assert ready.json()["details"]["failing"] == ["schema inventory"]
    assert "moved to another database" in ready.json()["detail"]
