"""Prepares the OpenAPI document for generated requests: ids of existing entities as examples."""

import copy
from collections.abc import Iterator, Mapping
from typing import Any, Final

# how many countries, and how many currencies, to keep in the document in addition to the examples;
# each value costs one more request per field
MAX_ENUM_VALUES: Final = 3


def document_for_generation(
    document: Mapping[str, Any], ids: Mapping[str, str], *, all_enum_values: bool
) -> dict[str, Any]:
    prepared: dict[str, Any] = copy.deepcopy(dict(document))
    for parameter in _parameters(prepared):
        example = _example_of(parameter, ids)
        if example is not None:
            parameter["example"] = example
            parameter["schema"].pop("examples", None)
    if not all_enum_values:
        for name in ("Country", "Currency"):
            schema = prepared["components"]["schemas"][name]
            schema["enum"] = [*schema["examples"], *schema["enum"][:MAX_ENUM_VALUES]]
    return prepared


def labels_of(document: Mapping[str, Any]) -> set[str]:
    """Return the operations, such as `GET /orders`."""
    return {
        f"{method.upper()} {path}"
        for path, operations in document["paths"].items()
        for method in operations
    }


def _parameters(document: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for operations in document["paths"].values():
        for operation in operations.values():
            yield from operation.get("parameters", ())


def _example_of(parameter: Mapping[str, Any], ids: Mapping[str, str]) -> str | None:
    if parameter["in"] == "path":
        return ids[parameter["name"]]
    # `*` accepts any version, so that the requests make changes and are not all rejected
    return "*" if parameter["name"] == "If-Match" else None
