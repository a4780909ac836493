"""Search: matches, order, spelling suggestions, facets, cache keys and external engines."""

from collections.abc import Sequence
from typing import Any

import pytest
from pydantic import ValidationError

from markethall.inventory.catalogue.domain.products import Product
from markethall.inventory.container import InventoryContainer
from markethall.inventory.search.contract import Facets, ProductPage, ProductQuery
from markethall.inventory.search.ports import SearchHits
from markethall.shared.kernel.errors import Unavailable
from markethall.shared.observability.metrics import STATEMENTS
from markethall.shared.persistence.postgres import PoolSize, Postgres
from tests.conftest import on_server, url_of
from tests.inventory.conftest import ANYONE, STAFF, InventoryApp, build_inventory_app
from tests.inventory.test_catalogue import changed, skus


@pytest.fixture(params=["memory", "sql"])
def inventory_app(request: pytest.FixtureRequest) -> InventoryApp:
    if request.param == "memory":
        return build_inventory_app("memory")
    return build_inventory_app("sql", request.getfixturevalue("postgres"))


async def found(inventory_app: InventoryApp, q: str, **query: Any) -> list[str]:
    return await skus(inventory_app, q=q, **query)


async def facets(inventory_app: InventoryApp, **query: Any) -> Facets:
    page = await inventory_app.product_search.list_products(
        STAFF, ProductQuery.model_validate(query)
    )
    assert page.facets is not None
    return page.facets


# Matches and their order


async def test_name_ranks_above_sku_tag_and_description(inventory_app: InventoryApp) -> None:
    await inventory_app.product("IN-TEXT", name="Pot", description="for green tea")
    await inventory_app.product("IN-TAG", name="Cup", tags=("tea",))
    await inventory_app.product("TEA-1", name="Sencha")
    await inventory_app.product("IN-NAME", name="Green Tea")
    await inventory_app.product("NOWHERE", name="Spoon")

    assert await found(inventory_app, "tea") == ["IN-NAME", "TEA-1", "IN-TAG", "IN-TEXT"]
    assert await found(inventory_app, "green tea") == ["IN-NAME", "IN-TEXT"]


async def test_each_term_ranks_by_its_best_field(inventory_app: InventoryApp) -> None:
    await inventory_app.product("A", name="Green pot", description="tea")
    await inventory_app.product("B", name="Tea", tags=("green", "tea"))
    await inventory_app.product("C", name="Cup", description="tea, tea, green, tea")

    assert await found(inventory_app, "green tea") == ["B", "A", "C"]


async def test_newest_wins_among_equal_matches(inventory_app: InventoryApp) -> None:
    for sku in ("A", "B", "C", "D", "E"):
        await inventory_app.product(sku, name="Tea")

    assert await found(inventory_app, "tea") == ["E", "D", "C", "B", "A"]


async def test_exact_sku_ranks_first(inventory_app: InventoryApp) -> None:
    await inventory_app.product("TEA-1", name="Pot")
    await inventory_app.product("POT", name="Tea 1, tea-1 and more tea", tags=("tea", "1"))
    await inventory_app.product("TEA-10", name="Tea 1")

    assert (await found(inventory_app, "tea-1"))[0] == "TEA-1"
    assert set(await found(inventory_app, " TEA-1 ")) == {"TEA-1", "POT", "TEA-10"}


async def test_search_matches_word_prefix(inventory_app: InventoryApp) -> None:
    await inventory_app.product("A", name="Sencha Uji")

    assert await found(inventory_app, "sen u") == ["A"]
    assert await found(inventory_app, "ncha") == []


@pytest.mark.parametrize(
    "q", ["creme brulee", "CRÈME", "Crème Brûlée", "\uff43\uff52\uff45\uff4d\uff45"]
)
async def test_search_ignores_case_accents_and_width(inventory_app: InventoryApp, q: str) -> None:
    await inventory_app.product("A", name="Crème brûlée")

    assert await found(inventory_app, q) == ["A"]


