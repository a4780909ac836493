"""A store that looks first and takes then is caught by the same races and the same questions."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from uuid import UUID

import asyncpg
import pytest

from markethall.inventory.contract import OutOfStock, Reservation
from tests.e2e.own import own_database
from tests.inventory import test_races
from tests.inventory.arena import Arena, arena, at_once
from tests.inventory.careless import planted


@pytest.fixture
async def place(server_url: str, template: str) -> AsyncIterator[Arena]:
    """A database of its own, which may be spoiled."""
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(own_database(server_url, template))
        yield await stack.enter_async_context(arena(url, 0))


async def test_the_database_refuses_what_a_careless_store_sells_twice(place: Arena) -> None:
    tea = await place.house.product(stock=1)

    with planted():
        outcomes = await race(place, tea.product_id)

    assert outcomes == {Reservation, OutOfStock, asyncpg.CheckViolationError}
    assert await place.house.shelf(tea.product_id) == (1, 1)
    assert await place.is_true()


async def test_without_that_check_it_sells_twice_and_the_races_see_it(place: Arena) -> None:
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

    with planted(), pytest.raises(AssertionError):
        await test_races.test_a_hundred_buyers_of_the_last_unit_buy_one(place)


async def test_the_careful_store_needs_no_check_of_the_database(place: Arena) -> None:
    tea = await place.house.product(stock=1)
    await place.driver.execute("ALTER TABLE inventory.stock DROP CONSTRAINT ck_stock_reserved")

    outcomes = await race(place, tea.product_id)

    assert outcomes == {Reservation, OutOfStock}
    assert await place.house.shelf(tea.product_id) == (1, 1)
    assert await place.is_true()


async def race(place: Arena, product_id: UUID) -> set[type]:
    """What a hundred buyers of the last unit get."""
    asked = [place.house.reserve({product_id: 1}) for _ in range(100)]
    return {type(outcome) for outcome in await at_once(asked)}
