"""Transactions lock categories before products, so that they cannot deadlock."""

import asyncio
from typing import TYPE_CHECKING, Final

import asyncpg
from structlog.testing import capture_logs

from markethall.inventory.catalogue.contract.fields import ProductStatus
from markethall.inventory.catalogue.contract.products import ProductChange
from markethall.inventory.imports.service.jobs import MAX_BATCH_ROWS
from tests.conftest import plain
from tests.inventory.conftest import STAFF, InventoryApp
from tests.inventory.import_client import ImportClient

if TYPE_CHECKING:
    Driver = asyncpg.Connection[asyncpg.Record]

TREE_LOCK: Final = "hashtextextended('inventory.category', 0)"
COUNT_WAITING: Final = (
    "SELECT count(*) FROM pg_stat_activity"
    " WHERE datname = current_database() AND wait_event = 'advisory'"
)
# the first batch of the import has the family "tea", the last batch has the new category "New"
FILE: Final = "".join(
    [
        "Handle,Title,Type,Option1 Name,Option1 Value,SKU,Price\ntea,Tea,,Size,S,SMALL,1\n",
        *(f"cup-{number},Cup,,,,CUP-{number},1\n" for number in range(MAX_BATCH_ROWS)),
        "pot,Pot,New,,,POT,1\n",
    ]
)


async def test_import_and_change_of_product_do_not_deadlock(
    sql_inventory_app: InventoryApp, database_url: str
) -> None:
    """The import archives a product that another transaction moves to a new category."""
    await sql_inventory_app.product("SMALL", family="tea", options={"Size": "S"})
    large = await sql_inventory_app.product("LARGE", family="tea", options={"Size": "L"})
    move = ProductChange.model_validate({"category": "Other"})
    driver = await asyncpg.connect(plain(database_url))
    client = ImportClient(sql_inventory_app)

    with capture_logs() as lines:
        async with asyncio.TaskGroup() as tasks:
            await driver.execute(f"SELECT pg_advisory_lock({TREE_LOCK})")
            tasks.create_task(client.import_to_end(FILE, missing="archive"))
            await wait_for_waiting(driver, 1)
            moving = tasks.create_task(
                sql_inventory_app.catalogue.change(STAFF, large.product_id, move, {1, 2})
            )
            await wait_for_waiting(driver, 2)
            await driver.close()  # releases the lock

    moved = moving.result()
    assert "database.deadlock" not in [line["event"] for line in lines]
    assert (moved.status, moved.category) == (ProductStatus.ARCHIVED, "Other")


async def wait_for_waiting(driver: "Driver", count: int) -> None:
    """Wait until `count` connections wait for an advisory lock. Raises TimeoutError after 30 s."""
    async with asyncio.timeout(30):
        while await driver.fetchval(COUNT_WAITING) < count:
            await asyncio.sleep(0.01)