@pytest.mark.parametrize(
    ("name", "q"),
    [
        ("Łódź city map", "lodz"),
        ("Lodz city map", "łódź"),
        ("Smørbrød knife", "smor"),
        ("Đakovo", "dakovo"),
        ("Ægir Œuvre", "aegir oeuvre"),
        ("Þór", "thor"),
        ("MASZ ŁÓDŹ", "masz łodz"),
        ("煎茶 100 g", "煎茶"),
        ("שלום tea", "שלום"),
        ("Straße", "strasse"),
        ("ΣΊΣΥΦΟΣ", "σίσυφος"),
    ],
)
async def test_search_supports_any_script(inventory_app: InventoryApp, name: str, q: str) -> None:
    await inventory_app.product("A", name=name)
    await inventory_app.product("B", name="Cup")

    assert await found(inventory_app, q) == ["A"]


@pytest.mark.parametrize(
    "q",
    [
        "'", "''", '"', "\\", "\\'", "tea' | 'cup", "tea & !cup", "!tea", "tea:*", "tea:A", "(tea",
        "tea)", "tea <-> cup", "*", ":*", "%", "$1", "'; DROP TABLE inventory.product; --",
        "🍵", "tea 🍵", "\u202etea", "\ud7ff", "\uffff", "\x01", "\u00a0", " ", "ﷺ" * 100,
        "é" * 100, "e\u0301" * 50, "\U0001d517", "١٢٣", "_", "__tea", "a " * 50, "t\ne\ta",
    ],
)  # fmt: skip
async def test_any_query_text_is_safe(inventory_app: InventoryApp, q: str) -> None:
    await inventory_app.product("TEA", name="tea, cup")

    for sort in ("relevance", "name", "-created_at"):
        page = await inventory_app.product_search.list_products(
            ANYONE, ProductQuery(q=q, sort=sort)
        )

        assert len(page.items) in {0, 1}


@pytest.mark.parametrize("q", ["", "x" * 101, "a\x00b", "\ud800"])
def test_invalid_query_text_is_rejected(q: str) -> None:
    with pytest.raises(ValidationError):
        ProductQuery(q=q)


async def test_only_the_first_ten_words_count(inventory_app: InventoryApp) -> None:
    await inventory_app.product("A", name="one two three four five six seven eight nine ten")

    ten = "one two three four five six seven eight nine ten"
    assert await found(inventory_app, f"{ten} twentyfour") == ["A"]
    assert await found(inventory_app, f"twentyfour {ten}") == []


async def test_query_without_letters_finds_nothing(inventory_app: InventoryApp) -> None:
    await inventory_app.product("A", name="100% pure")

    assert await found(inventory_app, "%") == []
    assert await facets(inventory_app, q="%", facets="category,tag") == Facets(category=(), tag=())


async def test_renamed_product_is_found_by_new_name_only(inventory_app: InventoryApp) -> None:
    tea = await inventory_app.product("A", name="Sencha", tags=("green",), description="from Uji")

    await changed(inventory_app, tea, 1, name="Gyokuro", tags=[], description=None)

    assert await found(inventory_app, "gyokuro") == ["A"]
    for old_word in ("sencha", "green", "uji"):
        assert await found(inventory_app, old_word) == []


async def test_search_combines_with_filters_and_sorts(inventory_app: InventoryApp) -> None:
    euro = {"currency": "EUR"}
    await inventory_app.product("A", 1, name="Tea b", category="tea", price={"amount": 3, **euro})
    await inventory_app.product("B", 0, name="Tea a", category="tea", price={"amount": 1, **euro})
    await inventory_app.product("C", 1, name="Tea c", category="cups", price={"amount": 2, **euro})
    await inventory_app.product("D", 1, name="Tea d", status="draft")

    assert await found(inventory_app, "tea", sort="name") == ["B", "A", "C"]
    assert await found(inventory_app, "tea", sort="-price") == ["A", "C", "B"]
    assert await found(inventory_app, "tea", category="tea") == ["B", "A"]
    assert await found(inventory_app, "tea", in_stock=True) == ["C", "A"]
    assert await found(inventory_app, "tea", in_stock=False, sort="relevance") == ["B"]
    assert await found(inventory_app, "tea", min_price=2, max_price=2) == ["C"]
    assert await found(inventory_app, "tea", status="draft") == ["D"]


