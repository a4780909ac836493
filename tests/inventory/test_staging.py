"""The bulk write of products with the staging table."""

from dataclasses import replace

import pytest
import sqlalchemy as sa

from markethall.inventory.catalogue.contract.products import NewProduct, Price
from markethall.inventory.catalogue.domain.products import Product
from markethall.inventory.imports.sql.store import ProductStaging
from markethall.shared.kernel.clock import utc_now
from markethall.shared.kernel.ids import new_id
from markethall.shared.persistence.postgres import Postgres, Statement
from tests.inventory.conftest import InventoryApp


def product(number: int) -> Product:
    price = Price(amount=number, currency="EUR")
    command = NewProduct(sku=f"S-{number:04d}", name=f"Number {number}", price=price)
    return Product.new(new_id(), command, utc_now())


async def write(postgres: Postgres, new: list[Product], changed: list[Product]) -> int:
    async with postgres.transaction() as connection:
        return await ProductStaging(connection).write(new, changed)


async def fetch_number(postgres: Postgres, sql: str) -> int:
    async with postgres.read_session() as connection:
        return int(await connection.fetch_value(Statement(sa.text(sql))))


async def test_all_batches_write_new_and_changed_products(
    sql_inventory_app: InventoryApp, postgres: Postgres
) -> None:
    existing = [product(number) for number in range(600)]
    await write(postgres, existing, [])
    changed = [replace(old, name="Changed", version=2) for old in existing[:550]]

    added = await write(postgres, [product(number) for number in range(600, 1200)], changed)

    assert added == 600
    assert await sql_inventory_app.catalogue.count() == 1200
    sql = "SELECT count(*) FROM inventory.product WHERE name = 'Changed' AND version = 2"
    assert await fetch_number(postgres, sql) == 550


async def test_sku_conflict_is_reported_in_any_batch(postgres: Postgres) -> None:
    await write(postgres, [product(1)], [])

    added = await write(postgres, [product(number) for number in range(600)], [])

    assert added == 599


async def test_rendering_error_leaves_connection_usable(
    sql_inventory_app: InventoryApp, postgres: Postgres
) -> None:
    backend_pid = "SELECT pg_backend_pid()"
    before = await fetch_number(postgres, backend_pid)
    invalid = replace(product(400), options={"size": object()})  # type: ignore[dict-item]

    with pytest.raises(TypeError):
        await write(postgres, [*(product(number) for number in range(400)), invalid], [])

    assert await sql_inventory_app.catalogue.count() == 0
    assert await fetch_number(postgres, backend_pid) == before
