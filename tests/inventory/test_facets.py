"""Test that each facet count equals an independent count, and the result of its filter.

The catalogue and the filters are random, from a fixed seed. Names and values include look-alikes,
such as Red and RED. Products are counted in their list, and families in theirs.
"""

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any, Final

import asyncpg
import pytest

from markethall.inventory.catalogue.contract.categories import CategoryQuery
from markethall.inventory.catalogue.contract.families import NewFamily
from markethall.inventory.search.contract import Facets, FamilyQuery, ProductQuery
from markethall.shared.observability.metrics import STATEMENTS
from markethall.shared.persistence.postgres import Postgres
from tests.conftest import plain
from tests.inventory.conftest import ANYONE, STAFF, InventoryApp, build_inventory_app, no_key

FULL: Final = os.environ.get("MARKETHALL_TEST_SCOPE") == "full"
CATALOGUES, PRODUCTS, COMBINATIONS = (4, 60, 50) if FULL else (1, 40, 25)
ALL_FACETS: Final = "category,tag,options,attributes"

CATEGORIES = [None, "Drinks", "drinks > Tea", "Drinks > tea > Green", "Cups", "cups > Tea"]
TAGS = ["new", "NEW", "Sale", "sale ", "grün", "GRU\u0308N", "gift"]
SIZES = ["S", "s", "M", "L ", "l"]
COLOURS = ["Red", "RED", "weiß", "WEISS", "blue"]
NAMES = {"size": ["size", "Size"], "colour": ["Colour", "colour "]}
ATTRIBUTES: dict[str, list[Any]] = {
    "organic": [True, False, "true", "FALSE"],
    "pieces": [12, "12", -1, "1 2"],
    "Material": ["wool", "Wool", "", "silk"],
}
WORDS = ["tea", "teapot", "cup"]
FAMILIES = [None, "Shirt", "SHIRT ", "mug", "Kettle", "bowl", "archived"]

Filters = dict[str, Any]


@dataclass(frozen=True)
class Item:
    """A product of the random catalogue."""

    fields: Mapping[str, Any]
    stock: int


def random_item(random: Random) -> Item:
    options = {
        random.choice(NAMES[name]): random.choice(values)
        for name, values in (("size", SIZES), ("colour", COLOURS))
        if random.random() < 0.8
    }
    attributes = {
        random.choice([name, name.upper()]): random.choice(values)
        for name, values in ATTRIBUTES.items()
        if random.random() < 0.6
    }
    fields = {
        "name": " ".join(random.choices(WORDS, k=2)),
        "category": random.choice(CATEGORIES),
        "family": random.choice(FAMILIES),
        "tags": tuple(random.sample(TAGS, random.randrange(4))),
        "options": options,
        "attributes": attributes,
        "price": {"amount": random.randrange(5), "currency": "EUR"},
        "status": random.choice(["active"] * 5 + ["draft"]),
    }
    return Item(fields, random.randrange(2))


def random_filters(random: Random) -> Filters:
    filters: Filters = {}
    if random.random() < 0.3:
        filters["category"] = random.sample(
            ["Drinks", "cups", "drinks > tea"], random.choice([1, 2])
        )
    if random.random() < 0.4:
        filters["tag"] = random.sample(TAGS, random.choice([1, 2]))
    options = {"SIZE": SIZES, "colour": COLOURS}
    attributes = {
        "organic": ["true", "False"],
        "pieces": ["12", "-1"],
        "material": ["WOOL", "silk"],
    }
    for field, names in (("option", options), ("attribute", attributes)):
        chosen = [name for name in names if random.random() < 0.35]
        if chosen:
            filters[field] = {
                name: random.sample(names[name], random.choice([1, 2])) for name in chosen
            }
    for name, value in (("min_price", 1), ("max_price", 3), ("in_stock", True), ("q", "tea")):
        if random.random() < 0.2:
            filters[name] = value
    return filters


# The independent count


def key(text: str) -> str:
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return " ".join(folded.split())