async def test_relevance_sort_without_terms_is_newest_first(inventory_app: InventoryApp) -> None:
    for sku in ("A", "B", "C"):
        await inventory_app.product(sku)

    assert await skus(inventory_app, sort="relevance") == ["C", "B", "A"]


# Spelling suggestions, only in SQL


@pytest.mark.parametrize(
    "q", ["senhca", "sencah", "semcha", "senncha", "ssencha", "sench", "sncha"]
)
async def test_misspelt_term_is_corrected(sql_inventory_app: InventoryApp, q: str) -> None:
    await sql_inventory_app.product("A", name="Sencha Uji")
    await sql_inventory_app.product("B", name="Cup")

    assert await found(sql_inventory_app, f"{q} uji") == ["A"]


async def test_spelling_covers_names_and_tags_only(sql_inventory_app: InventoryApp) -> None:
    await sql_inventory_app.product("SHINCHA-1", name="A", tags=("kyushu",), description="gyokuro")

    assert await found(sql_inventory_app, "kyuhsu") == ["SHINCHA-1"]
    assert await found(sql_inventory_app, "shinhca") == []
    assert await found(sql_inventory_app, "gyokruo") == []


async def test_known_word_is_never_corrected(sql_inventory_app: InventoryApp) -> None:
    await sql_inventory_app.product("A", name="Shirt")
    await sql_inventory_app.product("B", name="Short", status="draft")

    assert await found(sql_inventory_app, "short") == []
    assert await found(sql_inventory_app, "shirr") == ["A"]
    assert await found(sql_inventory_app, "xy") == []


async def test_corrected_search_has_pages_and_facets(sql_inventory_app: InventoryApp) -> None:
    for number in range(5):
        await sql_inventory_app.product(f"S{number}", name="Sencha", category="tea")

    assert await found(sql_inventory_app, "senhca") == ["S4", "S3", "S2", "S1", "S0"]
    counted = await facets(sql_inventory_app, q="senhca", facets="category")
    assert counted.category is not None
    assert [(facet.value, facet.count) for facet in counted.category] == [("tea", 5)]


async def test_memory_storage_has_no_spelling_help() -> None:
    inventory_app = build_inventory_app("memory")
    await inventory_app.product("A", name="Sencha")

    assert await found(inventory_app, "sencha") == ["A"]
    assert await found(inventory_app, "senhca") == []


async def test_without_pg_trgm_only_spelling_is_disabled(server_url: str, template: str) -> None:
    name = f"{template}_plain"
    await on_server(server_url, f"CREATE DATABASE {name} TEMPLATE {template}")
    await on_server(url_of(server_url, name), "DROP EXTENSION pg_trgm")
    postgres = Postgres(url_of(server_url, name), PoolSize(min_size=1, max_size=2, timeout=10))
    inventory_app = build_inventory_app("sql", postgres)

    await inventory_app.product("A", name="Sencha")
    correct, misspelt = await found(inventory_app, "sencha"), await found(inventory_app, "senhca")

    await postgres.close()
    await on_server(server_url, f"DROP DATABASE {name} WITH (FORCE)")
    assert (correct, misspelt) == (["A"], [])


# Facets


