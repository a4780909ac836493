"""Every store finds the same products, in the same order, and says how they are spread."""

from collections.abc import Sequence
from typing import Any

import pytest
from pydantic import ValidationError

from markethall.inventory.contract import Facets, ProductPage, ProductQuery
from markethall.inventory.domain import Item
from markethall.inventory.ports import Found
from markethall.shared.db import PoolSize, Postgres
from markethall.shared.errors import Unavailable
from markethall.shared.metrics import STATEMENTS
from tests.conftest import on_server, url_of
from tests.inventory.conftest import ANYONE, STAFF, House, build
from tests.inventory.test_catalogue import changed, skus


@pytest.fixture(params=["memory", "sql"])
def house(request: pytest.FixtureRequest) -> House:
    if request.param == "memory":
        return build("memory")
    return build("sql", request.getfixturevalue("postgres"))


async def found(house: House, q: str, **query: Any) -> list[str]:
    return await skus(house, q=q, **query)


async def facets(house: House, **query: Any) -> Facets:
    page = await house.catalogue.products(STAFF, ProductQuery.model_validate(query))
    assert page.facets is not None
    return page.facets


# Which products, and in which order


async def test_a_name_counts_more_than_a_sku_a_tag_and_a_description(house: House) -> None:
    await house.product("IN-TEXT", name="Pot", description="for green tea")
    await house.product("IN-TAG", name="Cup", tags=("tea",))
    await house.product("TEA-1", name="Sencha")
    await house.product("IN-NAME", name="Green Tea")
    await house.product("NOWHERE", name="Spoon")

    assert await found(house, "tea") == ["IN-NAME", "TEA-1", "IN-TAG", "IN-TEXT"]
    assert await found(house, "green tea") == ["IN-NAME", "IN-TEXT"]


async def test_each_word_counts_in_its_best_field(house: House) -> None:
    await house.product("A", name="Green pot", description="tea")
    await house.product("B", name="Tea", tags=("green", "tea"))
    await house.product("C", name="Cup", description="tea, tea, green, tea")

    assert await found(house, "green tea") == ["B", "A", "C"]


async def test_of_equal_matches_the_newest_comes_first(house: House) -> None:
    for sku in ("A", "B", "C", "D", "E"):
        await house.product(sku, name="Tea")

    assert await found(house, "tea") == ["E", "D", "C", "B", "A"]


async def test_a_sku_that_is_typed_in_full_comes_first(house: House) -> None:
    await house.product("TEA-1", name="Pot")
    await house.product("POT", name="Tea 1, tea-1 and more tea", tags=("tea", "1"))
    await house.product("TEA-10", name="Tea 1")

    assert (await found(house, "tea-1"))[0] == "TEA-1"
    assert set(await found(house, " TEA-1 ")) == {"TEA-1", "POT", "TEA-10"}


async def test_a_word_is_found_by_how_it_begins(house: House) -> None:
    await house.product("A", name="Sencha Uji")

    assert await found(house, "sen u") == ["A"]
    assert await found(house, "ncha") == []


@pytest.mark.parametrize(
    "q", ["creme brulee", "CRÈME", "Crème Brûlée", "\uff43\uff52\uff45\uff4d\uff45"]
)
async def test_case_accents_and_widths_do_not_count(house: House, q: str) -> None:
    await house.product("A", name="Crème brûlée")

    assert await found(house, q) == ["A"]


@pytest.mark.parametrize(
    ("name", "q"),
    [("煎茶 100 g", "煎茶"), ("שלום tea", "שלום"), ("Straße", "strasse"), ("ΣΊΣΥΦΟΣ", "σίσυφος")],
)
async def test_words_of_any_script_are_found(house: House, name: str, q: str) -> None:
    await house.product("A", name=name)
    await house.product("B", name="Cup")

    assert await found(house, q) == ["A"]


