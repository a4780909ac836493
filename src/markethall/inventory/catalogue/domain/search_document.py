"""The words of a product that a search can find, with the weights of their fields."""

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from markethall.inventory.catalogue.domain.products import Product

# a match counts as much as the best field that contains the word
NAME_WEIGHT, SKU_WEIGHT, TAGS_WEIGHT, DESCRIPTION_WEIGHT = 8, 4, 2, 1
FIELD_WEIGHTS: Final = (NAME_WEIGHT, SKU_WEIGHT, TAGS_WEIGHT, DESCRIPTION_WEIGHT)

# shorter words are not checked for spelling
MIN_CORRECTABLE_LENGTH: Final = 3
# keeps the words of a product within a tsvector (1 MB), however long its texts are
_MAX_WORDS_PER_PRODUCT: Final = 4000
# a longer word is split, in products and queries alike
_WORD_PATTERN: Final = re.compile(r"\w{1,50}")


@dataclass(frozen=True)
class SearchDocument:
    """The words of a product, each with the weight of the best field that contains it."""

    weights: Mapping[str, int]

    @property
    def vocabulary(self) -> list[str]:
        """Words of names and tags, for spelling suggestions.

        Sorted, because the rows are locked in this order.
        """
        return sorted(
            word
            for word, weight in self.weights.items()
            if weight in {NAME_WEIGHT, TAGS_WEIGHT} and len(word) >= MIN_CORRECTABLE_LENGTH
        )


def split_words(text: str) -> list[str]:
    """Split into words without case and accents: "Crème Brûlée" gives creme, brulee."""
    if text.isascii():
        return _WORD_PATTERN.findall(text.lower())
    folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    without_marks = "".join(c for c in folded if not unicodedata.category(c).startswith("M"))
    return _WORD_PATTERN.findall(without_marks)


def build_search_document(product: Product) -> SearchDocument:
    translations = product.translations.values()
    weights: dict[str, int] = {}
    # the heaviest field comes last and overwrites the others
    for weight, text in (
        (
            DESCRIPTION_WEIGHT,
            _join_languages(product.description, (texts.description for texts in translations)),
        ),
        (TAGS_WEIGHT, " ".join(product.tags)),
        (SKU_WEIGHT, product.sku),
        (NAME_WEIGHT, _join_languages(product.name, (texts.name for texts in translations))),
    ):
        weights.update(dict.fromkeys(split_words(text), weight))
    return SearchDocument(
        weights if len(weights) <= _MAX_WORDS_PER_PRODUCT else _keep_heaviest(weights)
    )


def _join_languages(text: str, translations: Iterable[str | None]) -> str:
    return " ".join([text, *(words for words in translations if words)])


def _keep_heaviest(weights: Mapping[str, int]) -> Mapping[str, int]:
    best = sorted(weights, key=lambda word: -weights[word])
    return {word: weights[word] for word in best[:_MAX_WORDS_PER_PRODUCT]}
