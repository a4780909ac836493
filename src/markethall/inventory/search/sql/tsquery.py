"""Words as Postgres reads them. They are letters, digits and _: nothing in them can be a sign."""

from typing import Final

from markethall.inventory.search.domain import (
    FIELD_WEIGHTS,
    SearchDocument,
    SearchQuery,
    SearchTerm,
)

# the letters that Postgres has for weights, the best first
WEIGHT_LETTERS: Final = "ABCD"
_LETTER_BY_WEIGHT: Final = dict(zip(FIELD_WEIGHTS, WEIGHT_LETTERS, strict=True))


def tsvector_text(text: SearchDocument) -> str:
    """A tsvector: each word with the letter of its best field. Positions mean nothing here."""
    return " ".join(
        f"'{word}':1{_LETTER_BY_WEIGHT[weight]}" for word, weight in text.weights.items()
    )


def tsquery_all(search: SearchQuery, letter: str = "") -> str:
    """A tsquery: all terms, in fields of this letter or in any."""
    return " & ".join(f"({tsquery_term(term, letter)})" for term in search.terms)


def tsquery_term(term: SearchTerm, letter: str = "") -> str:
    """A tsquery: one term, in fields of this letter or in any."""
    if term.suggestions:
        return " | ".join(
            f"'{word}':{letter}" if letter else f"'{word}'" for word in term.suggestions
        )
    return f"'{term.word}':*{letter}"
