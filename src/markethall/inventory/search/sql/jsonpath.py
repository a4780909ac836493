"""Convert filters by option or attribute to the text of an SQL/JSON path predicate.

The whole filter is one bind parameter, so its number of names does not change the statement. A GIN
index of the class jsonb_path_ops supports it.
"""

import json
from collections.abc import Iterable, Mapping


def jsonpath_all(keys: Mapping[str, Iterable[str]]) -> str:
    """Write a predicate for objects that have, for each name, one of its values."""
    return " && ".join(f"({_jsonpath_any(name, values)})" for name, values in keys.items())


def _jsonpath_any(name: str, values: Iterable[str]) -> str:
    return " || ".join(f"$.{_quote(name)} == {_quote(value)}" for value in values)


def _quote(text: str) -> str:
    # a string literal of a JSON path has the escapes of JSON
    return json.dumps(text, ensure_ascii=False)
