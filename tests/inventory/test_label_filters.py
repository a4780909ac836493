"""Test the filters by category, tag, option and attribute, each with any number of values."""

from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from markethall.app import create_app
from markethall.inventory.manifest import MANIFEST
from markethall.inventory.search.contract import FamilyQuery, ProductQuery
from markethall.settings import read_settings
from markethall.shared.http.query_parameters import QueryParameters
from markethall.shared.observability.metrics import STATEMENTS
from markethall.shared.persistence.postgres import Postgres
from tests.inventory.conftest import ANYONE, InventoryApp, build_inventory_app
from tests.inventory.test_catalogue import changed, skus


@pytest.fixture(params=["memory", "sql"])
def inventory_app(request: pytest.FixtureRequest) -> InventoryApp:
    if request.param == "memory":
        return build_inventory_app("memory")
    return build_inventory_app("sql", request.getfixturevalue("postgres"))


async def found(inventory_app: InventoryApp, **query: Any) -> set[str]:
    return set(await skus(inventory_app, **query))


async def test_values_are_alternatives_and_names_are_all_required(
    inventory_app: InventoryApp,
) -> None:
    await inventory_app.product("A", options={"size": "S", "colour": "red"})
    await inventory_app.product("B", options={"size": "M", "colour": "red"})
    await inventory_app.product("C", options={"size": "L", "colour": "blue"})
    await inventory_app.product("D", options={"size": "M"})

    assert await found(inventory_app, option={"size": "M"}) == {"B", "D"}
    assert await found(inventory_app, option={"size": ["S", "M"]}) == {"A", "B", "D"}
    assert await found(inventory_app, option={"size": ["S", "M"], "colour": "red"}) == {"A", "B"}
    assert await found(inventory_app, option={"size": "M", "colour": "blue"}) == set()
    assert await found(inventory_app, option={"weight": "M"}) == set()


async def test_attributes_are_compared_by_their_text(inventory_app: InventoryApp) -> None:
    attributes = [
        {"organic": True, "pieces": 12, "origin": "Uji"},
        {"organic": "TRUE", "pieces": "12 "},
        {"organic": False, "pieces": 120, "origin": " "},
        {"pieces": -12, "origin": ""},
    ]
    for sku, values in zip("ABCD", attributes, strict=True):
        await inventory_app.product(sku, attributes=values)

    assert await found(inventory_app, attribute={"organic": "true"}) == {"A", "B"}
    assert await found(inventory_app, attribute={"organic": ["true", "false"]}) == {"A", "B", "C"}
    assert await found(inventory_app, attribute={"pieces": "12"}) == {"A", "B"}
    assert await found(inventory_app, attribute={"pieces": "-12"}) == {"D"}
    assert await found(inventory_app, attribute={"origin": "uji", "pieces": "12"}) == {"A"}
    assert await found(inventory_app, option={"organic": "true"}) == set()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Größe", "XL weit"),
        ("GRÖSSE", " xl  WEIT "),
        ("gro\u0308ße", "\uff38\uff2c weit"),
        ("grösse", "xl\tweit"),
    ],
)
async def test_look_alike_names_and_values_match(
    inventory_app: InventoryApp, name: str, value: str
) -> None:
    await inventory_app.product("A", options={"Größe": "XL weit"}, attributes={"Größe": "XL weit"})
    await inventory_app.product("B", options={"Größe": "XL"}, tags=("other",))

    assert await found(inventory_app, option={name: value}) == {"A"}
    assert await found(inventory_app, attribute={name: value}) == {"A"}


async def test_values_of_look_alike_names_are_alternatives(inventory_app: InventoryApp) -> None:
    for sku in ("S", "M", "L"):
        await inventory_app.product(sku, options={"size": sku})

    assert await found(inventory_app, option={"size": "S", "Size ": "M"}) == {"S", "M"}


@pytest.mark.parametrize(
    "text",
    ["'", '"', "\\", '\\"', "$", "%", '" || true || "', "a.b", "a,b", "\x01", "🍵", "?"],
)
async def test_any_text_is_safe(inventory_app: InventoryApp, text: str) -> None:
    value = f"v{text}"
    await inventory_app.product("A", options={f"x{text}": value}, attributes={f"x{text}": value})
    await inventory_app.product("B", options={"x": "b"}, attributes={"x": "b"})

    assert await found(inventory_app, option={f"x{text}": value}) == {"A"}
    assert await found(inventory_app, attribute={f"x{text}": value}) == {"A"}
    assert await found(inventory_app, option={f"x{text}": "b"}) == set()


async def test_long_value_matches_only_itself(inventory_app: InventoryApp) -> None:
    await inventory_app.product("A", attributes={"note": "x" * 999 + "a"})
    await inventory_app.product("B", attributes={"note": "x" * 999 + "b"})

    assert await found(inventory_app, attribute={"note": "X" * 999 + "a"}) == {"A"}


async def test_several_tags_and_categories_are_alternatives(inventory_app: InventoryApp) -> None:
    await inventory_app.product("A", category="drinks > tea", tags=("new", "sale"))
    await inventory_app.product("B", category="drinks > coffee", tags=("Sale",))
    await inventory_app.product("C", category="cups", tags=("gift",))

    assert await found(inventory_app, tag=["SALE", "gift"]) == {"A", "B", "C"}
    assert await found(inventory_app, tag=["new", "gift"]) == {"A", "C"}
    assert await found(inventory_app, category=["cups", "drinks"]) == {"A", "B", "C"}
    # a key and the name of another category
    assert await found(inventory_app, category=["cups", "Tea"]) == {"A", "C"}
    assert await found(inventory_app, category=["tea", "nowhere"]) == {"A"}
    assert await found(inventory_app, category=["none", "nowhere"]) == set()
    assert await found(inventory_app, category=["cups", "tea"], tag=["sale", "new"]) == {"A"}


