"""Test that the checks of the race tests detect every violated invariant, and deadlocks."""

import asyncio

import asyncpg
import pytest

from tests.conftest import plain
from tests.inventory.conftest import InventoryApp
from tests.inventory.race_setup import RaceSetup, open_race_setup
from tests.inventory.stock_invariants import invariant_violations

# the constraints reject these changes (see test_constraints.py), so the test disables the triggers
# and drops a check constraint
VIOLATIONS = {
    "on hand is not the sum of the movements": "UPDATE stock SET on_hand = on_hand + 1",
    "reserved is not the sum of the live lines": "UPDATE stock SET reserved = reserved + 1",
    "on_hand_after is not the running sum": "UPDATE stock_movement SET on_hand_after = 9",
    "sold is not the consumed quantity": "UPDATE reservation_line SET consumed = 1",
}


@pytest.mark.parametrize("violation", VIOLATIONS)
async def test_invariant_violation_is_detected(
    sql_inventory_app: InventoryApp, database_url: str, violation: str
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
        await driver.execute(VIOLATIONS[violation])
        after = await invariant_violations(driver)
        await driver.execute("ROLLBACK AND CHAIN")

    await driver.close()
    assert (before, violation in after) == (set(), True)


async def test_deadlock_is_counted(database_url: str) -> None:
    with pytest.raises(AssertionError):
        async with open_race_setup(database_url, 0) as setup:
            await cause_deadlock(setup)


async def cause_deadlock(setup: RaceSetup) -> None:
    """Lock two stock rows in two transactions, in opposite orders."""
    product_ids = [(await setup.inventory_app.product()).product_id for _ in range(2)]
    both_hold_one = asyncio.Barrier(2)

    async def lock(first: object, second: object) -> None:
        async with setup.postgres.transaction() as connection:
            driver = connection._driver
            for key in (first, second):
                await driver.execute(
                    "UPDATE inventory.stock SET reserved = 0 WHERE product_id = $1", key
                )
                if key is first:
                    await both_hold_one.wait()

    await asyncio.gather(lock(*product_ids), lock(*product_ids[::-1]), return_exceptions=True)
