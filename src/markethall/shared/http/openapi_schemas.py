"""Corrections of the schemas that Pydantic and FastAPI generate."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from markethall.shared.kernel.model import OMITS_NULL

_SCHEMA_REF: Final = "#/components/schemas/"
_LIMITS: Final = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")


def correct_schemas(document: dict[str, Any]) -> None:
    """Change the schemas of a complete document to match the real requests and responses."""
    schemas = document["components"]["schemas"]
    _rename_generic_schemas(document)
    _close_maps(schemas)
    for part in (schemas, document["paths"]):
        _write_whole_numbers(part)
    sent = _referenced(_parts_of(document, "responses"), schemas)
    accepted = _referenced(_parts_of(document, "requestBody", "parameters"), schemas)
    for name in sent - accepted:
        _require_all_fields(schemas[name])
    for schema in schemas.values():
        schema.pop(OMITS_NULL, None)
    document["components"]["schemas"] = dict(sorted(schemas.items()))


def _rename_generic_schemas(document: dict[str, Any]) -> None:
    """Name the schemas of generic models by their titles: `OrderPage`, not `Page_OrderView_`."""
    schemas = document["components"]["schemas"]
    names = {
        name: schema["title"]
        for name, schema in schemas.items()
        if name.endswith("_") and schema["title"] not in schemas
    }
    for name, title in names.items():
        schemas[title] = schemas.pop(name)
    _rename_references(
        document, {_SCHEMA_REF + old: _SCHEMA_REF + new for old, new in names.items()}
    )


def _rename_references(part: Any, names: Mapping[str, str]) -> None:
    if isinstance(part, dict) and part.get("$ref") in names:
        part["$ref"] = names[part["$ref"]]
    for child in _children(part):
        _rename_references(child, names)


def _parts_of(document: Mapping[str, Any], *names: str) -> list[Any]:
    """Return the parts with these names, such as `requestBody`, of each public operation.

    The internal API is left out, because a service of an older version may not send a field that
    has a default.
    """
    return [
        operation.get(name)
        for path, operations in document["paths"].items()
        if not path.startswith("/internal/")
        for operation in operations.values()
        for name in names
    ]


def _referenced(part: Any, schemas: Mapping[str, Any]) -> set[str]:
    """Return the names of the schemas that the part uses, directly or through other schemas."""
    found: set[str] = set()
    pending = set(_references(part))
    while pending:
        name = pending.pop()
        found.add(name)
        pending |= set(_references(schemas[name])) - found
    return found


def _references(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        reference = part.get("$ref")
        if isinstance(reference, str) and reference.startswith(_SCHEMA_REF):
            yield reference.removeprefix(_SCHEMA_REF)
    for child in _children(part):
        yield from _references(child)


def _require_all_fields(schema: dict[str, Any]) -> None:
    """Require every field of a response schema, because fields with defaults are always sent.

    Schemas that omit null fields keep their own list.
    """
    if "properties" in schema and not schema.get(OMITS_NULL):
        schema["required"] = list(schema["properties"])


def _close_maps(part: Any) -> None:
    """Forbid members whose names do not match `patternProperties`.

    Pydantic rejects such members, but does not state this in the schemas that it generates.
    """
    if isinstance(part, dict) and "patternProperties" in part:
        part.setdefault("additionalProperties", False)
    for child in _children(part):
        _close_maps(child)


def _write_whole_numbers(part: Any) -> None:
    """Write the limits of integers as integers. FastAPI turns them into floats."""
    if isinstance(part, dict):
        for name in _LIMITS:
            value = part.get(name)
            if isinstance(value, float) and value.is_integer():
                part[name] = int(value)
    for child in _children(part):
        _write_whole_numbers(child)


def _children(part: Any) -> Iterator[Any]:
    if isinstance(part, dict):
        yield from part.values()
    elif isinstance(part, list):
        yield from part