def text_of(value: str | int | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def labels(values: Mapping[str, Any]) -> dict[str, str]:
    """Return the keys of the values by name.

    Of look-alike names, keep the first, as products do.
    """
    found: dict[str, str] = {}
    for name, value in values.items():
        found.setdefault(key(name), key(text_of(value)))
    return {name: value for name, value in found.items() if value}


class BruteForce:
    """Counts facets by a loop over all products."""

    def __init__(self, items: list[Item], paths: list[tuple[str, ...]]) -> None:
        self._items = items
        # for each product, its category and the categories above it
        self._paths = paths

    def matches(self, filters: Filters) -> Iterator[int]:
        for number, item in enumerate(self._items):
            if all(self._matches(number, item, *entry) for entry in filters.items()):
                yield number

    def _matches(self, number: int, item: Item, name: str, value: Any) -> bool:
        fields = item.fields
        match name:
            case "category":
                return any(key(path) in value for path in self._paths[number])
            case "tag":
                return bool({key(tag) for tag in fields["tags"]} & set(value))
            case "option" | "attribute":
                own = labels(fields[f"{name}s"])
                return all(own.get(each) in wanted for each, wanted in value.items())
            case "min_price":
                return bool(fields["price"]["amount"] >= value)
            case "max_price":
                return bool(fields["price"]["amount"] <= value)
            case "in_stock":
                return bool((item.stock > 0) == value)
            case "q":
                text = " ".join([fields["name"], *fields["tags"], f"sku p-{number}"])
                return any(word.startswith(value) for word in re.findall(r"\w+", text.lower()))
        return bool(fields[name] == value)

    def count(self, filters: Filters, unit: str) -> dict[tuple[str, str, str], int]:
        """Return the expected counts by facet, key of the name, and key of the value.

        `unit` tells what is counted: products or families.
        """
        units: dict[tuple[str, str, str], set[object]] = defaultdict(set)
        for facet, name, value, number in self._values(filters):
            family = self._items[number].fields["family"]
            if unit == "products" or family is None:
                units[facet, name, value].add(number)
            elif family != "archived":
                units[facet, name, value].add(key(family))
        return {value: len(found) for value, found in units.items()}

    def _values(self, filters: Filters) -> Iterator[tuple[str, str, str, int]]:
        """Yield facet, name, value and number of the product for each value of each match."""
        for number in self.matches(without(filters, "category")):
            yield from (("category", "", key(path), number) for path in self._paths[number])
        for number in self.matches(without(filters, "tag")):
            tags = self._items[number].fields["tags"]
            yield from (("tag", "", key(tag), number) for tag in tags)
        for field in ("option", "attribute"):
            names = {name for item in self._items for name in labels(item.fields[f"{field}s"])}
            for name in names:
                for number in self.matches(without(filters, field, name)):
                    value = labels(self._items[number].fields[f"{field}s"]).get(name)
                    if value:
                        yield f"{field}s", name, value, number


def without(filters: Filters, field: str, name: str = "") -> Filters:
    rest = {each: value for each, value in filters.items() if each != field}
    others = (
        {each: value for each, value in filters.get(field, {}).items() if each != name}
        if name
        else {}
    )
    return rest | ({field: others} if others else {})


def normalized(filters: Filters, categories: Mapping[str, str]) -> Filters:
    """Return the filters with keys instead of texts, for BruteForce."""
    result = dict(filters)
    if "category" in result:
        result["category"] = {key(categories[key(text)]) for text in result["category"]}
    if "tag" in result:
        result["tag"] = {key(tag) for tag in result["tag"]}
    for field in ("option", "attribute"):
        if field in result:
            result[field] = {
                key(name): {key(value) for value in values}
                for name, values in result[field].items()
            }
    return {"status": "active", **result}


def listed(facets: Facets) -> Iterator[tuple[str, str, str, int]]:
    """Yield facet, name, value and count of each listed value."""
    for facet in ("category", "tag"):
        for value in getattr(facets, facet) or ():
            yield facet, "", value.value, value.count
    for facet in ("options", "attributes"):
        for name, values in (getattr(facets, facet) or {}).items():
            for value in values:
                yield facet, name, value.value, value.count


def follow(filters: Filters, facet: str, name: str, value: str) -> Filters:
    """Return the filters in which the value is the only filter of its facet."""
    if not name:
        return {**filters, facet: [value]}
    field = facet.removesuffix("s")
    others = {each: own for each, own in filters.get(field, {}).items() if key(each) != key(name)}
    return {**filters, field: {**others, name: [value]}}


async def read(inventory_app: InventoryApp, query: Filters) -> Any:
    return await inventory_app.product_search.list_products(
        ANYONE, ProductQuery.model_validate({"limit": 100, **query})
    )


async def read_families(inventory_app: InventoryApp, query: Filters) -> Any:
    return await inventory_app.family_search.list_families(
        ANYONE, FamilyQuery.model_validate({"limit": 100, **query})
    )


Read = Callable[[InventoryApp, Filters], Any]
LISTS: Mapping[str, Read] = {"products": read, "families": read_families}


async def fill(inventory_app: InventoryApp, items: Collection[Item]) -> BruteForce:
    family = await inventory_app.families.create(STAFF, NewFamily(name="archived"), no_key())
    await inventory_app.families.archive(STAFF, family.slug, frozenset({family.version}))
    categories = []
    for number, item in enumerate(items):
        view = await inventory_app.product(f"P-{number}", item.stock, **item.fields)
        categories.append(view.category)
    page = await inventory_app.categories.list_categories(ANYONE, CategoryQuery(limit=100))
    parents = {node.category: node.parent for node in page.items}

    def path(category: str | None) -> Iterator[str]:
        while category is not None:
            yield category
            category = parents[category]

    return BruteForce(list(items), [tuple(path(category)) for category in categories])


@pytest.fixture(params=["memory", "sql"])
def inventory_app(request: pytest.FixtureRequest) -> InventoryApp:
    if request.param == "memory":
        return build_inventory_app("memory")
    return build_inventory_app("sql", request.getfixturevalue("postgres"))


@pytest.mark.parametrize("unit", LISTS)
@pytest.mark.parametrize("seed", range(CATALOGUES))
async def test_facets_equal_brute_force_and_lead_to_their_counts(
    inventory_app: InventoryApp, seed: int, unit: str, request: pytest.FixtureRequest
) -> None:
    read_list = LISTS[unit]
    random = Random(seed)
    brute_force = await fill(inventory_app, [random_item(random) for _ in range(PRODUCTS)])
    await forget_words(request)
    followed = 0
    for _ in range(COMBINATIONS):
        filters = random_filters(random)
        page = await read_list(inventory_app, {**filters, "facets": ALL_FACETS})
        found = list(listed(page.facets))
        expected = brute_force.count(normalized(filters, CATEGORY_KEYS), unit)

        assert {(facet, key(name), key(value)): n for facet, name, value, n in found} == expected
        assert len(found) == len(expected), filters
        for facet, name, value, count in found:
            target = follow(filters, facet, name, value)
            assert len((await read_list(inventory_app, target)).items) == count, (filters, target)
            followed += 1
    assert followed > 10 * COMBINATIONS


# the keys of the categories that `random_filters` names by path
CATEGORY_KEYS = {"drinks": "Drinks", "cups": "Cups", "drinks > tea": "drinks > Tea"}


async def forget_words(request: pytest.FixtureRequest) -> None:
    """Delete the words for spelling suggestions, which only the SQL storage has."""
    if "sql" in request.node.name:
        connection = await asyncpg.connect(plain(request.getfixturevalue("database_url")))
        await connection.execute("DELETE FROM inventory.search_word")
        await connection.close()


async def test_facets_of_single_names(inventory_app: InventoryApp) -> None:
    await inventory_app.product("A", options={"Size": "S", "colour": "red"}, attributes={"x": 1})
    await inventory_app.product("B", options={"size": "M", "colour": "red"}, attributes={"y": 1})

    page = await read(inventory_app, {"facets": "option.SIZE,attribute.x,attribute.none"})
    filtered = await read(
        inventory_app,
        {"facets": "option.size,option.colour", "option": {"size": ["S"], "colour": ["red"]}},
    )

    assert page.facets.model_dump(exclude_none=True) == {
        "options": {"Size": ({"value": "M", "count": 1}, {"value": "S", "count": 1})},
        "attributes": {"x": ({"value": "1", "count": 1},)},
    }
    assert [item.sku for item in filtered.items] == ["A"]
    assert filtered.facets.model_dump(exclude_none=True)["options"] == {
        "Size": ({"value": "M", "count": 1}, {"value": "S", "count": 1}),
        "colour": ({"value": "red", "count": 1},),
    }


async def test_facets_keep_most_frequent_names_and_values(inventory_app: InventoryApp) -> None:
    many = {f"n{number:02}": "x" for number in range(25)}
    await inventory_app.product("A", attributes=many)
    await inventory_app.product("B", attributes={"n24": "x", "n23": "y", "n99": "z"})

    both = await read(inventory_app, {"facets": "attributes,attribute.n22"})

    names = [*(f"n{number:02}" for number in range(18)), "n22", "n23", "n24"]
    assert sorted(both.facets.attributes) == names
    assert both.facets.attributes["n24"][0].count == 2


async def test_facet_has_hundred_values_per_name(inventory_app: InventoryApp) -> None:
    for number in range(105):
        await inventory_app.product(f"P{number}", attributes={"a": number, "b": number % 2})

    facets = (await read(inventory_app, {"facets": "attributes"})).facets

    assert {name: len(values) for name, values in facets.attributes.items()} == {"a": 100, "b": 2}


@pytest.mark.parametrize("read_list", LISTS.values(), ids=LISTS)
async def test_facets_are_one_statement(postgres: Postgres, read_list: Read) -> None:
    inventory_app = build_inventory_app("sql", postgres)
    await inventory_app.product("A", category="tea", options={"a": "1"}, tags=("t",))
    query = {
        "option": {"a": ["1"], "b": ["2"]}, "attribute": {"c": ["3"]}, "tag": ["t"],
        "category": ["tea"], "facets": f"{ALL_FACETS},option.z,attribute.z",
    }  # fmt: skip
    # The counted query has no category. The page is empty, and an empty page with a category needs
    # one more statement, which looks the category up.
    before = STATEMENTS._value.get()
    await read_list(inventory_app, {"option": query["option"], "facets": ALL_FACETS})

    assert STATEMENTS._value.get() - before == 2
    facets = (await read_list(inventory_app, query)).facets
    assert facets.options == {}