@pytest.mark.parametrize(
    "q",
    [
        "'", "''", '"', "\\", "\\'", "tea' | 'cup", "tea & !cup", "!tea", "tea:*", "tea:A", "(tea",
        "tea)", "tea <-> cup", "*", ":*", "%", "$1", "'; DROP TABLE inventory.product; --",
        "🍵", "tea 🍵", "\u202etea", "\ud7ff", "\uffff", "\x01", "\u00a0", " ", "ﷺ" * 100,
        "é" * 100, "e\u0301" * 50, "\U0001d517", "١٢٣", "_", "__tea", "a " * 50, "t\ne\ta",
    ],
)  # fmt: skip
async def test_no_query_breaks_the_search(house: House, q: str) -> None:
    await house.product("TEA", name="tea, cup")

    for sort in ("relevance", "name", "-created_at"):
        page = await house.catalogue.products(ANYONE, ProductQuery(q=q, sort=sort))

        assert len(page.items) in {0, 1}


@pytest.mark.parametrize("q", ["", "x" * 101, "a\x00b", "\ud800"])
def test_a_query_that_is_no_text_is_refused(q: str) -> None:
    with pytest.raises(ValidationError):
        ProductQuery(q=q)


async def test_only_the_first_ten_words_count(house: House) -> None:
    await house.product("A", name="one two three four five six seven eight nine ten")

    ten = "one two three four five six seven eight nine ten"
    assert await found(house, f"{ten} twentyfour") == ["A"]
    assert await found(house, f"twentyfour {ten}") == []


async def test_a_query_without_a_letter_finds_nothing(house: House) -> None:
    await house.product("A", name="100% pure")

    assert await found(house, "%") == []
    assert await facets(house, q="%", facets="category,tag") == Facets(category=(), tag=())


async def test_what_was_renamed_is_found_by_its_new_name_only(house: House) -> None:
    tea = await house.product("A", name="Sencha", tags=("green",), description="from Uji")

    await changed(house, tea, 1, name="Bancha", tags=[], description=None)

    assert await found(house, "bancha") == ["A"]
    for gone in ("sencha", "green", "uji"):
        assert await found(house, gone, status="draft") == []
    assert await found(house, "uji") == []


async def test_a_search_takes_filters_and_other_sorts(house: House) -> None:
    euro = {"currency": "EUR"}
    await house.product("A", 1, name="Tea b", category="tea", price={"amount": 3, **euro})
    await house.product("B", 0, name="Tea a", category="tea", price={"amount": 1, **euro})
    await house.product("C", 1, name="Tea c", category="cups", price={"amount": 2, **euro})
    await house.product("D", 1, name="Tea d", status="draft")

    assert await found(house, "tea", sort="name") == ["B", "A", "C"]
    assert await found(house, "tea", sort="-price") == ["A", "C", "B"]
    assert await found(house, "tea", category="tea") == ["B", "A"]
    assert await found(house, "tea", in_stock=True) == ["C", "A"]
    assert await found(house, "tea", in_stock=False, sort="relevance") == ["B"]
    assert await found(house, "tea", min_price=2, max_price=2) == ["C"]
    assert await found(house, "tea", status="draft") == ["D"]


async def test_relevance_without_words_is_the_newest_first(house: House) -> None:
    for sku in ("A", "B", "C"):
        await house.product(sku)

    assert await skus(house, sort="relevance") == ["C", "B", "A"]


# Words that were mistyped


@pytest.mark.parametrize(
    "q", ["senhca", "sencah", "semcha", "senncha", "ssencha", "sench", "sncha"]
)
async def test_a_slip_of_the_finger_is_forgiven(house: House, q: str) -> None:
    await house.product("A", name="Sencha Uji")
    await house.product("B", name="Cup")

    assert await found(house, f"{q} uji") == ["A"]


async def test_a_tag_is_guessed_too_but_no_sku_and_no_description(house: House) -> None:
    await house.product("SHINCHA-1", name="A", tags=("kyushu",), description="gyokuro")

    assert await found(house, "kyuhsu") == ["SHINCHA-1"]
    assert await found(house, "shinhca") == []
    assert await found(house, "gyokruo") == []


