"""Text forms of tsquery. Terms consist of letters, digits and `_`: none needs to be escaped."""

from markethall.inventory.search.domain import SearchQuery, SearchTerm


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
