"""Test that transactions lock categories before products, in one order, and cannot deadlock."""

import asyncio
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Final

import asyncpg
from structlog.testing import capture_logs

from markethall.inventory.catalogue.contract.categories import (
    CategoryChange,
    CategoryInUse,
    NewCategory,
)
from markethall.inventory.catalogue.contract.fields import ProductStatus
from markethall.inventory.catalogue.contract.products import ProductChange
from markethall.inventory.imports.service.jobs import MAX_BATCH_ROWS
from markethall.shared.kernel.errors import DomainError
from tests.conftest import plain
from tests.inventory.conftest import STAFF, InventoryApp, no_key
from tests.inventory.import_client import ImportClient

if TYPE_CHECKING:
    Driver = asyncpg.Connection[asyncpg.Record]

TREE_LOCK: Final = "hashtextextended('inventory.category', 0)"
COUNT_WAITING: Final = (
    "SELECT count(*) FROM pg_stat_activity"
    " WHERE datname = current_database() AND wait_event_type = 'Lock'"
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


async def test_new_subcategory_change_and_deletion_of_category_do_not_deadlock(
    sql_inventory_app: InventoryApp, database_url: str
) -> None:
    """A category gets a child from a new product, while two clients change and delete it."""
    categories = sql_inventory_app.categories
    created = await categories.create(STAFF, NewCategory(category="Tea"), no_key())
    parent = created.category_id
    change = CategoryChange(position=7)
    driver = await asyncpg.connect(plain(database_url))

    with capture_logs() as lines:
        async with asyncio.TaskGroup() as tasks:
            await driver.execute(f"SELECT pg_advisory_lock({TREE_LOCK})")
            tasks.create_task(categories.change(STAFF, parent, change, {1}))
            await wait_for_waiting(driver, 1)
            tasks.create_task(sql_inventory_app.product("POT", category="Tea > New"))
            await wait_for_waiting(driver, 2)
            deletion = tasks.create_task(get_error(categories.remove(STAFF, parent, {1, 2})))
            await wait_for_waiting(driver, 3)
            await driver.close()  # releases the lock

    view = await categories.get_category(STAFF, parent)
    assert "database.deadlock" not in [line["event"] for line in lines]
    assert isinstance(deletion.result(), CategoryInUse)
    assert view.position == 7


async def get_error(call: Awaitable[None]) -> Exception | None:
    try:
        await call
    except DomainError as error:
        return error
    return None


async def wait_for_waiting(driver: "Driver", count: int) -> None:
    """Wait until `count` connections wait for a lock. Raises TimeoutError after 30 s."""
    async with asyncio.timeout(30):
        while await driver.fetchval(COUNT_WAITING) < count:
            await asyncio.sleep(0.01)
