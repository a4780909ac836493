"""Search terms, the words of a product, and the score: the same rules in memory and in SQL."""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

from markethall.inventory.catalogue.domain.products import Product

# a term counts as much as the best field that contains it
NAME_WEIGHT, SKU_WEIGHT, TAGS_WEIGHT, DESCRIPTION_WEIGHT = 8, 4, 2, 1
FIELD_WEIGHTS: Final = (NAME_WEIGHT, SKU_WEIGHT, TAGS_WEIGHT, DESCRIPTION_WEIGHT)
# more than any sum of weights: the product with that SKU comes first
EXACT_SKU_SCORE: Final = 1000

MAX_TERMS: Final = 10
MIN_CORRECTABLE_LENGTH: Final = 3
# keeps a product's words within the 1 MB of a tsvector, however long its texts are
_MAX_WORDS_PER_PRODUCT: Final = 4000
# a longer word is split, in products and in queries alike
_WORD_PATTERN: Final = re.compile(r"\w{1,50}")
_MAX_CORRECTABLE_TERMS: Final = 4


@dataclass(frozen=True)
class SearchDocument:
    """Words of a product, each with the weight of the best field that contains it."""

    weights: Mapping[str, int]

    @property
    def vocabulary(self) -> list[str]:
        """Words of the name and the tags that a misspelt term may be corrected to.

        They are sorted: their rows are locked in this order.
        """
        return sorted(
            word
            for word, weight in self.weights.items()
            if weight in {NAME_WEIGHT, TAGS_WEIGHT} and len(word) >= MIN_CORRECTABLE_LENGTH
        )


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


def split_words(text: str) -> list[str]:
    """Split into words of letters and digits without case and accents.

    "Crème Brûlée" becomes "creme" and "brulee".
    """
    if text.isascii():
        return _WORD_PATTERN.findall(text.lower())
    folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    without_marks = "".join(c for c in folded if not unicodedata.category(c).startswith("M"))
    return _WORD_PATTERN.findall(without_marks)


def build_search_document(product: Product) -> SearchDocument:
    translations = product.translations.values()
    names = _join_languages(product.name, (texts.name for texts in translations))
    descriptions = _join_languages(
        product.description, (texts.description for texts in translations)
    )
    weights: dict[str, int] = {}
    # the best field is last and overrides the others
    for weight, text in (
        (DESCRIPTION_WEIGHT, descriptions),
        (TAGS_WEIGHT, " ".join(product.tags)),
        (SKU_WEIGHT, product.sku),
        (NAME_WEIGHT, names),
    ):
        weights.update(dict.fromkeys(split_words(text), weight))
    return SearchDocument(
        weights if len(weights) <= _MAX_WORDS_PER_PRODUCT else _keep_heaviest(weights)
    )


def _join_languages(text: str, translations: Iterable[str | None]) -> str:
    """Join the texts of a field: all languages have the same weight."""
    return " ".join([text, *(translated for translated in translations if translated)])


def _keep_heaviest(weights: Mapping[str, int]) -> Mapping[str, int]:
    best = sorted(weights, key=lambda word: -weights[word])
    return {word: weights[word] for word in best[:_MAX_WORDS_PER_PRODUCT]}
