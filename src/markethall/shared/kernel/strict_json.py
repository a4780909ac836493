"""Strict JSON parsing: no repeated names, no NaN, no infinite numbers."""

import json
from math import isinf
from typing import Any, Final


def parse_strict_json(text: str) -> Any:
    """Parse JSON text. Raises ValueError; RecursionError for text that is nested too deep."""
    return _STRICT_DECODER.decode(text)


def _reject_duplicate_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # RFC 8259 does not define which value of a repeated name counts
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("an object repeats a name")
    return values


def _parse_finite_float(text: str) -> float:
    number = float(text)
    if isinf(number):
        raise ValueError("a number is out of range")
    return number


def _reject_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


# built once, because json.loads with options builds a new decoder for every call
_STRICT_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_reject_duplicate_names,
    parse_float=_parse_finite_float,
    parse_constant=_reject_constant,
)
