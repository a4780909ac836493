"""Search documents as tsvector text."""

from typing import Final

from markethall.inventory.catalogue.domain.search_document import FIELD_WEIGHTS, SearchDocument

# Postgres's letters for weights, the heaviest first
WEIGHT_LETTERS: Final = "ABCD"
_LETTER_BY_WEIGHT: Final = dict(zip(FIELD_WEIGHTS, WEIGHT_LETTERS, strict=True))


def tsvector_text(document: SearchDocument) -> str:
    """Write each word with the letter of its weight. All positions are 1: they are not used.

    Words are letters, digits and `_`, so that nothing needs to be escaped.
    """
    return " ".join(
        f"'{word}':1{_LETTER_BY_WEIGHT[weight]}" for word, weight in document.weights.items()
    )