async def test_a_word_that_is_there_is_never_taken_for_another(house: House) -> None:
    await house.product("A", name="Shirt")
    await house.product("B", name="Short", status="draft")

    assert await found(house, "short") == []
    assert await found(house, "shirr") == ["A"]
    assert await found(house, "xy") == []


async def test_guessed_lists_have_pages_and_facets_too(house: House) -> None:
    for number in range(5):
        await house.product(f"S{number}", name="Sencha", category="tea")

    assert await found(house, "senhca") == ["S4", "S3", "S2", "S1", "S0"]
    spread = await facets(house, q="senhca", facets="category")
    assert spread.category is not None
    assert [(one.value, one.count) for one in spread.category] == [("tea", 5)]


async def test_without_pg_trgm_only_the_slips_are_not_forgiven(
    server_url: str, template: str
) -> None:
    name = f"{template}_plain"
    await on_server(server_url, f"CREATE DATABASE {name} TEMPLATE {template}")
    await on_server(url_of(server_url, name), "DROP EXTENSION pg_trgm")
    postgres = Postgres(url_of(server_url, name), PoolSize(least=1, most=2, timeout=10))
    house = build("sql", postgres)

    await house.product("A", name="Sencha")
    right, wrong = await found(house, "sencha"), await found(house, "senhca")

    await postgres.close()
    await on_server(server_url, f"DROP DATABASE {name} WITH (FORCE)")
    assert (right, wrong) == (["A"], [])


# Facets


async def test_facets_count_all_that_matches_and_not_the_page(house: House) -> None:
    red, blue = {"colour": "red", "size": "M"}, {"colour": "blue"}
    await house.product("A", name="Tea", category="tea", options=red, tags=("x", "y"))
    await house.product("B", name="Tea", category="tea", options=blue, tags=("y",))
    await house.product("C", name="Tea", category="cups", options=blue)
    await house.product("D", name="Tea", status="draft", category="cups")
    await house.product("E", name="Other", category="other", tags=("x",))

    all_of_it = await facets(house, q="tea", limit=1, facets="category,options,tag")
    some = await facets(house, category="tea", facets="tag")

    assert all_of_it.model_dump() == {
        "category": ({"value": "tea", "count": 2}, {"value": "cups", "count": 1}),
        "options": {
            "colour": ({"value": "blue", "count": 2}, {"value": "red", "count": 1}),
            "size": ({"value": "M", "count": 1},),
        },
        "tag": ({"value": "y", "count": 2}, {"value": "x", "count": 1}),
    }
    assert some.model_dump(exclude_none=True) == {
        "tag": ({"value": "y", "count": 2}, {"value": "x", "count": 1})
    }


async def test_a_facet_has_its_hundred_most_frequent_values(house: House) -> None:
    await house.product("A", tags=tuple(f"t{number:03}" for number in range(50)))
    await house.product("B", tags=tuple(f"t{number:03}" for number in range(50, 100)))
    await house.product("C", tags=("t100", "t099"))

    spread = (await facets(house, facets="tag")).tag

    assert spread is not None
    assert len(spread) == 100
    assert (spread[0].value, spread[0].count) == ("t099", 2)
    assert spread[-1].value == "t098"


async def test_facets_are_in_the_page_only_when_they_are_asked_for(house: House) -> None:
    await house.product("A", category="tea")

    bare = await house.catalogue.page_body(ANYONE, ProductQuery())
    full = await house.catalogue.page_body(ANYONE, ProductQuery(facets="category"))

    assert ProductPage.model_validate_json(bare.body).facets is None
    assert b'"facets":{"category":[{"value":"tea","count":1}]}' in full.body


@pytest.mark.parametrize("facets", ["", "colour", "tag,", ",tag", "tag category"])
def test_an_unknown_facet_is_refused(facets: str) -> None:
    with pytest.raises(ValidationError):
        ProductQuery(facets=facets)


# What it costs, and what is kept


