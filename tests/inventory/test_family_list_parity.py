"""Test that the family list is the product list with the first product of each family.

Memory and SQL must return the same families in the same order, for any query.
"""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from markethall.inventory.catalogue.contract.families import FamilyView
from markethall.inventory.search.contract import FamilyQuery, ProductQuery
from markethall.shared.persistence.postgres import Postgres
from tests.inventory.conftest import ANYONE, InventoryApp
from tests.inventory.test_search_parity import (
    EXAMPLES,
    connection,
    empty_storages,
    products,
    queries,
    unselective_queries,
)

__all__ = ["connection"]

family_queries = queries.map(
    lambda query: {name: query[name] for name in query if name not in {"family", "status"}}
)
# many products of few families, so that most products are not the first of their family
members = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["tea", "tea pot", "pot"]),
        "tags": st.sampled_from([(), ("tea",), ("pot", "x")]),
        "category": st.sampled_from(["tea", "cups"]),
        "family": st.sampled_from([None, *map(str, range(30))]),
        "options": st.dictionaries(st.sampled_from("sc"), st.sampled_from("SML"), max_size=2),
        "price": st.integers(0, 2).map(lambda amount: {"amount": amount, "currency": "EUR"}),
        "stock": st.integers(0, 2),
    }
)


async def list_families(
    inventory_app: InventoryApp, query: dict[str, Any], limit: int
) -> list[FamilyView]:
    """Read the family list in pages of `limit`."""
    found: list[FamilyView] = []
    cursor = None
    while True:
        page_query = FamilyQuery.model_validate({**query, "limit": limit, "cursor": cursor})
        page = await inventory_app.family_search.list_families(ANYONE, page_query)
        found += page.items
        cursor = page.next_cursor
        if cursor is None:
            return found


def comparable(families: list[FamilyView]) -> list[dict[str, Any]]:
    """Leave out the values that each storage generates, such as ids."""
    chosen = {"family_id", "created_at", "updated_at"}
    return [family.model_dump(exclude=chosen) for family in families]


async def expected_labels(inventory_app: InventoryApp, query: dict[str, Any]) -> list[str]:
    """Return the label, or the id of a product without a family, in the order of the products."""
    names: list[str] = []
    cursor = None
    while True:
        page_query = ProductQuery.model_validate({**query, "limit": 100, "cursor": cursor})
        page = await inventory_app.product_search.list_products(ANYONE, page_query)
        names += [product.family or str(product.product_id) for product in page.items]
        cursor = page.next_cursor
        if cursor is None:
            return list(dict.fromkeys(names))


def labels(families: list[FamilyView]) -> list[str]:
    return [family.label or str(family.family_id) for family in families]


@EXAMPLES
@given(catalogue=st.lists(products, max_size=8), query=family_queries)
async def test_memory_and_sql_return_same_families(
    connection: Any, postgres: Postgres, catalogue: list[dict[str, Any]], query: dict[str, Any]
) -> None:
    storages = await empty_storages(connection, postgres)
    await storages.fill(catalogue)

    in_sql = await list_families(storages.sql, query, 100)
    in_memory = await list_families(storages.memory, query, 100)

    assert comparable(in_sql) == comparable(in_memory)
    assert labels(in_sql) == await expected_labels(storages.sql, query)
    assert await list_families(storages.sql, query, 2) == in_sql
    assert await list_families(storages.memory, query, 2) == in_memory


@EXAMPLES
@given(catalogue=st.lists(products, max_size=8), query=family_queries)
async def test_memory_and_sql_return_same_facets(
    connection: Any, postgres: Postgres, catalogue: list[dict[str, Any]], query: dict[str, Any]
) -> None:
    storages = await empty_storages(connection, postgres)
    await storages.fill(catalogue)
    counting = FamilyQuery.model_validate({**query, "facets": "category,options,tag,attributes"})

    in_sql = await storages.sql.family_search.list_families(ANYONE, counting)
    in_memory = await storages.memory.family_search.list_families(ANYONE, counting)

    assert in_sql.facets == in_memory.facets
    assert in_sql.facets is not None


@settings(EXAMPLES, max_examples=15)
@given(catalogue=st.lists(members, min_size=40, max_size=80), query=unselective_queries)
async def test_families_of_many_pages_follow_the_products(
    connection: Any, postgres: Postgres, catalogue: list[dict[str, Any]], query: dict[str, Any]
) -> None:
    storages = await empty_storages(connection, postgres)
    await storages.fill(catalogue)

    in_sql = await list_families(storages.sql, query, 20)

    assert labels(in_sql) == await expected_labels(storages.sql, query)
    assert comparable(in_sql) == comparable(await list_families(storages.memory, query, 100))
    assert await list_families(storages.sql, query, 3) == in_sql
