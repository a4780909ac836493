"""Text forms of tsvector and tsquery.

Words consist of letters, digits and `_`, so none can contain an operator or a quote.
"""

from typing import Final

from markethall.inventory.search.domain import (
    FIELD_WEIGHTS,
    SearchDocument,
    SearchQuery,
    SearchTerm,
)

# weight labels of Postgres, the best first
WEIGHT_LETTERS: Final = "ABCD"
_LETTER_BY_WEIGHT: Final = dict(zip(FIELD_WEIGHTS, WEIGHT_LETTERS, strict=True))


def tsvector_text(document: SearchDocument) -> str:
    """Label each word with the weight of its best field. The positions are not used."""
    return " ".join(
        f"'{word}':1{_LETTER_BY_WEIGHT[weight]}" for word, weight in document.weights.items()
    )


def tsquery_all(search: SearchQuery, letter: str = "") -> str:
    """Require all terms, in fields with this label or, without one, in any field."""
    return " & ".join(f"({tsquery_term(term, letter)})" for term in search.terms)


def tsquery_term(term: SearchTerm, letter: str = "") -> str:
    """Match one term, in fields with this label or, without one, in any field."""
    if term.suggestions:
        return " | ".join(
            f"'{word}':{letter}" if letter else f"'{word}'" for word in term.suggestions
        )
    return f"'{term.word}':*{letter}"
