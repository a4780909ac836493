"""Compares two JSON schemas: finds values that one release may send and the other rejects.

The older and the newer schema belong to two releases; the direction says which release sends.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

Schema = Mapping[str, Any]


@dataclass(frozen=True)
class Direction:
    """The direction of a message between two releases.

    `strict` means that the receiver rejects unknown fields and the sender omits default values.
    """

    older_sends: bool
    strict: bool
    # the messages for a field that the sender lacks, and for a value that the receiver rejects
    lacking: str
    unknown: str


REQUEST: Final = Direction(True, True, "is new and required", "is not taken any more")
RESPONSE: Final = Direction(False, False, "is removed", "is new, and an older one cannot read it")
# a response or event from an older release to a newer one
RESPONSE_OF_OLDER: Final = Direction(
    True,
    False,
    "is new and has no default, and an older one does not send it",
    "is gone, and an older one still sends it",
)

_MAX_KEYWORDS: Final = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")
_MIN_KEYWORDS: Final = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
# keywords that must be equal, unless the schema of the receiver does not have them
_EQUAL_KEYWORDS: Final = ("type", "format", "pattern")
# `discriminator` repeats the constants of the alternatives
_DOCUMENTATION: Final = (
    "title",
    "description",
    "examples",
    "example",
    "deprecated",
    "discriminator",
)
_ALTERNATIVES: Final = ("anyOf", "oneOf")
# keywords that this module compares; any other keyword must be equal
_KNOWN: Final = frozenset(
    {
        *_MAX_KEYWORDS,
        *_MIN_KEYWORDS,
        *_EQUAL_KEYWORDS,
        *_DOCUMENTATION,
        "$defs",
        "default",
        "enum",
        "const",
        *_ALTERNATIVES,
    }
    | {"properties", "patternProperties", "required", "items", "additionalProperties"}
)


def compare(
    name: str, old: Schema, new: Schema, roots: tuple[Schema, Schema], direction: Direction
) -> Iterator[str]:
    """Yield a line for each incompatible change.

    `roots` are the complete older and newer document, in which references are resolved.
    """
    yield from _differences(_Comparison(name, "", old, new, roots, direction))


@dataclass(frozen=True)
class _Comparison:
    """The older and the newer schema of one field, with its path."""

    name: str
    path: str
    old: Schema
    new: Schema
    roots: tuple[Schema, Schema]
    direction: Direction

    @property
    def sides(self) -> tuple[Schema, Schema]:
        """Return the schema of the sender and the schema of the receiver."""
        return (self.old, self.new) if self.direction.older_sends else (self.new, self.old)

    @property
    def choices(self) -> tuple[list[Schema], list[Schema]]:
        """Return the alternatives of the older and of the newer schema."""
        old, new = (_choices(s, r) for s, r in zip((self.old, self.new), self.roots, strict=True))
        return old, new

    def at(self, step: str, old: Schema, new: Schema) -> "_Comparison":
        path = (self.path + step).removeprefix(".")
        return replace(self, path=path, old=old, new=new)

    def message(self, what: str) -> str:
        return f"{self.name} {self.path}: {what}" if self.path else f"{self.name}s: {what}"

    def change(self, keyword: str) -> str:
        sides = (_format(side.get(keyword, "none")) for side in (self.old, self.new))
        return self.message(f"{keyword} " + " -> ".join(sides))


def _format(value: Any) -> str:
    """Return the value as text, without the `.0` that FastAPI adds to integers."""
    return str(int(value) if isinstance(value, float) and value.is_integer() else value)


def _differences(comparison: _Comparison) -> Iterator[str]:
    old, new = comparison.choices
    kinds = " -> ".join(" | ".join(map(_kind, side)) for side in (old, new))
    sent, accepted = (old, new) if comparison.direction.older_sends else (new, old)
    if _NULL in map(_kind, sent) and _NULL not in map(_kind, accepted):
        yield comparison.message(f"may be null: {kinds}")
    values = [[one for one in side if _kind(one) != _NULL] for side in (old, new)]
    if [len(side) for side in values] == [1, 1]:
        yield from _differences_of_one_type(comparison.at("", values[0][0], values[1][0]))
    elif not _all_accepted(comparison, *values):
        yield comparison.message(f"type {kinds}")


_NULL: Final = "null"


def _all_accepted(comparison: _Comparison, old: list[Schema], new: list[Schema]) -> bool:
    """Tell whether the receiver accepts each alternative of the sender."""
    if comparison.direction.older_sends:
        return all(any(_fits(comparison.at("", one, other)) for other in new) for one in old)
    return all(any(_fits(comparison.at("", other, one)) for other in old) for one in new)


def _fits(comparison: _Comparison) -> bool:
    return next(_differences_of_one_type(comparison), None) is None


def _differences_of_one_type(comparison: _Comparison) -> Iterator[str]:
    yield from _keywords(comparison)
    yield from _values(comparison)
    yield from _limits(comparison)
    yield from _fields(comparison)
    yield from _fields_by_pattern(comparison)
    for keyword, step in (("items", "[]"), ("additionalProperties", "{}")):
        old, new = comparison.old.get(keyword), comparison.new.get(keyword)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from _differences(comparison.at(step, old, new))
        elif old != new:
            yield comparison.change(keyword)


def _keywords(comparison: _Comparison) -> Iterator[str]:
    sent, accepted = comparison.sides
    for keyword in _EQUAL_KEYWORDS:
        if keyword in accepted and sent.get(keyword) != accepted[keyword]:
            yield comparison.change(keyword)
    unknown = (comparison.old.keys() | comparison.new.keys()) - _KNOWN
    for keyword in sorted(unknown.union(_ALTERNATIVES)):
        if comparison.old.get(keyword) != comparison.new.get(keyword):
            yield comparison.change(keyword)


def _values(comparison: _Comparison) -> Iterator[str]:
    sent, accepted = (_listed(schema) for schema in comparison.sides)
    if accepted is None:
        return
    if sent is None:
        yield comparison.message("only some values are taken: " + ", ".join(map(str, accepted)))
        return
    for value in sent:
        if value not in accepted:
            yield comparison.message(f"value {value!r} {comparison.direction.unknown}")


def _listed(schema: Schema) -> list[Any] | None:
    if "const" in schema:
        return [schema["const"]]
    return list(schema["enum"]) if "enum" in schema else None


def _limits(comparison: _Comparison) -> Iterator[str]:
    sent, accepted = comparison.sides
    for keyword in (*_MAX_KEYWORDS, *_MIN_KEYWORDS):
        sign = 1 if keyword in _MAX_KEYWORDS else -1
        if keyword not in accepted:
            continue
        if keyword not in sent or sign * sent[keyword] > sign * accepted[keyword]:
            yield comparison.change(keyword)


def _fields(comparison: _Comparison) -> Iterator[str]:
    old, new = (schema.get("properties", {}) for schema in (comparison.old, comparison.new))
    for name in sorted(old.keys() | new.keys()):
        field = comparison.at(f".{name}", old.get(name, {}), new.get(name, {}))
        if name in old and name in new:
            yield from _field_of_both(comparison, name, field)
        else:
            yield from _field_of_one(comparison, name, field)


def _fields_by_pattern(comparison: _Comparison) -> Iterator[str]:
    old, new = (side.get("patternProperties", {}) for side in (comparison.old, comparison.new))
    if old.keys() != new.keys():
        yield comparison.change("patternProperties")
        return
    for pattern, schema in old.items():
        yield from _differences(comparison.at("{}", schema, new[pattern]))


def _field_of_both(comparison: _Comparison, name: str, field: _Comparison) -> Iterator[str]:
    sent, accepted = (name in end.get("required", ()) for end in comparison.sides)
    if accepted and not sent:
        yield field.message("is needed, and may be left out")
    yield from _differences(field)
    if comparison.direction.strict and not accepted and _default(field.old) != _default(field.new):
        # default values are not sent, so both sides must have the same default
        yield field.change("default")


def _default(schema: Schema) -> Any:
    return schema.get("default", ...)


def _field_of_one(comparison: _Comparison, name: str, field: _Comparison) -> Iterator[str]:
    _, accepted = comparison.sides
    if name in accepted.get("properties", {}):
        # a newer sender must still send the field; an older one only if the receiver requires it
        existed = not comparison.direction.older_sends
        if existed or name in accepted.get("required", ()):
            yield field.message(comparison.direction.lacking)
    elif comparison.direction.strict:
        yield field.message("is not taken any more")


def _choices(schema: Schema, root: Schema) -> list[Schema]:
    """Return the alternatives of a schema, and of its alternatives.

    Beside `properties`, alternatives are conditions between fields; such a schema is one choice.
    """
    whole = resolve(schema, root)
    alternatives = [one for keyword in _ALTERNATIVES for one in whole.get(keyword, ())]
    if "properties" in whole or not alternatives:
        return [whole]
    return [choice for one in alternatives for choice in _choices(one, root)]


def _kind(schema: Schema) -> str:
    kind = str(schema.get("type", "anything"))
    return f"{kind} ({schema['format']})" if "format" in schema else kind


def resolve(schema: Schema, root: Schema) -> Schema:
    """Replace a reference by its target. Keywords next to the reference override the target."""
    while "$ref" in schema:
        target: Any = root
        for step in schema["$ref"].removeprefix("#/").split("/"):
            target = target[step]
        schema = {**target, **{key: value for key, value in schema.items() if key != "$ref"}}
    return schema
