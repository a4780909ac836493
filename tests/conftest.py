"""Fixtures for Postgres and Redis: servers named in the environment, or embedded servers."""

import asyncio
import gc
import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest
import structlog
from hypothesis import HealthCheck, settings

from markethall.local.postgres import EmbeddedPostgres
from markethall.local.valkey import EmbeddedValkey
from markethall.schema_migrations import upgrade
from markethall.shared.kernel.ids import new_id
from markethall.shared.persistence.postgres import PoolSize, Postgres
from tests.partitions.report import summary

# Hypothesis has no time limit for an example, so that no test fails because the machine is slow.
# Runs with MARKETHALL_TEST_SCOPE=full use random examples; other runs always use the same examples.
settings.register_profile(
    "markethall",
    deadline=None,
    derandomize=os.environ.get("MARKETHALL_TEST_SCOPE") != "full",
    suppress_health_check=[
        HealthCheck.too_slow,
        HealthCheck.filter_too_much,
        HealthCheck.data_too_large,
    ],
)
settings.load_profile("markethall")

# The cheapest password hashes, so that tests are fast, and no rate limits, which would refuse
# requests. Password hashing and rate limiting have tests of their own.
TEST_ENVIRONMENT = {
    "MARKETHALL_BCRYPT_COST": "4",
    "MARKETHALL_RATE_LIMITS": "off",
    "MARKETHALL_LOG_FORMAT": "json",
}

# The tables are emptied after each test, because a new database per test takes ten times as long.
# Tables that a migration has filled are not emptied. Only the table of warehouses is reset to the
# main warehouse, because tests add others. `session_replication_role` disables the triggers that
# forbid deletion.
RECORD_INITIAL_STATE = """
CREATE TEMP TABLE emptied (name text);
CREATE TEMP TABLE warehouses AS TABLE inventory.warehouse;
DO $$ DECLARE t regclass; filled bool; BEGIN
  FOR t IN SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
           WHERE c.relkind = 'r' AND n.nspname IN ('users', 'inventory', 'orders', 'payments') LOOP
    EXECUTE format('SELECT EXISTS (SELECT FROM %s)', t) INTO filled;
    IF NOT filled THEN INSERT INTO emptied VALUES (t::text); END IF;
  END LOOP;
END $$;
"""
RESTORE_INITIAL_STATE = """
SET session_replication_role = replica;
DO $$ DECLARE t text; filled bool; BEGIN
  FOR t IN SELECT name FROM emptied LOOP
    EXECUTE format('SELECT EXISTS (SELECT FROM %s)', t) INTO filled;
    IF filled THEN EXECUTE format('DELETE FROM %s', t); END IF;
  END LOOP;
  IF (SELECT count(*) FROM inventory.warehouse) > 1
      OR EXISTS (TABLE inventory.warehouse EXCEPT TABLE warehouses) THEN
    DELETE FROM inventory.warehouse;
    INSERT INTO inventory.warehouse TABLE warehouses;
  END IF;
  PERFORM setval(c.oid, s.seqstart, false)
    FROM pg_sequence s JOIN pg_class c ON c.oid = s.seqrelid
    JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname IN ('users', 'inventory', 'orders', 'payments');
END $$;
"""


pytest_plugins = ["tests.markers"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--no-skips", action="store_true", help="a skipped test is a failure")


def pytest_collection_finish() -> None:
    """Exempt the imported modules and the collected tests from garbage collection.

    A full collection would otherwise check half a million objects, which takes half a second, up to
    four times a second. The thresholds are those of the server.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None:  # this is an xdist worker; only the controller process reports
        return
    skipped = reporter.stats.get("skipped", [])
    if session.config.getoption("--no-skips") and skipped:
        reporter.write_line(f"{len(skipped)} skipped tests are failures here", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [
        report for kind in ("passed", "failed") for report in terminalreporter.getreports(kind)
    ]
    lines = list(summary(report for report in reports if report.when == "call"))
    if lines:
        terminalreporter.section("differential log")
        terminalreporter.write("\n".join([*lines, ""]))


@pytest.fixture(scope="session", autouse=True)
def environment() -> Iterator[None]:
    """Remove the settings of the developer's shell and apply the settings of the tests."""
    _log_plain_tracebacks()
    before = {name: os.environ.pop(name) for name in list(os.environ) if _is_setting(name)}
    os.environ.update(TEST_ENVIRONMENT)
    yield
    for name in TEST_ENVIRONMENT:
        os.environ.pop(name)
    os.environ.update(before)


def _log_plain_tracebacks() -> None:
    """Log tracebacks without local variables, because formatting them may block for a second."""
    for processor in structlog.get_config()["processors"]:
        if isinstance(processor, structlog.dev.ConsoleRenderer):
            processor.exception_formatter = structlog.dev.plain_traceback


def _is_setting(name: str) -> bool:
    return name.startswith("MARKETHALL_") and not name.startswith("MARKETHALL_TEST_")


@pytest.fixture(scope="session")
def scratch() -> Iterator[Path]:
    """A temporary directory that all users can read, because Postgres never runs as root."""
    with tempfile.TemporaryDirectory(prefix="markethall-test-", ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture(scope="session")
def server_url(scratch: Path) -> Iterator[str]:
    """The URL of a Postgres database whose user may create databases."""
    configured = os.environ.get("MARKETHALL_TEST_DATABASE_URL")
    if configured:
        yield configured
        return
    server = EmbeddedPostgres(scratch / "pg", durable=False, max_connections=200)
    yield server.start()
    server.stop()


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    configured = os.environ.get("MARKETHALL_TEST_REDIS_URL")
    if configured:
        yield configured
        return
    server = EmbeddedValkey()
    yield server.start()
    server.stop()


@pytest.fixture(scope="session")
async def template(server_url: str) -> AsyncIterator[str]:
    """The name of a migrated database without data, from which tests create databases."""
    name = f"template_{new_id().hex}"
    await on_server(server_url, f"CREATE DATABASE {name}")
    await asyncio.to_thread(upgrade, url_of(server_url, name))
    yield name
    await on_server(server_url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
async def database_copy(server_url: str, template: str) -> AsyncIterator[str]:
    """The URL of a copy of the template database. All tests of this process share the copy."""
    name = f"test_{new_id().hex}"
    await on_server(server_url, f"CREATE DATABASE {name} TEMPLATE {template}")
    yield url_of(server_url, name)
    await on_server(server_url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
async def cleaner(database_copy: str) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    connection = await asyncpg.connect(plain(database_copy))
    await connection.execute(RECORD_INITIAL_STATE)
    yield connection
    await connection.close()


@pytest.fixture
async def database_url(
    database_copy: str, cleaner: "asyncpg.Connection[asyncpg.Record]"
) -> AsyncIterator[str]:
    """The URL of a migrated database without data. The fixture empties it after the test."""
    yield database_copy
    await cleaner.execute(RESTORE_INITIAL_STATE)


@pytest.fixture
async def postgres(database_url: str) -> AsyncIterator[Postgres]:
    database = Postgres(database_url, PoolSize(min_size=5, max_size=20, timeout=10))
    yield database
    await database.close()


async def on_server(url: str, sql: str) -> None:
    connection = await asyncpg.connect(plain(url))
    try:
        await connection.execute(sql)
    finally:
        await connection.close()


def plain(url: str) -> str:
    """Return the URL in the form that asyncpg accepts."""
    return url.replace("+asyncpg", "")


def url_of(server: str, database: str) -> str:
    return server.rpartition("/")[0] + f"/{database}"
