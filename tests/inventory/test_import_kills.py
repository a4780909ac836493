"""Test that another worker continues the import of a killed process at the same row."""

import asyncio
import os
import sys
from datetime import timedelta
from pathlib import Path

import asyncpg
import pytest

from markethall.inventory.imports.contract import ImportStatus
from markethall.shared.kernel.clock import utc_now
from markethall.shared.persistence.postgres import Postgres
from tests.conftest import plain
from tests.inventory.conftest import STAFF, InventoryApp, build_inventory_app
from tests.inventory.import_client import ImportClient, counts

ROWS = 12_000
# suspends a worker in an open transaction, where the test then kills it: once the worker has read
# `at_least` rows, its next batch waits before the commit for an advisory lock that the test holds
SUSPEND_WORKERS = """
CREATE FUNCTION public.suspend() RETURNS trigger LANGUAGE plpgsql AS
  $$ BEGIN PERFORM pg_advisory_xact_lock(1); RETURN new; END $$;
CREATE TRIGGER suspend BEFORE UPDATE ON inventory.import_job
  FOR EACH ROW WHEN (old.read >= {at_least}) EXECUTE FUNCTION public.suspend();
SELECT pg_advisory_lock(1)
"""
RESUME_WORKERS = """
SELECT pg_advisory_unlock(1);
DROP TRIGGER suspend ON inventory.import_job;
DROP FUNCTION public.suspend()
"""
COUNT_SUSPENDED = (
    "SELECT count(*) FROM pg_stat_activity"
    " WHERE datname = current_database() AND wait_event = 'advisory'"
)
# a correct product has the version 1, and one movement with the quantity of its row
COUNT_INCORRECT = """
SELECT count(*) FROM inventory.product p
LEFT JOIN inventory.stock s USING (product_id)
LEFT JOIN (SELECT product_id, count(*) AS movements FROM inventory.stock_movement GROUP BY 1) m
    USING (product_id)
WHERE p.version <> 1 OR s.on_hand <> 1 + p.price_amount % 5 OR m.movements <> 1
"""


@pytest.fixture
def csv_file(tmp_path: Path) -> Path:
    path = tmp_path / "many.csv"
    # every hundredth row is invalid
    rows = (
        f"K-{n},Name {n},0.{n % 100:02d}{'x' * (n % 100 == 7)},{1 + n % 5}\n" for n in range(ROWS)
    )
    path.write_text("sku,name,price,on_hand\n" + "".join(rows))
    return path


async def start_import(url: str, csv_file: Path) -> asyncio.subprocess.Process:
    command = (sys.executable, "-m", "markethall", "import", str(csv_file))
    environment = os.environ | {
        "MARKETHALL_DATABASE_URL": url,
        "MARKETHALL_DATA_DIR": str(csv_file.parent),
        # in seconds; a suspended worker must not time out
        "MARKETHALL_DATABASE_TIMEOUT": "60",
    }
    return await asyncio.create_subprocess_exec(*command, env=environment)


async def kill_when_suspended(
    watcher: "asyncpg.Connection[asyncpg.Record]", process: asyncio.subprocess.Process
) -> None:
    """Kill the process after it has written the rows of a batch, but before the commit."""
    try:
        while not await watcher.fetchval(COUNT_SUSPENDED):
            assert process.returncode is None, "the import ended before it was suspended"
            await asyncio.sleep(0.002)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.mark.parametrize("at_least", [1, 3000, 7000])
async def test_killed_import_resumes_and_applies_rows_once(
    postgres: Postgres, database_url: str, csv_file: Path, at_least: int
) -> None:
    watcher = await asyncpg.connect(plain(database_url))
    await watcher.execute(SUSPEND_WORKERS.format(at_least=at_least))
    try:
        await kill_when_suspended(watcher, await start_import(database_url, csv_file))
    finally:
        await watcher.execute(RESUME_WORKERS)
    status_when_killed = await watcher.fetchval("SELECT status FROM inventory.import_job")

    inventory_app = build_inventory_app("sql", postgres)
    # a time at which the lease of the killed process has expired, so another worker may continue
    inventory_app.clock.now = utc_now() + timedelta(minutes=1)
    done = await inventory_app.container.import_worker().process_next()

    assert status_when_killed == "running"
    assert done is not None
    assert done.status == ImportStatus.DONE
    assert counts(done) == (ROWS, ROWS - ROWS // 100, 0, 0, ROWS // 100)
    assert await watcher.fetchval(COUNT_INCORRECT) == 0
    assert await watcher.fetchval("SELECT count(*) FROM inventory.import_note") == ROWS // 100
    assert await watcher.fetchval("SELECT count(*) FROM inventory.import_part") == 0
    await watcher.close()


async def test_leased_import_is_not_taken_by_another_worker(
    sql_inventory_app: InventoryApp,
) -> None:
    import_client = ImportClient(sql_inventory_app)
    await import_client.start(b"sku,name,price\nL-1,One,1\n")
    rows = b"".join(b"M-%d,Name,1\n" % n for n in range(5000))
    await import_client.start(b"sku,name,price\n" + rows)
    other = build_inventory_app("sql", sql_inventory_app.container.postgres())

    results = await asyncio.gather(
        *(
            inventory_app.container.import_worker().process_next()
            for inventory_app in (sql_inventory_app, other, sql_inventory_app)
        )
    )

    assert sorted(done.rows.created for done in results if done) == [1, 5000]
    assert results.count(None) == 1


async def test_worker_without_lease_writes_nothing(sql_inventory_app: InventoryApp) -> None:
    """A slow worker must write nothing after another worker has taken the lease of the import."""
    import_client = ImportClient(sql_inventory_app)
    rows = b"".join(b"N-%d,Name,1,2\n" % n for n in range(9000))
    started = await import_client.start(b"sku,name,price,on_hand\n" + rows)
    other = build_inventory_app("sql", sql_inventory_app.container.postgres())
    other.clock.advance(minutes=10)

    slow = asyncio.create_task(
        sql_inventory_app.container.import_worker().process_next(started.import_id)
    )
    while (await import_client.imports.get_import(STAFF, started.import_id)).rows.read == 0:
        await asyncio.sleep(0.002)
    done = await other.container.import_worker().process_next(started.import_id)
    await slow

    assert done is not None
    assert counts(done) == (9000, 9000, 0, 0, 0)
    assert await sql_inventory_app.catalogue.count() == 9000
