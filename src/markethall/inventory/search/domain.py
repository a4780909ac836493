"""What of a product can be found, and by which words: the same rules in memory and in SQL."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

from markethall.inventory.catalogue.domain.search_document import (
    MIN_CORRECTABLE_LENGTH,
    SearchDocument,
    split_words,
)

# who asks for a SKU gets that product first, whatever else has these words
EXACT_SKU_SCORE: Final = 1000

MAX_TERMS: Final = 10
_MIN_LENGTH_FOR_TWO_EDITS: Final = 6
_MAX_SUGGESTIONS: Final = 3
_MAX_CORRECTABLE_TERMS: Final = 4
# so many words with the most trigrams in common are looked at letter by letter
MAX_CANDIDATES: Final = 50
MAX_EDIT_DISTANCE: Final = 2


@dataclass(frozen=True)
class SearchTerm:
    """One word of a query: what begins with it, or, of a mistyped one, what it may have been."""

    word: str
    suggestions: tuple[str, ...] = ()

    def weight_in(self, text: SearchDocument) -> int:
        """0 when it is not there."""
        if self.suggestions:
            return max(text.weights.get(word, 0) for word in self.suggestions)
        begins = (weight for word, weight in text.weights.items() if word.startswith(self.word))
        return max(begins, default=0)


@dataclass(frozen=True)
class SearchQuery:
    """A query as it is looked up. Without terms it finds nothing: it had no letter or digit."""

    terms: tuple[SearchTerm, ...]
    sku: str

    @classmethod
    def parse(cls, q: str) -> "SearchQuery":
        """The first ten words count."""
        words = list(dict.fromkeys(split_words(q)))[:MAX_TERMS]
        return cls(tuple(SearchTerm(word) for word in words), q.strip().lower())

    @property
    def correctable_terms(self) -> list[str]:
        """Words that may be mistyped. To look for what each may have been is dear: not many."""
        words = (term.word for term in self.terms if len(term.word) >= MIN_CORRECTABLE_LENGTH)
        return list(islice(words, _MAX_CORRECTABLE_TERMS))

    def with_suggestions(self, suggestions: Mapping[str, Sequence[str]]) -> "SearchQuery":
        """With the guesses for what was mistyped."""
        terms = tuple(
            SearchTerm(term.word, tuple(suggestions.get(term.word, ()))) for term in self.terms
        )
        return SearchQuery(terms, self.sku)

    def score(self, text: SearchDocument, sku: str) -> int:
        """0 when a term is missing."""
        weights = [term.weight_in(text) for term in self.terms]
        if not weights or not all(weights):
            return 0
        return sum(weights) + (EXACT_SKU_SCORE if sku.lower() == self.sku else 0)


# Words that were mistyped


def spelling_suggestions(word: str, candidates: Iterable[str]) -> tuple[str, ...]:
    """At most three words that are one slip away, or two when the word is long, the nearest first.

    A slip is a letter too many, too few, wrong or changed with its neighbour.
    """
    allowed = _max_edits(word)
    rated = sorted((edit_distance(word, candidate), candidate) for candidate in candidates)
    return tuple(candidate for count, candidate in rated if count <= allowed)[:_MAX_SUGGESTIONS]


def closest_by_trigram(word: str, vocabulary: Iterable[str]) -> list[str]:
    """Those with the most trigrams in common: what pg_trgm's similarity() would sort first."""
    candidates = (other for other in vocabulary if abs(len(other) - len(word)) <= MAX_EDIT_DISTANCE)
    return sorted(candidates, key=lambda other: (-_similarity(word, other), other))[:MAX_CANDIDATES]


def edit_distance(a: str, b: str) -> int:
    """How many slips lead from one word to the other (Damerau and Levenshtein, no letter twice)."""
    previous_row: list[int] = []
    row = list(range(len(b) + 1))
    for i, letter_of_a in enumerate(a, 1):
        row_before_previous, previous_row, row = previous_row, row, [i]
        for j, letter_of_b in enumerate(b, 1):
            cost = min(
                previous_row[j] + 1, row[-1] + 1, previous_row[j - 1] + (letter_of_a != letter_of_b)
            )
            if i > 1 and j > 1 and letter_of_a == b[j - 2] and a[i - 2] == letter_of_b:
                cost = min(cost, row_before_previous[j - 2] + 1)
            row.append(cost)
    return row[-1]


def _max_edits(word: str) -> int:
    if len(word) < MIN_CORRECTABLE_LENGTH:
        return 0
    return 1 if len(word) < _MIN_LENGTH_FOR_TWO_EDITS else MAX_EDIT_DISTANCE


def _similarity(a: str, b: str) -> float:
    trigrams_of_a, trigrams_of_b = _trigrams(a), _trigrams(b)
    shared = len(trigrams_of_a & trigrams_of_b)
    return shared / (len(trigrams_of_a) + len(trigrams_of_b) - shared)


def _trigrams(word: str) -> set[str]:
    return {
        padded[i : i + 3]
        for part in word.split("_")
        if part
        for padded in [f"  {part} "]
        for i in range(len(padded) - 2)
    } or {word}
