"""The words by which a search finds a product, with their weights."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from markethall.inventory.catalogue.domain.products import Product
from markethall.inventory.catalogue.domain.text_keys import fold_letters

# The score of a product is a sum over the words of the query. A word adds the weight of the field
# in which it occurs. If it occurs in several fields, it adds the highest of their weights.
NAME_WEIGHT, SKU_WEIGHT, TAGS_WEIGHT, DESCRIPTION_WEIGHT = 8, 4, 2, 1
FIELD_WEIGHTS: Final = (NAME_WEIGHT, SKU_WEIGHT, TAGS_WEIGHT, DESCRIPTION_WEIGHT)

# characters; shorter words get no spelling suggestions
MIN_CORRECTABLE_LENGTH: Final = 3
# Postgres limits a tsvector to 1 MB; this number of words stays below it
_MAX_WORDS_PER_PRODUCT: Final = 4000
# A word of more than 50 characters is split into several words. A query is split in the same way,
# so long words still match.
_WORD_PATTERN: Final = re.compile(r"\w{1,50}")


@dataclass(frozen=True)
class SearchDocument:
    """The words of a product, each with the highest weight of the fields that contain it."""

    weights: Mapping[str, int]

    @property
    def vocabulary(self) -> list[str]:
        """Return the words of names and tags, for spelling suggestions.

        The words are sorted, because transactions that insert the same words in different orders
        could deadlock.
        """
        return sorted(
            word
            for word, weight in self.weights.items()
            if weight in {NAME_WEIGHT, TAGS_WEIGHT} and len(word) >= MIN_CORRECTABLE_LENGTH
        )


def split_words(text: str) -> list[str]:
    """Split a text into words in lower case without accents: "Crème Brûlée" into creme, brulee."""
    return _WORD_PATTERN.findall(fold_letters(text))


def build_search_document(product: Product) -> SearchDocument:
    translations = product.translations.values()
    weights: dict[str, int] = {}
    # the field with the highest weight comes last, so that its weight overwrites the lower ones
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
