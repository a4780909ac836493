"""Finds changes of the public API that break a client of the recorded OpenAPI document.

Schemas are compared by the same rules as those of the internal API. In addition, what generated
clients are built from must stay: operation ids, parameters, headers, scopes and schema names.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from scripts.rpc_compatibility import body_of, codes_of
from scripts.schema_compatibility import REQUEST, RESPONSE, Direction, Schema, compare
from scripts.shared_responses import inline_responses

Document = Mapping[str, Any]
_Roots = tuple[Document, Document]

_LOCATIONS: Final = ("path", "query", "header", "cookie")


def incompatible_changes(old: Document, new: Document) -> list[str]:
    """Return one line for each incompatible change, sorted."""
    return sorted({*_operations(old, new), *_schema_names(old, new), *_problems(old, new)})


def _operations(old: Document, new: Document) -> Iterator[str]:
    before, now = _by_name(old), _by_name(new)
    for name, operation in before.items():
        if name in now:
            yield from _operation(name, operation, now[name], (old, new))
        else:
            yield f"{name}: is removed"


def _by_name(document: Document) -> dict[str, Schema]:
    """Map the name of each operation, such as `POST /orders`, to the operation."""
    return {
        f"{method.upper()} {path}": operation
        for path, methods in inline_responses(document)["paths"].items()
        for method, operation in methods.items()
    }


def _operation(name: str, old: Schema, new: Schema, roots: _Roots) -> Iterator[str]:
    if old["operationId"] != new["operationId"]:
        yield f"{name}: operationId {old['operationId']} -> {new['operationId']}"
    yield from _security(name, old, new)
    yield from _parameters(name, old, new, roots)
    yield from _request_body(name, old, new, roots)
    yield from _responses(name, old, new, roots)
    yield from _error_codes(name, old, new)


# Security


def _security(name: str, old: Schema, new: Schema) -> Iterator[str]:
    """Yield a line for each list of scopes that was sufficient and no longer is."""
    accepted = _accepted_scopes(new)
    for scopes in _accepted_scopes(old):
        if not any(one <= scopes for one in accepted):
            yield f"{name}: {_text(scopes)} is not enough any more"


def _accepted_scopes(operation: Schema) -> list[set[tuple[str, str]]]:
    requirements: Sequence[Mapping[str, list[str]]] = operation["security"]
    # without requirements, a request needs no token
    return [_scopes(one) for one in requirements] or [set()]


def _scopes(requirement: Mapping[str, list[str]]) -> set[tuple[str, str]]:
    """Return the scopes with the names of their schemes; a scheme without scopes counts as one."""
    return {(scheme, scope) for scheme, scopes in requirement.items() for scope in (*scopes, "")}


def _text(scopes: set[tuple[str, str]]) -> str:
    names = sorted(scope for _, scope in scopes if scope)
    return f"a token with {', '.join(names)}" if scopes else "a request without a token"


# Requests


def _parameters(name: str, old: Schema, new: Schema, roots: _Roots) -> Iterator[str]:
    for location in _LOCATIONS:
        before, now = _as_object(old, location), _as_object(new, location)
        yield from compare(f"{name}: {location} parameter", before, now, roots, REQUEST)


def _as_object(operation: Schema, location: str) -> Schema:
    """Return the schema of an object whose fields are the parameters in this location."""
    found = [one for one in operation.get("parameters", ()) if one["in"] == location]
    return {
        "type": "object",
        "properties": {one["name"]: one["schema"] for one in found},
        "required": [one["name"] for one in found if one.get("required")],
    }


def _request_body(name: str, old: Schema, new: Schema, roots: _Roots) -> Iterator[str]:
    before, now = old.get("requestBody"), new.get("requestBody")
    if before is None or now is None:
        if before is not None:
            yield f"{name}: takes no body any more"
        elif now is not None and now.get("required"):
            yield f"{name}: a body is new and required"
        return
    if now.get("required") and not before.get("required"):
        yield f"{name}: the body is needed, and may be left out"
    yield from _contents(f"{name}: request", before, now, roots, REQUEST)


def _contents(
    name: str, old: Schema, new: Schema, roots: _Roots, direction: Direction
) -> Iterator[str]:
    before, now = old.get("content", {}), new.get("content", {})
    for media_type in before:
        if media_type in now:
            schemas = body_of(old, media_type), body_of(new, media_type)
            yield from compare(f"{name} field", *schemas, roots, direction)
        else:
            yield f"{name}: {media_type} is removed"


# Responses


def _responses(name: str, old: Schema, new: Schema, roots: _Roots) -> Iterator[str]:
    before, now = _successes(old), _successes(new)
    if set(before) != set(now):
        yield f"{name}: answers {', '.join(sorted(before))} -> {', '.join(sorted(now))}"
    for status in before.keys() & now.keys():
        yield from _contents(f"{name}: response", before[status], now[status], roots, RESPONSE)
    for status, response in old["responses"].items():
        left = new["responses"].get(status, {}).get("headers", {})
        for header in response.get("headers", {}):
            if status in new["responses"] and header not in left:
                yield f"{name}: {status} has no header {header} any more"


def _successes(operation: Schema) -> dict[str, Schema]:
    return {
        status: response
        for status, response in operation["responses"].items()
        if status.startswith(("2", "3"))
    }


def _error_codes(name: str, old: Schema, new: Schema) -> Iterator[str]:
    """Yield lines for removed and moved codes. A new code breaks no client."""
    before, now = codes_of(old), codes_of(new)
    for code in before:
        if code not in now:
            yield f"{name}: error {code}: is removed"
        elif before[code] != now[code]:
            yield f"{name}: error {code}: status {before[code]} -> {now[code]}"


def _problems(old: Document, new: Document) -> Iterator[str]:
    before, now = (one["components"]["schemas"]["Problem"] for one in (old, new))
    yield from compare("errors: field", before, now, (old, new), RESPONSE)


def _schema_names(old: Document, new: Document) -> Iterator[str]:
    """Yield a line for each schema that is gone, because generated clients name a type after it."""
    names = old["components"]["schemas"].keys() - new["components"]["schemas"].keys()
    for name in names:
        yield f"schema {name}: is removed"