async def test_facets_count_all_matches(inventory_app: InventoryApp) -> None:
    red, blue = {"colour": "red", "size": "M"}, {"colour": "blue"}
    await inventory_app.product("A", name="Tea", category="tea", options=red, tags=("x", "y"))
    await inventory_app.product("B", name="Tea", category="tea", options=blue, tags=("y",))
    await inventory_app.product("C", name="Tea", category="cups", options=blue)
    await inventory_app.product("D", name="Tea", status="draft", category="cups")
    await inventory_app.product("E", name="Other", category="other", tags=("x",))

    all_facets = await facets(inventory_app, q="tea", limit=1, facets="category,options,tag")
    tags_of_category = await facets(inventory_app, category="tea", facets="tag")

    assert all_facets.model_dump() == {
        "category": ({"value": "tea", "count": 2}, {"value": "cups", "count": 1}),
        "options": {
            "colour": ({"value": "blue", "count": 2}, {"value": "red", "count": 1}),
            "size": ({"value": "M", "count": 1},),
        },
        "tag": ({"value": "y", "count": 2}, {"value": "x", "count": 1}),
        "attributes": None,
    }
    assert tags_of_category.model_dump(exclude_none=True) == {
        "tag": ({"value": "y", "count": 2}, {"value": "x", "count": 1})
    }


async def test_facet_has_hundred_most_frequent_values(inventory_app: InventoryApp) -> None:
    await inventory_app.product("A", tags=tuple(f"t{number:03}" for number in range(50)))
    await inventory_app.product("B", tags=tuple(f"t{number:03}" for number in range(50, 100)))
    await inventory_app.product("C", tags=("t100", "t099"))

    values = (await facets(inventory_app, facets="tag")).tag

    assert values is not None
    assert len(values) == 100
    assert (values[0].value, values[0].count) == ("t099", 2)
    assert values[-1].value == "t098"


async def test_facets_are_included_on_request_only(inventory_app: InventoryApp) -> None:
    await inventory_app.product("A", category="tea")

    without = await inventory_app.product_search.render_product_page(ANYONE, ProductQuery())
    with_facets = await inventory_app.product_search.render_product_page(
        ANYONE, ProductQuery(facets="category")
    )

    assert ProductPage.model_validate_json(without.body).facets is None
    assert b'"facets":{"category":[{"value":"tea","count":1}]}' in with_facets.body


@pytest.mark.parametrize(
    "facets",
    [
        "",
        "colour",
        "tag,",
        ",tag",
        "tag category",
        "option",
        "option.",
        "tag.x",
        "tag,option.,tag",
        ",".join(["tag"] * 21),
    ],
)
def test_unknown_facet_is_rejected(facets: str) -> None:
    with pytest.raises(ValidationError):
        ProductQuery(facets=facets)


# Cache keys and number of statements


QUERY_VALUES: dict[str, Any] = {
    "limit": 1, "cursor": "x", "category": "tea", "family": "f", "tag": "x", "min_price": 2,
    "max_price": 2, "in_stock": True, "q": "cup", "status": "draft", "sort": "name",
    "facets": "tag", "option": {"size": ["M"]}, "attribute": {"size": ["M"]},
}  # fmt: skip


async def test_cache_keys_differ_for_different_queries(inventory_app: InventoryApp) -> None:
    euro = {"currency": "EUR"}
    await inventory_app.product(
        "A", 1, name="A", category="tea", family="f", tags=("x",), price={"amount": 1, **euro}
    )
    await inventory_app.product("B", name="Cup", tags=("x",), price={"amount": 2, **euro})
    await inventory_app.product("C", name="C", category="tea", price={"amount": 3, **euro})
    await inventory_app.product("D", name="D", status="draft")
    first = await inventory_app.product_search.render_product_page(ANYONE, ProductQuery(limit=2))
    cursor = ProductPage.model_validate_json(first.body).next_cursor

    plain = await inventory_app.product_search.render_product_page(STAFF, ProductQuery(limit=2))
    for name, value in QUERY_VALUES.items():
        query = {"limit": 2, name: cursor if name == "cursor" else value}
        other = await inventory_app.product_search.render_product_page(
            STAFF, ProductQuery.model_validate(query)
        )

        assert other.body != plain.body, name
    assert set(QUERY_VALUES) == set(ProductQuery.model_fields)


