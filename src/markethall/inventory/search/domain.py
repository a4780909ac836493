"""Search terms and the score of a product: the same rules in memory and in SQL."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

from markethall.inventory.catalogue.domain.search_document import (
    MIN_CORRECTABLE_LENGTH,
    SearchDocument,
    split_words,
)

# more than any sum of weights: the product with that SKU comes first
EXACT_SKU_SCORE: Final = 1000

MAX_TERMS: Final = 10
_MAX_CORRECTABLE_TERMS: Final = 4


@dataclass(frozen=True)
class SearchTerm:
    """Word of a query. It matches as a prefix; a misspelt one matches its suggestions instead."""

    word: str
    suggestions: tuple[str, ...] = ()

    def weight_in(self, document: SearchDocument) -> int:
        """Return the best weight of the words with this prefix, 0 if there are none."""
        matches = (w for word, w in document.weights.items() if word.startswith(self.word))
        return max(matches, default=0)


@dataclass(frozen=True)
class SearchQuery:
    """Parsed query. Without terms (no letter or digit in the text) it matches nothing."""

    terms: tuple[SearchTerm, ...]
    sku: str

    @classmethod
    def parse(cls, q: str) -> "SearchQuery":
        """Parse the text of a query; words after the tenth are ignored."""
        words = list(dict.fromkeys(split_words(q)))[:MAX_TERMS]
        return cls(tuple(SearchTerm(word) for word in words), q.strip().lower())

    @property
    def correctable_terms(self) -> list[str]:
        """The first four words that are long enough to correct: each one is a costly lookup."""
        words = (term.word for term in self.terms if len(term.word) >= MIN_CORRECTABLE_LENGTH)
        return list(islice(words, _MAX_CORRECTABLE_TERMS))

    def with_suggestions(self, suggestions: Mapping[str, Sequence[str]]) -> "SearchQuery":
        terms = tuple(
            SearchTerm(term.word, tuple(suggestions.get(term.word, ()))) for term in self.terms
        )
        return SearchQuery(terms, self.sku)

    def score(self, document: SearchDocument, sku: str) -> int:
        """Return the sum of the terms' weights, 0 if a term is missing."""
        weights = [term.weight_in(document) for term in self.terms]
        if not weights or not all(weights):
            return 0
        return sum(weights) + (EXACT_SKU_SCORE if sku.lower() == self.sku else 0)
