"""Convert filters by option or attribute to the text of an SQL/JSON path predicate.

The predicate is one bind parameter, so the statement does not depend on the number of names. A GIN
index of the operator class jsonb_path_ops supports it.
"""

import json
from collections.abc import Iterable, Mapping


def jsonpath_all(keys: Mapping[str, Iterable[str]]) -> str:
    """Return a predicate that selects objects with one of the given values for each name."""
    return " && ".join(f"({_jsonpath_any(name, values)})" for name, values in keys.items())


def _jsonpath_any(name: str, values: Iterable[str]) -> str:
    return " || ".join(f"$.{_quote(name)} == {_quote(value)}" for value in values)


def _quote(text: str) -> str:
    # a string literal of a JSON path has the escapes of JSON
    return json.dumps(text, ensure_ascii=False)
