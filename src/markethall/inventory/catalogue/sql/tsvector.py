"""Convert search documents to the text form of a Postgres tsvector."""

from typing import Final

from markethall.inventory.catalogue.domain.search_document import FIELD_WEIGHTS, SearchDocument

# the weight labels of Postgres, the heaviest first
WEIGHT_LETTERS: Final = "ABCD"
_LETTER_BY_WEIGHT: Final = dict(zip(FIELD_WEIGHTS, WEIGHT_LETTERS, strict=True))


def tsvector_text(document: SearchDocument) -> str:
    """Write each word with the position 1 and its weight label.

    The position is always 1, because the search does not use positions, but Postgres stores a
    weight only with a position. Words consist of letters, digits and `_`, so they need no escaping.
    """
    return " ".join(
        f"'{word}':1{_LETTER_BY_WEIGHT[weight]}" for word, weight in document.weights.items()
    )
