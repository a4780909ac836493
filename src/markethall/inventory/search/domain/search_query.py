"""Search terms, the score of a product, and filters by option and attribute.

The SQL store computes the same score in SQL.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

from markethall.inventory.catalogue.domain.search_document import (
    MIN_CORRECTABLE_LENGTH,
    SearchDocument,
    split_words,
)
from markethall.inventory.catalogue.domain.text_keys import label_key, sku_key

# greater than any sum of weights, so that the product whose SKU equals the query comes first
EXACT_SKU_SCORE: Final = 1000

MAX_TERMS: Final = 10
_MAX_CORRECTABLE_TERMS: Final = 4


@dataclass(frozen=True)
class SearchTerm:
    """A word of a query. It matches the words of products that begin with `word`.

    If no product has such a word, the SQL store may find `suggestions`. The term then matches only
    words that equal a suggestion. The memory store has no suggestions, so `weight_in` ignores them.
    """

    word: str
    suggestions: tuple[str, ...] = ()

    def weight_in(self, document: SearchDocument) -> int:
        """Return the highest weight of the words that match, or 0 if no word matches."""
        matches = (w for word, w in document.weights.items() if word.startswith(self.word))
        return max(matches, default=0)


@dataclass(frozen=True)
class SearchQuery:
    """A parsed query. Without terms it matches nothing. `sku` is the `sku_key` of the full text."""

    terms: tuple[SearchTerm, ...]
    sku: str

    @classmethod
    def parse(cls, q: str) -> "SearchQuery":
        """Parse the text of a query. Ignore words after the tenth."""
        words = list(dict.fromkeys(split_words(q)))[:MAX_TERMS]
        return cls(tuple(SearchTerm(word) for word in words), sku_key(q))

    @property
    def correctable_terms(self) -> list[str]:
        """Return the first four words that are long enough for suggestions.

        The number is limited, because each word needs a slow lookup.
        """
        words = (term.word for term in self.terms if len(term.word) >= MIN_CORRECTABLE_LENGTH)
        return list(islice(words, _MAX_CORRECTABLE_TERMS))

    def with_suggestions(self, suggestions: Mapping[str, Sequence[str]]) -> "SearchQuery":
        terms = tuple(
            SearchTerm(term.word, tuple(suggestions.get(term.word, ()))) for term in self.terms
        )
        return SearchQuery(terms, self.sku)

    def score(self, document: SearchDocument, sku: str) -> int:
        """Return the sum of the terms' weights, or 0 if a term does not match.

        Add EXACT_SKU_SCORE if the text of the query is this SKU.
        """
        weights = [term.weight_in(document) for term in self.terms]
        if not weights or not all(weights):
            return 0
        return sum(weights) + (EXACT_SKU_SCORE if sku_key(sku) == self.sku else 0)


def filter_keys(filters: Mapping[str, Sequence[str]]) -> Mapping[str, Sequence[str]]:
    """Map the `label_key` of each name to the sorted `label_key`s of its values, sorted by name.

    The values of names with the same key are combined.
    """
    keys: dict[str, set[str]] = {}
    for name, values in filters.items():
        keys.setdefault(label_key(name), set()).update(map(label_key, values))
    return {name: sorted(keys[name]) for name in sorted(keys)}


def matches_keys(keys: Mapping[str, str], filters: Mapping[str, Sequence[str]]) -> bool:
    """Tell whether the product has, for each name in the filters, one of the given values.

    `keys` is the result of `option_keys` or `attribute_keys`, `filters` that of `filter_keys`.
    """
    return all(keys.get(name) in values for name, values in filters.items())
