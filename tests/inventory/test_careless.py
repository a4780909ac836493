"""A store that looks first and takes then is caught by the same races and the same questions."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, AsyncExitStack
from uuid import UUID

import asyncpg
import pytest

from markethall.inventory.contract import OutOfStock, Reservation
from tests.e2e.own import own_database
from tests.inventory import careless, test_races
from tests.inventory.arena import Arena, arena, at_once

Mistake = Callable[[], AbstractContextManager[None]]
MISTAKES = [careless.in_steps, careless.at_once]
WAITING = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND wait_event_type = 'Lock'
"""


@pytest.fixture
async def place(server_url: str, template: str) -> AsyncIterator[Arena]:
    """A database of its own, which may be spoiled."""
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(own_database(server_url, template))
        yield await stack.enter_async_context(arena(url, 0))


@pytest.mark.parametrize("planted", MISTAKES)
async def test_the_database_refuses_what_a_careless_store_sells_twice(
    place: Arena, planted: Mistake
) -> None:
    tea = await place.house.product(stock=1)

    with planted():
        outcomes = await race(place, tea.product_id)

    assert outcomes == {Reservation, OutOfStock, asyncpg.CheckViolationError}
    assert await place.house.shelf(tea.product_id) == (1, 1)
    assert await place.is_true()


@pytest.mark.parametrize("planted", MISTAKES)
async def test_without_that_check_it_sells_twice_and_the_races_see_it(
    place: Arena, planted: Mistake
) -> None:
    tea = await place.house.product(stock=1)
    await place.driver.execute("ALTER TABLE inventory.stock DROP CONSTRAINT ck_stock_reserved")

    with planted():
        outcomes = await race(place, tea.product_id)

    _, reserved = await place.house.shelf(tea.product_id)
    assert (outcomes, reserved > 1) == ({Reservation, OutOfStock}, True)
    with pytest.raises(AssertionError, match="more reserved than there is"):
        await place.is_true()


async def test_a_careless_store_fails_the_race_for_the_last_unit(place: Arena) -> None:
    await place.driver.execute("ALTER TABLE inventory.stock DROP CONSTRAINT ck_stock_reserved")

    # one too many bought: it is seen when the goods are to leave, or when they are counted
    with careless.in_steps(), pytest.raises((AssertionError, OutOfStock)):
        await test_races.test_a_hundred_buyers_of_the_last_unit_buy_one(place)


async def test_the_careful_store_needs_no_check_of_the_database(place: Arena) -> None:
    tea = await place.house.product(stock=1)
    await place.driver.execute("ALTER TABLE inventory.stock DROP CONSTRAINT ck_stock_reserved")

    outcomes = await race(place, tea.product_id)

    assert outcomes == {Reservation, OutOfStock}
    assert await place.house.shelf(tea.product_id) == (1, 1)
    assert await place.is_true()


async def race(place: Arena, product_id: UUID) -> set[type]:
    """What a hundred buyers of the last unit get. Two have looked before the first one takes."""
    asked = [place.house.reserve({product_id: 1}) for _ in range(100)]
    async with place.driver.transaction():
        await place.driver.execute(
            "SELECT FROM inventory.stock WHERE product_id = $1 FOR UPDATE", product_id
        )
        racing = asyncio.create_task(at_once(asked))
        async with asyncio.timeout(30):
            while await place.driver.fetchval(WAITING) < 2:
                await place.driver.execute("SELECT pg_stat_clear_snapshot()")
    return {type(outcome) for outcome in await racing}
