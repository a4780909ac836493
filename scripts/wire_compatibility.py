"""Which changes of the wire would break a neighbour one release older."""

from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import Any

from scripts.schema_compatibility import (
    ANSWER,
    ANSWER_OF_OLDER,
    REQUEST,
    Direction,
    Schema,
    compared,
    resolved,
)

# {"openapi": …, "actor": …, "envelope": …, "events": type -> schema, "refusals": code -> status}
Wire = Mapping[str, Any]


def breaks(old: Wire, new: Wire) -> list[str]:
    """One readable line for each, in the order of their places."""
    return sorted({*_methods(old, new), *_around(old, new), *_events(old, new)})


# Methods


def _methods(old: Wire, new: Wire) -> Iterator[str]:
    before, now = _operations(old), _operations(new)
    roots = old["openapi"], new["openapi"]
    for name, operation in before.items():
        if name not in now:
            yield f"{name}: is not there any more"
            continue
        yield from _requests(name, operation, now[name], roots)
        yield from _answers(name, operation, now[name], roots)
        known = old["refusals"].keys() | _not_for_older(operation, now[name], old["openapi"])
        yield from _refusals(name, operation, now[name], known)


def _operations(wire: Wire) -> dict[str, Schema]:
    """`inventory.reserve` -> its operation."""
    paths: Mapping[str, Schema] = wire["openapi"]["paths"]
    return {
        _name(path, verb): operation
        for path, operations in paths.items()
        for verb, operation in operations.items()
    }


def _name(path: str, verb: str) -> str:
    name = path.removeprefix("/internal/").replace("/", ".")
    return name if verb == "post" else f"{verb.upper()} {name}"


def _requests(name: str, old: Schema, new: Schema, roots: tuple[Schema, Schema]) -> Iterator[str]:
    bodies = _body(old.get("requestBody", {})), _body(new.get("requestBody", {}))
    yield from compared(f"{name}: request field", *bodies, roots, REQUEST)


def _answers(name: str, old: Schema, new: Schema, roots: tuple[Schema, Schema]) -> Iterator[str]:
    before, now = (
        {status: one for status, one in operation["responses"].items() if status.startswith("2")}
        for operation in (old, new)
    )
    if set(before) != set(now):
        yield f"{name}: answers {', '.join(sorted(before))} -> {', '.join(sorted(now))}"
        return
    for status in before:
        bodies = _body(before[status]), _body(now[status])
        yield from _both_ways(f"{name}: response field", *bodies, roots)


def _body(part: Schema) -> Schema:
    content: Schema = part.get("content", {}).get("application/json", {})
    schema: Schema = content.get("schema", {})
    return schema


def _not_for_older(old: Schema, new: Schema, root: Schema) -> set[str]:
    """The refusals that only a request gets which has a field that an older caller cannot send."""
    sent = resolved(_body(old.get("requestBody", {})), root).get("properties", {})
    asked: Mapping[str, list[str]] = new.get("x-refused-only-with", {})
    return {code for field, codes in asked.items() if field not in sent for code in codes}


def _refusals(name: str, old: Schema, new: Schema, known: AbstractSet[str]) -> Iterator[str]:
    before, now = _codes(old), _codes(new)
    for code in before.keys() - now.keys():
        yield f"{name}: refusal {code}: is not there any more"
    for code in before.keys() & now.keys():
        if before[code] != now[code]:
            yield f"{name}: refusal {code}: status {before[code]} -> {now[code]}"
    for code in now.keys() - before.keys() - known:
        yield f"{name}: refusal {code}: is new, and an older caller takes it for a fault"


def _codes(operation: Schema) -> dict[str, str]:
    return {
        code: status
        for status, response in operation["responses"].items()
        for content in response.get("content", {}).values()
        for code in content.get("examples", ())
    }


def _around(old: Wire, new: Wire) -> Iterator[str]:
    """What every call, every refusal and every event has around it."""
    roots = old["openapi"], new["openapi"]
    before, now = (root["components"]["schemas"]["Problem"] for root in roots)
    yield from _both_ways("refusals: field", before, now, roots)
    before, now = roots = old["actor"], new["actor"]
    yield from compared("actor: field", before, now, roots, REQUEST)
    before, now = roots = old["envelope"], new["envelope"]
    yield from _both_ways("envelope: field", before, now, roots)


# Events


def _events(old: Wire, new: Wire) -> Iterator[str]:
    before, now = old["events"], new["events"]
    for name, schema in before.items():
        if name in now:
            roots = schema, now[name]
            yield from _both_ways(f"event {name}: field", schema, now[name], roots)
        else:
            yield f"event {name}: is not there any more"


def _both_ways(name: str, old: Schema, new: Schema, roots: tuple[Schema, Schema]) -> Iterator[str]:
    """A newer one may call an older one, and events wait while their listener is updated."""
    directions: tuple[Direction, ...] = (ANSWER, ANSWER_OF_OLDER)
    for direction in directions:
        yield from compared(name, old, new, roots, direction)
