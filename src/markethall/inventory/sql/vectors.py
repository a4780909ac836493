"""Words as Postgres reads them. They are letters, digits and _: nothing in them can be a sign."""

from typing import Final

from markethall.inventory.domain import WEIGHTS, Search, SearchText, Term

# the letters that Postgres has for weights, the best first
LETTERS: Final = "ABCD"
_LETTER: Final = dict(zip(WEIGHTS, LETTERS, strict=True))


def vector(text: SearchText) -> str:
    """A tsvector: each word with the letter of its best field. Positions mean nothing here."""
    return " ".join(f"'{word}':1{_LETTER[weight]}" for word, weight in text.weights.items())


def every(search: Search, letter: str = "") -> str:
    """A tsquery: all terms, in fields of this letter or in any."""
    return " & ".join(f"({one(term, letter)})" for term in search.terms)


def one(term: Term, letter: str = "") -> str:
    """A tsquery: one term, in fields of this letter or in any."""
    if term.instead:
        return " | ".join(f"'{word}':{letter}" if letter else f"'{word}'" for word in term.instead)
    return f"'{term.word}':*{letter}"