ASKED: dict[str, Any] = {
    "limit": 1, "cursor": "x", "category": "tea", "family": "f", "tag": "x", "min_price": 2,
    "max_price": 2, "in_stock": True, "q": "cup", "status": "draft", "sort": "name",
    "facets": "tag",
}  # fmt: skip


async def test_no_two_questions_share_an_answer_that_is_kept(house: House) -> None:
    euro = {"currency": "EUR"}
    await house.product(
        "A", 1, name="A", category="tea", family="f", tags=("x",), price={"amount": 1, **euro}
    )
    await house.product("B", name="Cup", tags=("x",), price={"amount": 2, **euro})
    await house.product("C", name="C", category="tea", price={"amount": 3, **euro})
    await house.product("D", name="D", status="draft")
    first = await house.catalogue.page_body(ANYONE, ProductQuery(limit=2))
    cursor = ProductPage.model_validate_json(first.body).next_cursor

    plain = await house.catalogue.page_body(STAFF, ProductQuery(limit=2))
    for name, value in ASKED.items():
        query = {"limit": 2, name: cursor if name == "cursor" else value}
        other = await house.catalogue.page_body(STAFF, ProductQuery.model_validate(query))

        assert other.body != plain.body, name
    assert set(ASKED) == set(ProductQuery.model_fields)


async def test_a_search_is_one_statement(postgres: Postgres) -> None:
    house = build("sql", postgres)
    for number in range(30):
        await house.product(f"TEA-{number}", name="Tea", category="tea", tags=("x",))

    async def cost(**query: Any) -> float:
        before: float = STATEMENTS._value.get()
        await house.catalogue.products(ANYONE, ProductQuery.model_validate(query))
        return float(STATEMENTS._value.get()) - before

    assert await cost(q="tea") == 1
    assert await cost(q="tea", category="tea", tag="x", in_stock=False, sort="price") == 1
    assert await cost(q="tea", facets="category,options,tag") == 2
    assert await cost(q="%") == 0
    await cost(q="unknown")
    assert await cost(q="unknown") == 2
    assert await cost(q="tee") == 3


# An engine outside


class Backwards:
    """An engine that finds all products that it was told of, the first one first."""

    def __init__(self) -> None:
        self.known: dict[str, Item] = {}
        self.away = False

    async def find(self, query: ProductQuery, after: str | None) -> Found | None:
        if self.away:
            return None
        ids = [item.product_id for item in self.known.values()]
        first = int(after or 0)
        last = first + query.limit
        return Found(ids[first:last], str(last) if last < len(ids) else None, Facets(tag=()))

    async def tell(self, items: Sequence[Item]) -> None:
        self.known |= {item.sku: item for item in items}


def with_engine(house: House) -> Backwards:
    engine = Backwards()
    container = house.container
    container.index.override(engine)
    container.lists.reset()
    container.catalogue.reset()
    house.catalogue = container.catalogue()
    return engine


async def test_an_engine_outside_finds_what_it_was_told_of(house: House) -> None:
    engine = with_engine(house)
    products = [await house.product(sku) for sku in ("A", "B", "C")]
    await changed(house, products[0], 1, name="Z")
    await house.catalogue.archive(STAFF, products[1].product_id, {1})

    listed = await skus(house, q="whatever")

    assert listed == ["A", "C"]
    assert engine.known["A"].name == "Z"
    assert await skus(house) == ["C", "A"]
    assert await facets(house, q="x", facets="tag") == Facets(tag=())


async def test_the_store_goes_on_where_the_engine_is_away(house: House) -> None:
    engine = with_engine(house)
    for sku in ("A", "B", "C"):
        await house.product(sku, name="Tea")
    first = await house.catalogue.products(ANYONE, ProductQuery(q="tea", limit=1))

    engine.away = True
    by_the_store = await skus(house, q="tea")
    with pytest.raises(Unavailable):
        await house.catalogue.products(
            ANYONE, ProductQuery(q="tea", limit=1, cursor=first.next_cursor)
        )

    assert by_the_store == ["C", "B", "A"]
