"""Finds changes of the internal API that are incompatible with the previous release."""

from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import Any

from scripts.schema_compatibility import (
    REQUEST,
    RESPONSE,
    RESPONSE_OF_OLDER,
    Direction,
    Schema,
    compare,
    resolve,
)

# the result of `check_rpc.current_record`: keys openapi, actor, envelope, events and errors
ApiRecord = Mapping[str, Any]


def incompatible_changes(old: ApiRecord, new: ApiRecord) -> list[str]:
    """Return one line for each incompatible change, sorted."""
    return sorted({*_methods(old, new), *_envelopes(old, new), *_events(old, new)})


# Methods


def _methods(old: ApiRecord, new: ApiRecord) -> Iterator[str]:
    before, now = _operations(old), _operations(new)
    roots = old["openapi"], new["openapi"]
    for name, operation in before.items():
        if name not in now:
            yield f"{name}: is removed"
            continue
        yield from _requests(name, operation, now[name], roots)
        yield from _responses(name, operation, now[name], roots)
        known = old["errors"].keys() | _errors_of_new_fields(operation, now[name], old["openapi"])
        yield from _error_codes(name, operation, now[name], known)


def _operations(record: ApiRecord) -> dict[str, Schema]:
    """Map the name of each operation, such as `inventory.reserve`, to the operation."""
    paths: Mapping[str, Schema] = record["openapi"]["paths"]
    return {
        _name(path, verb): operation
        for path, operations in paths.items()
        for verb, operation in operations.items()
    }


def _name(path: str, verb: str) -> str:
    name = path.removeprefix("/internal/").replace("/", ".")
    return name if verb == "post" else f"{verb.upper()} {name}"


def _requests(name: str, old: Schema, new: Schema, roots: tuple[Schema, Schema]) -> Iterator[str]:
    bodies = body_of(old.get("requestBody", {})), body_of(new.get("requestBody", {}))
    yield from compare(f"{name}: request field", *bodies, roots, REQUEST)


def _responses(name: str, old: Schema, new: Schema, roots: tuple[Schema, Schema]) -> Iterator[str]:
    before, now = (
        {status: one for status, one in operation["responses"].items() if status.startswith("2")}
        for operation in (old, new)
    )
    if set(before) != set(now):
        yield f"{name}: answers {', '.join(sorted(before))} -> {', '.join(sorted(now))}"
        return
    for status in before:
        bodies = body_of(before[status]), body_of(now[status])
        yield from _both_ways(f"{name}: response field", *bodies, roots)


def body_of(part: Schema, media_type: str = "application/json") -> Schema:
    """Return the schema of a request body or response, or an empty one."""
    content: Schema = part.get("content", {}).get(media_type, {})
    schema: Schema = content.get("schema", {})
    return schema


def _errors_of_new_fields(old: Schema, new: Schema, root: Schema) -> set[str]:
    """Return the errors that occur only with new fields, which an older caller never sends."""
    sent = resolve(body_of(old.get("requestBody", {})), root).get("properties", {})
    asked: Mapping[str, list[str]] = new.get("x-refused-only-with", {})
    return {code for field, codes in asked.items() if field not in sent for code in codes}


def _error_codes(name: str, old: Schema, new: Schema, known: AbstractSet[str]) -> Iterator[str]:
    before, now = codes_of(old), codes_of(new)
    for code in before.keys() - now.keys():
        yield f"{name}: error {code}: is removed"
    for code in before.keys() & now.keys():
        if before[code] != now[code]:
            yield f"{name}: error {code}: status {before[code]} -> {now[code]}"
    for code in now.keys() - before.keys() - known:
        yield f"{name}: error {code}: is new, and an older caller reports an internal error"


def codes_of(operation: Schema) -> dict[str, str]:
    """Map the code of each error that an operation documents to its status."""
    return {
        code: status
        for status, response in operation["responses"].items()
        for content in response.get("content", {}).values()
        for code in content.get("examples", ())
    }


def _envelopes(old: ApiRecord, new: ApiRecord) -> Iterator[str]:
    """Compare the fields that all errors, all actors (in tokens) and all events have."""
    roots = old["openapi"], new["openapi"]
    before, now = (root["components"]["schemas"]["Problem"] for root in roots)
    yield from _both_ways("errors: field", before, now, roots)
    before, now = roots = old["actor"], new["actor"]
    yield from compare("actor: field", before, now, roots, REQUEST)
    before, now = roots = old["envelope"], new["envelope"]
    yield from _both_ways("envelope: field", before, now, roots)


# Events


def _events(old: ApiRecord, new: ApiRecord) -> Iterator[str]:
    before, now = old["events"], new["events"]
    for name, schema in before.items():
        if name in now:
            roots = schema, now[name]
            yield from _both_ways(f"event {name}: field", schema, now[name], roots)
        else:
            yield f"event {name}: is removed"


def _both_ways(name: str, old: Schema, new: Schema, roots: tuple[Schema, Schema]) -> Iterator[str]:
    """Compare twice: the new release as the sender, and the old release as the sender.

    During an update, a new caller may get a response of the old release, and a new subscriber may
    read events of the old release.
    """
    directions: tuple[Direction, ...] = (RESPONSE, RESPONSE_OF_OLDER)
    for direction in directions:
        yield from compare(name, old, new, roots, direction)
