"""Convert search terms to tsquery text.

Terms consist of letters, digits and `_`, so they need no escaping.
"""

from markethall.inventory.search.domain.search_query import SearchQuery, SearchTerm


def tsquery_all(search: SearchQuery, letter: str = "") -> str:
    """Write a query for all terms, in fields with the weight label `letter`.

    If `letter` is empty, any field may have the terms.
    """
    return " & ".join(f"({tsquery_term(term, letter)})" for term in search.terms)


def tsquery_term(term: SearchTerm, letter: str = "") -> str:
    """Write a query for one term, in fields with the weight label `letter`.

    If `letter` is empty, any field may have the term.
    """
    if term.suggestions:
        return " | ".join(
            f"'{word}':{letter}" if letter else f"'{word}'" for word in term.suggestions
        )
    return f"'{term.word}':*{letter}"