async def test_search_is_one_statement(postgres: Postgres) -> None:
    inventory_app = build_inventory_app("sql", postgres)
    for number in range(30):
        await inventory_app.product(f"TEA-{number}", name="Tea", category="tea", tags=("x",))

    async def statement_count(**query: Any) -> float:
        before: float = STATEMENTS._value.get()
        await inventory_app.product_search.list_products(ANYONE, ProductQuery.model_validate(query))
        return float(STATEMENTS._value.get()) - before

    assert await statement_count(q="tea") == 1
    assert (
        await statement_count(q="tea", category="tea", tag="x", in_stock=False, sort="price") == 1
    )
    assert await statement_count(q="tea", facets="category,options,tag") == 2
    assert await statement_count(q="%") == 0
    await statement_count(q="unknown")
    assert await statement_count(q="unknown") == 2
    assert await statement_count(q="tee") == 3


# External search engine


class FakeSearchIndex:
    """A search engine that finds all indexed products, the oldest first."""

    def __init__(self) -> None:
        self.products_by_sku: dict[str, Product] = {}
        self.is_unavailable = False

    async def find(self, query: ProductQuery, after: str | None) -> SearchHits | None:
        if self.is_unavailable:
            return None
        ids = [product.product_id for product in self.products_by_sku.values()]
        start = int(after or 0)
        end = start + query.limit
        return SearchHits(ids[start:end], str(end) if end < len(ids) else None, Facets(tag=()))

    async def index(self, products: Sequence[Product]) -> None:
        self.products_by_sku |= {product.sku: product for product in products}


def with_search_index(inventory_app: InventoryApp) -> FakeSearchIndex:
    engine = FakeSearchIndex()
    container = InventoryContainer(
        settings=inventory_app.container.settings(),
        tools=inventory_app.container.tools(),
        persistence=inventory_app.container.persistence(),
        search_index=engine,
    )
    inventory_app.product_search = container.product_search()
    inventory_app.catalogue = container.catalogue()
    return engine


async def test_external_search_engine_is_used(inventory_app: InventoryApp) -> None:
    engine = with_search_index(inventory_app)
    products = [await inventory_app.product(sku) for sku in ("A", "B", "C")]
    await changed(inventory_app, products[0], 1, name="Z")
    await inventory_app.catalogue.archive(STAFF, products[1].product_id, {1})

    listed = await skus(inventory_app, q="whatever")

    assert listed == ["A", "C"]
    assert engine.products_by_sku["A"].name == "Z"
    assert await skus(inventory_app) == ["C", "A"]
    assert await facets(inventory_app, q="x", facets="tag") == Facets(tag=())


async def test_search_falls_back_to_store_when_engine_is_unavailable(
    inventory_app: InventoryApp,
) -> None:
    engine = with_search_index(inventory_app)
    for sku in ("A", "B", "C"):
        await inventory_app.product(sku, name="Tea")
    first = await inventory_app.product_search.list_products(ANYONE, ProductQuery(q="tea", limit=1))

    engine.is_unavailable = True
    from_store = await skus(inventory_app, q="tea")
    with pytest.raises(Unavailable):
        await inventory_app.product_search.list_products(
            ANYONE, ProductQuery(q="tea", limit=1, cursor=first.next_cursor)
        )

    assert from_store == ["C", "B", "A"]


async def test_names_are_sorted_without_accents_and_case(inventory_app: InventoryApp) -> None:
    names = ["Zoo", "Äpfel", "Birne", "École", "azur", "  Łódź", "Lama", "Mango"]
    for number, name in enumerate(names):
        await inventory_app.product(f"N-{number}", name=name)

    query = ProductQuery(sort="name", limit=3)
    sorted_names: list[str] = []
    while True:
        page = await inventory_app.product_search.list_products(STAFF, query)
        sorted_names += [product.name for product in page.items]
        if page.next_cursor is None:
            break
        query = query.model_copy(update={"cursor": page.next_cursor})

    wanted = ["Äpfel", "azur", "Birne", "École", "Lama", "  Łódź", "Mango", "Zoo"]
    assert sorted_names == wanted
