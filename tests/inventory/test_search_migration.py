"""The search migration indexes existing products, with and without pg_trgm."""

import asyncio
import runpy
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest
from alembic import command

from markethall import schema_migrations
from markethall.shared.kernel.ids import new_id
from markethall.shared.persistence.postgres import PoolSize, Postgres
from tests.conftest import on_server, plain, url_of
from tests.inventory.conftest import build_inventory_app
from tests.inventory.test_catalogue import skus

BEFORE = "c8d3f2ba1045"
PRODUCTS = """
INSERT INTO inventory.product (product_id, sku, name, description, price_amount, price_currency,
    options, tags, images, attributes, status, version, created_at, updated_at)
SELECT gen_random_uuid(), 'TEA-' || n, 'Crème ' || n, 'brewed', 1, 'EUR', '{}', '{Grün}', '{}',
    '{}', 'active', 1, now(), now()
FROM generate_series(1, 1001) n
"""
MIGRATION = (
    Path(schema_migrations.__file__).parents[2] / "migrations/inventory/2026_11_21_search.py"
)


@pytest.fixture
async def old_url(server_url: str) -> AsyncIterator[str]:
    """A database from before the search, with a thousand and one products."""
    name = f"old_{new_id().hex}"
    await on_server(server_url, f"CREATE DATABASE {name}")
    url = url_of(server_url, name)
    await asyncio.to_thread(migrated, url, BEFORE)
    await on_server(url, PRODUCTS)
    yield url
    await on_server(server_url, f"DROP DATABASE {name} WITH (FORCE)")


def migrated(url: str, revision: str) -> None:
    config = schema_migrations.alembic_config("inventory")
    config.attributes["url"] = url
    command.upgrade(config, revision)


async def test_existing_products_are_indexed(old_url: str) -> None:
    await asyncio.to_thread(migrated, old_url, "head")
    postgres = Postgres(old_url, PoolSize(min_size=1, max_size=2, timeout=10))
    inventory_app = build_inventory_app("sql", postgres)

    for q in ("tea-1001", "creme 1001", "grun 1001", "brewed 1001", "gurn 1001"):
        assert await skus(inventory_app, q=q) == ["TEA-1001"], q
    await postgres.close()


async def test_migrated_and_new_products_have_same_terms(old_url: str) -> None:
    await asyncio.to_thread(migrated, old_url, "head")
    postgres = Postgres(old_url, PoolSize(min_size=1, max_size=2, timeout=10))
    words = "SELECT search::text FROM inventory.product WHERE lower(sku) = 'tea-7'"
    old = await asked(old_url, words)

    await on_server(old_url, "DELETE FROM inventory.product WHERE sku = 'TEA-7'")
    inventory_app = build_inventory_app("sql", postgres)
    await inventory_app.product("tea-7", name="Crème 7", description="brewed", tags=("Grün",))

    await postgres.close()
    assert await asked(old_url, words) == old


async def test_migration_succeeds_without_extension_privilege(old_url: str) -> None:
    make = runpy.run_path(str(MIGRATION))["TRIGRAMS"]
    role = f"guest_{new_id().hex[:12]}"
    await on_server(old_url, f"CREATE ROLE {role}")

    await on_server(old_url, f"SET ROLE {role}; {make}")

    there = "SELECT count(*) FROM pg_extension WHERE extname = 'pg_trgm'"
    assert await asked(old_url, there) == [0]
    await on_server(old_url, make)
    assert await asked(old_url, there) == [1]
    await on_server(old_url, f"DROP ROLE {role}")


async def asked(url: str, sql: str) -> list[object]:
    connection = await asyncpg.connect(plain(url))
    try:
        return [row[0] for row in await connection.fetch(sql)]
    finally:
        await connection.close()
