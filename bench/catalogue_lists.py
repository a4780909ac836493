"""The lists and searches that the benchmark of the catalogue reads."""

from collections.abc import Mapping, Sequence
from random import Random
from typing import Final, NamedTuple
from urllib.parse import urlencode

from markethall.local.demo.generated_catalogue import generate_products
from markethall.local.demo.vocabulary import CATEGORIES

SEARCHERS: Final = 4
ALL_FACETS: Final = "category,tag,options,attributes"
SORTS: Final[Mapping[str, Mapping[str, str]]] = {
    "newest first": {},
    "by name": {"sort": "name"},
    "by price": {"sort": "price"},
    "by price, descending": {"sort": "-price"},
    "of a category, by price": {"category": "clothing", "sort": "price"},
    "of a tag": {"tag": "sale"},
    "found by a word, by relevance": {"q": "jacket"},
}
FAMILY_LISTS: Final[Mapping[str, Mapping[str, str]]] = {
    "families, newest first": {},
    "families, by price": {"sort": "price"},
    "families of a category, by price": {"category": "clothing", "sort": "price"},
    "families of a tag": {"tag": "sale"},
}


class Search(NamedTuple):
    """A kind of search: its different queries, and the connections that send them."""

    paths: Sequence[str]
    connections: int = SEARCHERS


def searches(products: int) -> Mapping[str, Search]:
    """Return kinds of searches, most with many different queries, so that no result is cached."""
    return {
        **{
            name: Search([f"/products?{urlencode(query)}" for query in queries])
            for name, queries in _product_queries(products).items()
        },
        **{
            # one connection, because the goal is the time of a search without others beside it
            name: Search([f"/families?{urlencode(query)}" for query in queries], connections=1)
            for name, queries in _family_queries().items()
        },
    }


def _family_queries() -> Mapping[str, Sequence[Mapping[str, str]]]:
    categories = list(CATEGORIES)
    return {
        "families": [{}, {"sort": "name"}, {"sort": "price"}, {"sort": "-price"}],
        "families of a category": [{"category": name} for name in categories],
        "families, three filters": [
            {"category": name, "option.size": "M", "in_stock": "true", "sort": "price"}
            for name in categories
        ],
        "families, all four facets": [{"facets": ALL_FACETS}],
        "families of a category, all four facets": [
            {"category": name, "facets": ALL_FACETS} for name in categories
        ],
    }


def _product_queries(products: int) -> Mapping[str, Sequence[Mapping[str, str]]]:
    rows = Random(11).sample([*generate_products(products)], min(200, products))
    nouns = sorted({row["name"].split(",")[0].split()[-1] for row in rows})
    makers = sorted({row["attributes"]["maker"] for row in rows})
    materials = sorted({row["attributes"]["material"].split()[-1] for row in rows})
    categories = list(CATEGORIES)
    pairs = [(maker, nouns[index % len(nouns)]) for index, maker in enumerate(makers)]
    prices = [row["price"]["amount"] for row in rows]
    return {
        "a word of names": [{"q": noun} for noun in nouns],
        "a word prefix": [{"q": noun[:3]} for noun in nouns],
        "maker and noun": [{"q": f"{maker} {noun}"} for maker, noun in pairs],
        "a SKU": [{"q": row["sku"]} for row in rows],
        "a misspelled word": [{"q": _misspell(noun)} for noun in nouns if len(noun) > 4],
        "a word of descriptions": [{"q": material} for material in materials],
        "a word of every second description": [{"q": "guaranteed"}, {"q": "made"}],
        "a word in a category": [
            {"q": noun, "category": categories[index % len(categories)]}
            for index, noun in enumerate(nouns)
        ],
        "a category": [{"category": name} for name in categories],
        "a category, in stock, by price": [
            {"category": name, "in_stock": "true", "sort": "price"} for name in categories
        ],
        "a tag": [{"tag": tag} for tag in sorted({tag for row in rows for tag in row["tags"]})],
        "a price range": [
            {"min_price": str(price), "max_price": str(price + 500)} for price in prices
        ],
        "a word, facets counted": [{"q": noun, "facets": "category,options,tag"} for noun in nouns],
        "everything, facets counted": [{"facets": "category,options,tag"}],
    }


def _misspell(word: str) -> str:
    """Return the word with two letters swapped."""
    index = len(word) // 2
    return word[: index - 1] + word[index] + word[index - 1] + word[index + 1 :]
