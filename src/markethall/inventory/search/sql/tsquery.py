"""Words as Postgres reads them. They are letters, digits and _: nothing in them can be a sign."""

from markethall.inventory.search.domain import SearchQuery, SearchTerm


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
