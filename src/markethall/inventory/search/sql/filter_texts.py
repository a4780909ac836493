"""Convert search terms to tsquery text.

Terms consist of letters, digits and `_`, so they need no escaping.
"""

import json
from collections.abc import Iterable, Mapping

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


def jsonpath_all(keys: Mapping[str, Iterable[str]]) -> str:
    """Return a predicate that selects objects with one of the given values for each name."""
    return " && ".join(f"({_jsonpath_any(name, values)})" for name, values in keys.items())


def _jsonpath_any(name: str, values: Iterable[str]) -> str:
    return " || ".join(f"$.{_quote(name)} == {_quote(value)}" for value in values)


def _quote(text: str) -> str:
    # a string literal of a JSON path has the escapes of JSON
    return json.dumps(text, ensure_ascii=False)
