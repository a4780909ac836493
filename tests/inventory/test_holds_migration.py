"""What the release before cannot say is not lost on the way back to it."""

from collections.abc import AsyncIterator

import pytest

from markethall.shared.db import PoolSize, Postgres
from markethall.shared.ids import new_id
from tests.conftest import on_server, url_of
from tests.inventory.conftest import ANYONE, build, leaving
from tests.inventory.shelves import NORTH, put_on_shelf
from tests.test_migrating import alembic

BEFORE = "e07b3a91d5f4"


@pytest.fixture
async def new_url(server_url: str, template: str) -> AsyncIterator[str]:
    """A database of its own, migrated."""
    name = f"new_{new_id().hex}"
    await on_server(server_url, f"CREATE DATABASE {name} TEMPLATE {template}")
    yield url_of(server_url, name)
    await on_server(server_url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.mark.parametrize("sold", [False, True])
async def test_goods_from_two_warehouses_are_not_forgotten(new_url: str, *, sold: bool) -> None:
    postgres = Postgres(new_url, PoolSize(least=1, most=2, timeout=10))
    house = build("sql", postgres)
    tea = await house.product(stock=1)
    await put_on_shelf(house, tea.product_id, NORTH, 2)
    held = await house.reserve({tea.product_id: 3})
    if sold:
        await house.inventory.consume(ANYONE, leaving(held.reservation_id, {tea.product_id: 3}))
    await postgres.close()

    told = alembic(new_url, "-n", "inventory", "downgrade", BEFORE, fails=True)

    assert "from several warehouses" in told
