"""Test that memory and SQL return the same products in the same order, for any query.

Only SQL suggests spellings, so the tests delete the words that it could suggest.
"""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from markethall.inventory.search.contract import ProductQuery
from markethall.shared.persistence.postgres import Postgres
from tests.conftest import plain
from tests.inventory.conftest import STAFF, InventoryApp, build_inventory_app

EXAMPLES = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
WORDS = [
    "tea", "teapot", "Tee", "sencha", "Sencah", "senhca", "grün", "GRUN", "cup", "cups", "煎茶",
    "1", "10", "a_b", "straße", "été", "Łódź", "smør", "æther", "Þor",
    "'", ":*", "&", "🍵", "-", "x" * 60,
]  # fmt: skip
text = st.lists(st.sampled_from(WORDS[:8]) | st.sampled_from(WORDS), max_size=5).map(" ".join)
products = st.fixed_dictionaries(
    {
        "name": text.filter(bool),
        "description": text,
        "tags": st.lists(st.sampled_from(WORDS), max_size=3, unique=True).map(
            lambda tags: tuple(tag[:50] for tag in tags)
        ),
        "category": st.sampled_from([None, "tea", " TEA", "x > tea", "cups", "Ä", "A\u0308 "]),
        "family": st.sampled_from([None, "f", "g"]),
        "options": st.dictionaries(st.sampled_from("sScC"), st.sampled_from("SsMmL"), max_size=2),
        "attributes": st.dictionaries(
            st.sampled_from("mMn"), st.sampled_from(["x", "X ", "", "1", 1, True, "true", False])
        ),
        "price": st.integers(0, 3).map(lambda amount: {"amount": amount, "currency": "EUR"}),
        "status": st.sampled_from(["active", "active", "active", "draft"]),
        "stock": st.integers(0, 1),
    }
)
frequent = st.lists(st.sampled_from(WORDS[:8]), min_size=1, max_size=3).map(" ".join)
values = st.lists(st.sampled_from(["s", "M ", "x", "1", "true", "FALSE"]), min_size=1, max_size=3)
queries = st.fixed_dictionaries(
    {},
    optional={
        "q": frequent | text.filter(bool).map(lambda q: q[:100]),
        "sort": st.sampled_from(["relevance", "name", "price", "-price", "-created_at"]),
        "category": st.lists(
            st.sampled_from(["tea", "Tea ", "x>tea", "X", "ä", "cups", "nowhere"]),
            min_size=1,
            max_size=2,
        ),
        "family": st.just("f"),
        "tag": st.lists(st.sampled_from([*WORDS[:8], " TEA"]), min_size=1, max_size=2),
        "option": st.dictionaries(st.sampled_from("sSc"), values, min_size=1, max_size=2),
        "attribute": st.dictionaries(st.sampled_from("mN"), values, min_size=1, max_size=2),
        "min_price": st.integers(0, 3),
        "max_price": st.integers(0, 3),
        "in_stock": st.booleans(),
        "status": st.sampled_from(["active", "draft"]),
    },
)


@dataclass
class Storages:
    memory: InventoryApp
    sql: InventoryApp
    connection: Any

    async def fill(self, catalogue: list[dict[str, Any]]) -> None:
        for number, fields in enumerate(catalogue):
            for inventory_app in (self.memory, self.sql):
                # both storages get the same ids, which are not in the order of creation
                thing_id = UUID(int=number * 37 % 101)
                await inventory_app.product(f"Tea-{number}", thing_id=thing_id, **fields)
        await self.connection.execute("DELETE FROM inventory.search_word")


@pytest.fixture
async def connection(database_url: str) -> Any:
    connection = await asyncpg.connect(plain(database_url))
    yield connection
    await connection.close()


async def empty_storages(connection: Any, postgres: Postgres) -> Storages:
    """Empty the database, and return both storages.

    All examples of a test use one database, so each example must remove the earlier rows.
    """
    await connection.execute(
        "SET session_replication_role = replica; DELETE FROM inventory.stock_movement;"
        "DELETE FROM inventory.stock; DELETE FROM inventory.product;"
        "DELETE FROM inventory.category; DELETE FROM inventory.family_slug;"
        "DELETE FROM inventory.family"
    )
    return Storages(build_inventory_app("memory"), build_inventory_app("sql", postgres), connection)


