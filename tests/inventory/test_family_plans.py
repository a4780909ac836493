"""Test that a page in the middle of a long family list costs about as much as the first page.

The cost is the number of database pages (8 KiB blocks) that the query reads.
"""

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from markethall.inventory.search.contract import FamilyQuery
from markethall.inventory.search.domain import SearchQuery
from markethall.inventory.search.ports import ProductPageRequest
from markethall.inventory.search.sql.store import TrigramSupport
from markethall.inventory.sql import STATEMENTS, SqlInventoryStore
from markethall.shared.kernel.clock import utc_now
from markethall.shared.persistence.postgres import Connection, Postgres, Statement
from tests.conftest import on_server
from tests.inventory.conftest import build_inventory_app
from tests.inventory.test_search_plans import COLUMNS, FIELDS, NOW, postgres, separate_url

if TYPE_CHECKING:
    from asyncpg.protocol import Record

__all__ = ["postgres", "separate_url"]

# Product n has the family n / 3, so a family has three products; product n is n days old and costs
# n minor units. Either all three products of a family are in stock, or none is.
MEMBERS = FIELDS | {
    "family": "'f' || n / 3",
    "category": "CASE n / 3 % 2 WHEN 0 THEN 'tea' ELSE 'cups' END",
    "tags": "CASE n / 3 % 2 WHEN 0 THEN '{x}'::text[] ELSE '{y}' END",
    "tag_keys": "CASE n / 3 % 2 WHEN 0 THEN '{x}'::text[] ELSE '{y}' END",
    "options": "jsonb_build_object('size', substr('SML', n % 3 + 1, 1))",
    "option_keys": "jsonb_build_object('size', substr('sml', n % 3 + 1, 1))",
    "attributes": "jsonb_build_object('code', n % 2000)",
    "attribute_keys": "jsonb_build_object('code', (n % 2000)::text)",
    "search": "CASE n / 3 % 2 WHEN 0 THEN $$'tea':1A$$ ELSE $$'cup':1A$$ END::tsvector",
}
MANY_FAMILIES = """
INSERT INTO inventory.family (family_id, label, label_key, slug, description, images, metadata,
    translations, status, version, created_at, updated_at)
SELECT gen_random_uuid(), 'f' || n, 'f' || n, 'f' || n, '', '{{}}', '{{}}', '{{}}', 'active', 1,
    now(), now()
FROM generate_series(0, {count} / 3) n;
INSERT INTO inventory.family_slug SELECT slug, family_id FROM inventory.family;
INSERT INTO inventory.product ({columns})
SELECT {values}
FROM inventory.product, generate_series(1, {count}) n WHERE sku = 'FIRST';
INSERT INTO inventory.stock (product_id, warehouse_id, on_hand, reserved)
SELECT product_id, '00000000-0000-7000-8000-000000000001', 0, 0 FROM inventory.product
ON CONFLICT DO NOTHING
"""
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
    ({"option": {"size": ["M"]}, "sort": "price"}, "price_amount"),
]


def many_families(count: int) -> str:
    """Return SQL that inserts `count` products, three in each family."""
    values = ", ".join(MEMBERS.get(name, name) for name in COLUMNS)
    return MANY_FAMILIES.format(count=count, columns=", ".join(COLUMNS), values=values)


class ExplainingConnection(Connection):
    """A connection that runs EXPLAIN on statements, and records pages, time and plan."""

    pages = 0
    milliseconds = 0.0
    plan = ""

    async def fetch_all(self, statement: Statement, **values: Any) -> "list[Record]":
        sql, arguments = statement.bind(values)
        explain = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {sql}"
        [found] = json.loads(await self._driver.fetchval(explain, *arguments))
        self.pages = found["Plan"]["Shared Hit Blocks"] + found["Plan"]["Shared Read Blocks"]
        self.milliseconds = found["Execution Time"]
        self.plan = json.dumps(found)
        return []


async def explain(postgres: Postgres, request: ProductPageRequest) -> ExplainingConnection:
    async with postgres.read_session() as connection:
        explaining = ExplainingConnection(connection._driver)
        store = SqlInventoryStore(explaining, STATEMENTS, utc_now, trigrams=TrigramSupport())
        if request.query.facets:
            await store.get_facets(request, NOW, of_families=True)
        else:
            await store.get_family_list_page(request, NOW)
    return explaining


def requests(
    query: dict[str, Any], key: str, middle: "Record"
) -> tuple[ProductPageRequest, ProductPageRequest]:
    """Return the requests of the first page and of the page after the product `middle`."""
    search = SearchQuery.parse(query["q"]) if "q" in query else None
    products = FamilyQuery.model_validate(query).to_product_query()
    first = ProductPageRequest(products, search)
    score = (8,) if search and "sort" not in query else ()
    return first, replace(first, after=(*score, middle[key], middle["product_id"]))


async def fill(postgres: Postgres, url: str, count: int) -> "Record":
    """Insert products and families, and return the product in the middle."""
    inventory_app = build_inventory_app("sql", postgres)
    await inventory_app.product("FIRST", category="tea")
    await inventory_app.product("SECOND", category="cups")
    await on_server(url, many_families(count))
    await on_server(url, "VACUUM (ANALYZE)")
    async with postgres.read_session() as connection:
        middle = await connection._driver.fetchrow(
            "SELECT * FROM inventory.product WHERE price_amount = $1", count // 2
        )
    assert middle is not None
    return middle


async def test_deep_page_reads_as_many_pages_as_first(
    postgres: Postgres, separate_url: str
) -> None:
    middle = await fill(postgres, separate_url, 6000)

    for query, key in LISTS:
        first, deep = requests(query, key, middle)
        first_page, deep_page = await explain(postgres, first), await explain(postgres, deep)

        assert "Hash Anti Join" not in deep_page.plan, query
        assert deep_page.pages <= 1.5 * first_page.pages, (query, first_page.pages, deep_page.pages)


async def test_counting_facets_neither_sorts_products_nor_writes_to_disk(
    postgres: Postgres, separate_url: str
) -> None:
    middle = await fill(postgres, separate_url, 6000)
    facets = {"facets": "category,tag,options,attributes"}

    counting = await explain(postgres, requests(facets, "created_at", middle)[0])

    # the 2,000 sets of attributes need more memory than Postgres allows by default
    assert '"Strategy": "Mixed"' not in counting.plan
    assert '"Disk Usage": 0' in counting.plan
    assert '"Sort Space Type": "Disk"' not in counting.plan
