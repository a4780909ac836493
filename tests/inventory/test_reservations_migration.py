"""A downgrade never loses reservations that the older schema cannot store."""

from collections.abc import AsyncIterator

import pytest

from markethall.shared.kernel.ids import new_id
from markethall.shared.persistence.postgres import PoolSize, Postgres
from tests.conftest import on_server, url_of
from tests.inventory.conftest import ANYONE, build_inventory_app, consume_command
from tests.inventory.warehouse_fixtures import NORTH, receive_in_warehouse
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
async def test_downgrade_is_refused_with_lines_from_two_warehouses(
    new_url: str, *, sold: bool
) -> None:
    postgres = Postgres(new_url, PoolSize(min_size=1, max_size=2, timeout=10))
    inventory_app = build_inventory_app("sql", postgres)
    tea = await inventory_app.product(stock=1)
    await receive_in_warehouse(inventory_app, tea.product_id, NORTH, 2)
    held = await inventory_app.reserve({tea.product_id: 3})
    if sold:
        await inventory_app.inventory.consume(
            ANYONE, consume_command(held.reservation_id, {tea.product_id: 3})
        )
    await postgres.close()

    told = alembic(new_url, "-n", "inventory", "downgrade", BEFORE, fails=True)

    assert "from several warehouses" in told
