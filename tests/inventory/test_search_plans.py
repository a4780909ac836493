"""Test that a page in the middle of a long product list costs about as much as the first page.

The cost is the number of database pages (8 KiB blocks) that the query reads.
"""

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from markethall.inventory.catalogue.sql.tables import products
from markethall.inventory.search.contract import ProductQuery
from markethall.inventory.search.domain import SearchQuery
from markethall.inventory.search.ports import ProductPageRequest
from markethall.inventory.search.sql.store import TrigramSupport
from markethall.inventory.sql import STATEMENTS, SqlInventoryStore
from markethall.shared.kernel.clock import utc_now
from markethall.shared.kernel.ids import new_id
from markethall.shared.persistence.postgres import Connection, PoolSize, Postgres, Statement
from tests.conftest import on_server, url_of
from tests.inventory.conftest import build_inventory_app

if TYPE_CHECKING:
    from asyncpg.protocol import Record

NOW = datetime(2026, 11, 21, tzinfo=UTC)
# each filter matches every second product; product n is n days old and costs n minor units
FIELDS = {
    "product_id": "('00000000-0000-7000-8000-' || lpad(n::text, 12, '0'))::uuid",
    "sku": "'P' || n",
    "sku_key": "'p' || n",
    "name": "'name ' || lpad(n::text, 5, '0')",
    "name_key": "'name ' || lpad(n::text, 5, '0')",
    "description": "repeat('so ', 100)",
    "price_amount": "n",
    "category": "CASE n % 2 WHEN 0 THEN 'tea' ELSE 'cups' END",
    "tags": "CASE n % 2 WHEN 0 THEN '{x}'::text[] ELSE '{y}' END",
    "option_keys": """CASE n % 2 WHEN 0 THEN '{"size": "m"}'::jsonb ELSE '{"size": "l"}' END""",
    "attribute_keys": """CASE n % 2 WHEN 0 THEN '{"wool": "true"}'::jsonb ELSE '{}' END""",
    "tag_keys": "CASE n % 2 WHEN 0 THEN '{x}'::text[] ELSE '{y}' END",
    "created_at": "timestamptz '2026-01-01Z' - n * interval '1 day'",
    "search": "CASE n % 2 WHEN 0 THEN $$'tea':1A$$ ELSE $$'cup':1A$$ END::tsvector",
}
COLUMNS = [column.name for column in products.c if column.computed is None]
MANY_PRODUCTS = f"""
INSERT INTO inventory.product ({", ".join(COLUMNS)})
SELECT {", ".join(FIELDS.get(name, name) for name in COLUMNS)}
FROM inventory.product, generate_series(1, 5000) n WHERE sku = 'FIRST';
INSERT INTO inventory.stock (product_id, warehouse_id, on_hand, reserved)
SELECT product_id, '00000000-0000-7000-8000-000000000001', 0, 0 FROM inventory.product
ON CONFLICT DO NOTHING
"""
MIDDLE = "SELECT * FROM inventory.product WHERE price_amount = 2500"


class ExplainingConnection(Connection):
    """A connection that runs EXPLAIN on statements, and counts the database pages they read."""

    pages = 0

    async def fetch_one(self, statement: Statement, **values: Any) -> "Record | None":
        sql, arguments = statement.bind(values)
        explain = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {sql}"
        plan = json.loads(await self._driver.fetchval(explain, *arguments))[0]["Plan"]
        self.pages = plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
        return None


@pytest.fixture
async def separate_url(server_url: str, template: str) -> AsyncIterator[str]:
    """Create a database for this test, because rows of other tests would change the query plans."""
    name = f"plans_{new_id().hex}"
    await on_server(server_url, f"CREATE DATABASE {name} TEMPLATE {template}")
    yield url_of(server_url, name)
    await on_server(server_url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def postgres(separate_url: str) -> AsyncIterator[Postgres]:
    database = Postgres(separate_url, PoolSize(timeout=60))
    yield database
    await database.close()


async def pages_read(postgres: Postgres, request: ProductPageRequest) -> int:
    async with postgres.read_session() as connection:
        explaining = ExplainingConnection(connection._driver)
        store = SqlInventoryStore(explaining, STATEMENTS, utc_now, trigrams=TrigramSupport())
        await store.get_product_page(request, NOW)
    return explaining.pages


LISTS: list[tuple[dict[str, Any], str]] = [
    ({}, "created_at"),
    ({"sort": "name"}, "name_key"),
    ({"sort": "price"}, "price_amount"),
    ({"sort": "-price"}, "price_amount"),
    ({"in_stock": False}, "created_at"),
    ({"q": "te"}, "created_at"),
    ({"q": "te", "sort": "price"}, "price_amount"),
    ({"category": "tea"}, "created_at"),
    ({"category": "tea", "sort": "-price"}, "price_amount"),
    ({"tag": "x", "sort": "name", "in_stock": False}, "name_key"),
    ({"option": {"size": ["M", "S"]}}, "created_at"),
    ({"option": {"size": "M"}, "attribute": {"wool": "true"}, "sort": "price"}, "price_amount"),
]


async def test_deep_page_reads_as_many_pages_as_first(
    postgres: Postgres, separate_url: str
) -> None:
    inventory_app = build_inventory_app("sql", postgres)
    await inventory_app.product("FIRST", category="tea")
    await inventory_app.product("SECOND", category="cups")
    # use a separate connection, because the statement timeout of the pool may be too short for this
    # insert
    await on_server(separate_url, MANY_PRODUCTS)
    await on_server(separate_url, "VACUUM (ANALYZE)")
    async with postgres.read_session() as connection:
        middle = await connection._driver.fetchrow(MIDDLE)
    assert middle is not None

    for query, key in LISTS:
        search = SearchQuery.parse(query["q"]) if "q" in query else None
        first = ProductPageRequest(ProductQuery.model_validate(query), search)
        score = (8,) if search and "sort" not in query else ()
        deep = replace(first, after=(*score, middle[key], middle["product_id"]))

        assert await pages_read(postgres, deep) <= 1.5 * await pages_read(postgres, first), query