async def test_changed_attribute_is_found_by_new_value_only(inventory_app: InventoryApp) -> None:
    tea = await inventory_app.product("A", attributes={"origin": "Uji", "organic": True})
    await changed(inventory_app, tea, 1, attributes={"origin": "Kyoto", "organic": None})

    assert await found(inventory_app, attribute={"origin": "kyoto"}) == {"A"}
    assert await found(inventory_app, attribute={"origin": "uji"}) == set()
    assert await found(inventory_app, attribute={"organic": "true"}) == set()


async def test_cursor_is_valid_for_same_filters_in_any_order(inventory_app: InventoryApp) -> None:
    for number in range(3):
        await inventory_app.product(f"P{number}", options={"a": "1", "b": "2"}, tags=("x",))
    filters = {"option": {"a": ["1", "3"], "b": ["2"]}, "tag": ["x", "y"], "limit": 1}
    again = {"option": {"b": ["2"], "a": ["3", "1", "1"]}, "tag": ["y", "x"], "limit": 1}

    first = await inventory_app.product_search.list_products(
        ANYONE, ProductQuery.model_validate(filters)
    )
    second = await inventory_app.product_search.list_products(
        ANYONE, ProductQuery.model_validate(again | {"cursor": first.next_cursor})
    )

    assert [product.sku for product in (*first.items, *second.items)] == ["P2", "P1"]


async def test_filtered_page_is_one_statement(postgres: Postgres) -> None:
    inventory_app = build_inventory_app("sql", postgres)
    await inventory_app.product("A", category="tea", options={"a": "1"}, attributes={"b": 2})
    query = {"option": {"a": ["1", "2"]}, "attribute": {"b": "2"}, "category": "tea"}

    before = STATEMENTS._value.get()
    assert await found(inventory_app, **query) == {"A"}

    assert STATEMENTS._value.get() - before == 1


# HTTP


@pytest.fixture
async def http(tmp_path: Any) -> AsyncIterator[httpx2.AsyncClient]:
    app = create_app(read_settings(storage="memory", data_dir=tmp_path))
    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(app), base_url="http://app"
    ) as client:
        yield client
    await app.container.close()


def test_manifest_names_all_parameters_that_may_repeat() -> None:
    assert MANIFEST.repeatable_parameters == {
        "/products": QueryParameters(ProductQuery).repeatable_names,
        "/families": QueryParameters(FamilyQuery).repeatable_names,
    }


@pytest.mark.parametrize(
    "query",
    [
        "option.size=M",
        "option.size=M&option.size=L&option.size=M",
        "option.size=M&attribute.material=wool&attribute.material=silk",
        "tag=a&tag=b&category=c&category=d",
        "option.a.b=1&option.%3D%26=1&attribute.%C3%A4=%F0%9F%8D%B5",
        "option%2Esize=M",
        "option.%ED%A0%80=%ff",
        "&".join(f"attribute.a{n}=1" for n in range(10)),
        "&".join(f"tag={n}" for n in range(30)),
    ],
)
async def test_valid_filters_are_accepted(http: httpx2.AsyncClient, query: str) -> None:
    for path in ("/products", "/products?limit=1&"):
        answer = await http.get(f"{path}{'' if '?' in path else '?'}{query}")

        assert (answer.status_code, answer.json()["items"]) == (200, []), answer.text


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("option=M", "/query/option"),
        ("option=M&option.size=M", "/query/option"),
        ("option.=M", "/query/option."),
        ("option.%20=M", "/query/option. "),
        ("option.size=", "/query/option.size"),
        ("option.size=%20", "/query/option.size"),
        ("attribute.size=M&attribute.size=", "/query/attribute.size"),
        ("options.size=M", "/query/options.size"),
        ("opt.size=M", "/query/opt.size"),
        ("Option.size=M", "/query/Option.size"),
        ("option[size]=M", "/query/option[size]"),
        (f"option.{'x' * 256}=M", "/query/option." + "x" * 93),
        (f"option.size={'x' * 1001}", "/query/option.size"),
        ("&".join(f"option.a{n}=1" for n in range(11)), "/query/option"),
        ("&".join(f"option.a={n}" for n in range(31)), "/query/option.a"),
        ("&".join(f"tag={n}" for n in range(31)), "/query/tag"),
        ("tag=a&tag=", "/query/tag"),
        ("category=", "/query/category"),
        ("option.size=a%00b", "/query"),
        ("&".join(f"attribute.a{n % 9}={n}" for n in range(51)), "/query"),
        ("family=a&family=b", "/query"),
        ("min_price=1&min_price=1", "/query"),
        ("facets=tag&facets=tag", "/query"),
        ("q=a&q=b&tag=x", "/query"),
        ("optionx.size=M&optionx.size=L", "/query"),
    ],
)
async def test_invalid_filter_names_its_parameter(
    http: httpx2.AsyncClient, query: str, field: str
) -> None:
    answer = await http.get(f"/products?{query}")

    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"][0]["field"] == field


async def test_other_paths_reject_repeated_filters(http: httpx2.AsyncClient) -> None:
    answer = await http.get("/categories?parent=a&parent=b")

    assert answer.status_code == 422
    assert (await http.get("/users?tag=a&tag=b")).status_code == 422
