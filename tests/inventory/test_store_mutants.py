"""Test that race tests fail with a broken store, and that a constraint prevents overselling."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, AsyncExitStack
from uuid import UUID

import asyncpg
import pytest

from markethall.inventory.contract import OutOfStock, ReservationView
from tests.e2e.dedicated_server import dedicated_database
from tests.inventory import broken_store, test_races
from tests.inventory.race_setup import RaceSetup, open_race_setup, run_concurrently

BrokenStore = Callable[[], AbstractContextManager[None]]
BROKEN_STORES = [broken_store.check_then_reserve, broken_store.unconditional_single_statement]
WAITING_FOR_LOCK = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND wait_event_type = 'Lock'
"""


@pytest.fixture
async def setup(server_url: str, template: str) -> AsyncIterator[RaceSetup]:
    """Open a setup with its own database, because the tests drop constraints."""
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(dedicated_database(server_url, template))
        yield await stack.enter_async_context(open_race_setup(url, 0))


@pytest.mark.parametrize("broken", BROKEN_STORES)
async def test_database_constraint_rejects_overselling_by_broken_store(
    setup: RaceSetup, broken: BrokenStore
) -> None:
    tea = await setup.inventory_app.product(stock=1)

    with broken():
        outcomes = await race_for_last_unit(setup, tea.product_id)

    assert outcomes == {ReservationView, OutOfStock, asyncpg.CheckViolationError}
    assert await setup.inventory_app.main_stock(tea.product_id) == (1, 1)
    assert await setup.invariants_hold()


@pytest.mark.parametrize("broken", BROKEN_STORES)
async def test_without_constraint_broken_store_oversells_and_invariant_check_fails(
    setup: RaceSetup, broken: BrokenStore
) -> None:
    tea = await setup.inventory_app.product(stock=1)
    await setup.driver.execute("ALTER TABLE inventory.stock DROP CONSTRAINT ck_stock_reserved")

    with broken():
        outcomes = await race_for_last_unit(setup, tea.product_id)

    _, reserved = await setup.inventory_app.main_stock(tea.product_id)
    assert (outcomes, reserved > 1) == ({ReservationView, OutOfStock}, True)
    with pytest.raises(AssertionError, match="more reserved than on hand and backorder"):
        await setup.invariants_hold()


async def test_broken_store_fails_last_unit_race(
    setup: RaceSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    # all rounds, so that a failure is almost certain; the first failing round ends the test
    monkeypatch.setitem(test_races.ROUNDS, test_races.NEAR, test_races.ALL_ROUNDS)
    await setup.driver.execute("ALTER TABLE inventory.stock DROP CONSTRAINT ck_stock_reserved")

    # the race test fails with OutOfStock when it consumes the oversold unit, or with an
    # AssertionError when it checks the invariants
    with broken_store.check_then_reserve(), pytest.raises((AssertionError, OutOfStock)):
        await test_races.test_hundred_concurrent_buyers_of_last_unit_buy_one(setup)


async def test_correct_store_does_not_rely_on_constraint(setup: RaceSetup) -> None:
    tea = await setup.inventory_app.product(stock=1)
    await setup.driver.execute("ALTER TABLE inventory.stock DROP CONSTRAINT ck_stock_reserved")

    outcomes = await race_for_last_unit(setup, tea.product_id)

    assert outcomes == {ReservationView, OutOfStock}
    assert await setup.inventory_app.main_stock(tea.product_id) == (1, 1)
    assert await setup.invariants_hold()


async def race_for_last_unit(setup: RaceSetup, product_id: UUID) -> set[type]:
    """Return the types of the outcomes of a hundred buyers.

    The stock row stays locked until two buyers wait for the lock. So both have passed every check
    that a store makes before its UPDATE.
    """
    calls = [setup.inventory_app.reserve({product_id: 1}) for _ in range(100)]
    async with setup.driver.transaction():
        await setup.driver.execute(
            "SELECT FROM inventory.stock WHERE product_id = $1 FOR UPDATE", product_id
        )
        race = asyncio.create_task(run_concurrently(calls))
        async with asyncio.timeout(30):
            while await setup.driver.fetchval(WAITING_FOR_LOCK) < 2:
                await setup.driver.execute("SELECT pg_stat_clear_snapshot()")
    return {type(outcome) for outcome in await race}
