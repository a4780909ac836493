"""What the races are judged by sees what it has to see."""

import asyncio

import asyncpg
import pytest

from tests.conftest import plain
from tests.inventory.conftest import InventoryApp
from tests.inventory.race_setup import RaceSetup, open_race_setup
from tests.inventory.stock_invariants import invariant_violations

# the database refuses all of these (test_rules.py): here its triggers sleep
VIOLATIONS = {
    "on hand is not the sum of the movements": "UPDATE stock SET on_hand = on_hand + 1",
    "reserved is not what the live lines have": "UPDATE stock SET reserved = reserved + 1",
    "a movement does not add up": "UPDATE stock_movement SET on_hand_after = 9",
    "sold is not what has left": "UPDATE reservation_line SET consumed = 1",
}


@pytest.mark.parametrize("lie", VIOLATIONS)
async def test_invariant_violation_is_detected(
    sql_inventory_app: InventoryApp, database_url: str, lie: str
) -> None:
    tea = await sql_inventory_app.product(stock=5)
    await sql_inventory_app.reserve({tea.product_id: 2})
    driver = await asyncpg.connect(plain(database_url))

    async with driver.transaction():
        await driver.execute("SET LOCAL session_replication_role = replica")
        await driver.execute("SET LOCAL search_path TO inventory")
        await driver.execute(
            "ALTER TABLE reservation_line DROP CONSTRAINT ck_reservation_line_held"
        )
        before = await invariant_violations(driver)
        await driver.execute(VIOLATIONS[lie])
        after = await invariant_violations(driver)
        await driver.execute("ROLLBACK AND CHAIN")

    await driver.close()
    assert (before, lie in after) == (set(), True)


async def test_deadlock_is_counted(database_url: str) -> None:
    with pytest.raises(AssertionError):
        async with open_race_setup(database_url, 0) as setup:
            await cause_deadlock(setup)


async def cause_deadlock(setup: RaceSetup) -> None:
    """Two lock the same two shelves, each in an order of their own."""
    shelves = [(await setup.inventory_app.product()).product_id for _ in range(2)]
    meeting = asyncio.Barrier(2)

    async def lock(first: object, second: object) -> None:
        async with setup.postgres.transaction() as connection:
            driver = connection._driver
            for key in (first, second):
                await driver.execute(
                    "UPDATE inventory.stock SET reserved = 0 WHERE product_id = $1", key
                )
                if key is first:
                    await meeting.wait()

    await asyncio.gather(lock(*shelves), lock(*shelves[::-1]), return_exceptions=True)