async def skus(inventory_app: InventoryApp, query: dict[str, Any], limit: int) -> list[str]:
    """Read the product list in pages of `limit`. Return the SKUs in list order."""
    found: list[str] = []
    cursor = None
    while True:
        page_query = ProductQuery.model_validate({**query, "limit": limit, "cursor": cursor})
        page = await inventory_app.product_search.list_products(STAFF, page_query)
        found += [product.sku for product in page.items]
        cursor = page.next_cursor
        if cursor is None:
            return found


@EXAMPLES
@given(catalogue=st.lists(products, max_size=8), query=queries)
async def test_memory_and_sql_return_same_pages(
    connection: Any, postgres: Postgres, catalogue: list[dict[str, Any]], query: dict[str, Any]
) -> None:
    storages = await empty_storages(connection, postgres)
    await storages.fill(catalogue)

    in_sql = await skus(storages.sql, query, 100)
    in_memory = await skus(storages.memory, query, 100)

    assert in_sql == in_memory
    assert await skus(storages.sql, query, 2) == in_sql
    assert await skus(storages.memory, query, 2) == in_sql


few_words = st.lists(st.sampled_from(["tea", "teapot", "green", "Tea-3"]), min_size=1, max_size=3)
similar_products = st.fixed_dictionaries(
    {"name": few_words, "description": few_words, "tags": few_words}
)


@EXAMPLES
@given(catalogue=st.lists(similar_products, min_size=2, max_size=6), words=few_words)
async def test_memory_and_sql_rank_alike(
    connection: Any, postgres: Postgres, catalogue: list[dict[str, list[str]]], words: list[str]
) -> None:
    storages = await empty_storages(connection, postgres)
    await storages.fill(
        [
            {"name": " ".join(name), "description": " ".join(text), "tags": tuple(tags)}
            for name, text, tags in (fields.values() for fields in catalogue)
        ]
    )

    in_sql = await skus(storages.sql, {"q": " ".join(words)}, 100)

    assert in_sql == await skus(storages.memory, {"q": " ".join(words)}, 100)


catalogue_products = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["tea", "tea pot", "pot"]),
        "tags": st.sampled_from([(), ("tea",), ("pot", "x")]),
        "category": st.sampled_from(["tea", "cups"]),
        "price": st.integers(0, 2).map(lambda amount: {"amount": amount, "currency": "EUR"}),
    }
)
unselective_queries = st.fixed_dictionaries(
    {"sort": st.sampled_from(["relevance", "name", "price", "-price", "-created_at"])},
    optional={
        "q": st.sampled_from(["tea", "tea pot", "te", "tea-7", "tae"]),
        "category": st.just("tea"),
        "tag": st.just("x"),
        "in_stock": st.just(False),
        "max_price": st.just(1),
    },
)


@settings(EXAMPLES, max_examples=15)
@given(catalogue=st.lists(catalogue_products, min_size=40, max_size=70), query=unselective_queries)
async def test_memory_and_sql_agree_over_many_pages(
    connection: Any, postgres: Postgres, catalogue: list[dict[str, Any]], query: dict[str, Any]
) -> None:
    storages = await empty_storages(connection, postgres)
    await storages.fill(catalogue)

    expected = await skus(storages.memory, query, 100)

    assert await skus(storages.sql, query, 20) == expected
    assert await skus(storages.sql, query, 7) == expected


@EXAMPLES
@given(catalogue=st.lists(products, max_size=8), query=queries)
async def test_memory_and_sql_facets_agree(
    connection: Any, postgres: Postgres, catalogue: list[dict[str, Any]], query: dict[str, Any]
) -> None:
    storages = await empty_storages(connection, postgres)
    await storages.fill(catalogue)
    counting = ProductQuery.model_validate({**query, "facets": "category,options,tag,attributes"})

    in_sql = await storages.sql.product_search.list_products(STAFF, counting)
    in_memory = await storages.memory.product_search.list_products(STAFF, counting)

    assert in_sql.facets == in_memory.facets
    assert in_sql.facets is not None
