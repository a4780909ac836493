"""What one end of the wire may send and the other does not take, by two JSON schemas.

The older and the newer schema are of two releases; which of them sends depends on the direction.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

Schema = Mapping[str, Any]


@dataclass(frozen=True)
class Direction:
    """`strict`: the reader takes nothing unknown, and what is a default is not sent."""

    older_sends: bool
    strict: bool
    # what is said of a field and of a value that one end does not know
    lacking: str
    unknown: str


REQUEST: Final = Direction(True, True, "is new and required", "is not taken any more")
ANSWER: Final = Direction(
    False, False, "is not there any more", "is new, and an older one cannot read it"
)
# the same, from an older neighbour to a newer one
ANSWER_OF_OLDER: Final = Direction(
    True,
    False,
    "is new and has no default, and an older one does not send it",
    "is gone, and an older one still sends it",
)

_AT_MOST: Final = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")
_AT_LEAST: Final = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
# the reader's are the sender's, or the reader has none
_SAME: Final = ("type", "format", "pattern")
_FOR_PEOPLE: Final = ("title", "description", "examples", "example", "deprecated")
# looked at below; any other word that differs is a break, for who knows what it means
_KNOWN: Final = frozenset(
    {*_AT_MOST, *_AT_LEAST, *_SAME, *_FOR_PEOPLE, "$defs", "default", "enum", "const", "anyOf"}
    | {"properties", "required", "items", "additionalProperties"}
)


def compared(
    name: str, old: Schema, new: Schema, roots: tuple[Schema, Schema], direction: Direction
) -> Iterator[str]:
    """A line for each break. `roots` are the documents that references are looked up in."""
    yield from _differences(_Place(name, "", old, new, roots, direction))


@dataclass(frozen=True)
class _Place:
    """Where two schemas are compared."""

    name: str
    path: str
    old: Schema
    new: Schema
    roots: tuple[Schema, Schema]
    direction: Direction

    @property
    def ends(self) -> tuple[Schema, Schema]:
        """What the sender may send, and what the reader takes."""
        return (self.old, self.new) if self.direction.older_sends else (self.new, self.old)

    @property
    def choices(self) -> tuple[list[Schema], list[Schema]]:
        """Of the older and of the newer one: which kinds of values there may be."""
        old, new = (_choices(s, r) for s, r in zip((self.old, self.new), self.roots, strict=True))
        return old, new

    def at(self, step: str, old: Schema, new: Schema) -> "_Place":
        path = (self.path + step).removeprefix(".")
        return replace(self, path=path, old=old, new=new)

    def says(self, what: str) -> str:
        return f"{self.name} {self.path}: {what}" if self.path else f"{self.name}s: {what}"

    def change(self, keyword: str) -> str:
        sides = (_told(side.get(keyword, "none")) for side in (self.old, self.new))
        return self.says(f"{keyword} " + " -> ".join(sides))


def _told(value: Any) -> str:
    """FastAPI writes whole numbers as 1.0."""
    return str(int(value) if isinstance(value, float) and value.is_integer() else value)


def _differences(place: _Place) -> Iterator[str]:
    old, new = place.choices
    kinds = " -> ".join(" | ".join(map(_kind, side)) for side in (old, new))
    sent, taken = (old, new) if place.direction.older_sends else (new, old)
    if _NULL in map(_kind, sent) and _NULL not in map(_kind, taken):
        yield place.says(f"may be null: {kinds}")
    values = [[one for one in side if _kind(one) != _NULL] for side in (old, new)]
    if [len(side) for side in values] == [1, 1]:
        yield from _of_one_kind(place.at("", values[0][0], values[1][0]))
    elif not _all_taken(place, *values):
        yield place.says(f"type {kinds}")


_NULL: Final = "null"


def _all_taken(place: _Place, old: list[Schema], new: list[Schema]) -> bool:
    """Whether each of the sender's kinds is one of the reader's."""
    if place.direction.older_sends:
        return all(any(_fits(place.at("", one, other)) for other in new) for one in old)
    return all(any(_fits(place.at("", other, one)) for other in old) for one in new)


def _fits(place: _Place) -> bool:
    return next(_of_one_kind(place), None) is None


def _of_one_kind(place: _Place) -> Iterator[str]:
    yield from _words(place)
    yield from _values(place)
    yield from _limits(place)
    yield from _fields(place)
    for keyword, step in (("items", "[]"), ("additionalProperties", "{}")):
        old, new = place.old.get(keyword), place.new.get(keyword)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from _differences(place.at(step, old, new))
        elif old != new:
            yield place.change(keyword)


def _words(place: _Place) -> Iterator[str]:
    sent, taken = place.ends
    for keyword in _SAME:
        if keyword in taken and sent.get(keyword) != taken[keyword]:
            yield place.change(keyword)
    for keyword in sorted((place.old.keys() | place.new.keys()) - _KNOWN):
        if place.old.get(keyword) != place.new.get(keyword):
            yield place.change(keyword)


def _values(place: _Place) -> Iterator[str]:
    sent, taken = (_listed(schema) for schema in place.ends)
    if taken is None:
        return
    if sent is None:
        yield place.says("only some values are taken: " + ", ".join(map(str, taken)))
        return
    for value in sent:
        if value not in taken:
            yield place.says(f"value {value!r} {place.direction.unknown}")


def _listed(schema: Schema) -> list[Any] | None:
    if "const" in schema:
        return [schema["const"]]
    return list(schema["enum"]) if "enum" in schema else None


def _limits(place: _Place) -> Iterator[str]:
    sent, taken = place.ends
    for keyword in (*_AT_MOST, *_AT_LEAST):
        sign = 1 if keyword in _AT_MOST else -1
        if keyword not in taken:
            continue
        if keyword not in sent or sign * sent[keyword] > sign * taken[keyword]:
            yield place.change(keyword)


def _fields(place: _Place) -> Iterator[str]:
    old, new = (schema.get("properties", {}) for schema in (place.old, place.new))
    for name in sorted(old.keys() | new.keys()):
        field = place.at(f".{name}", old.get(name, {}), new.get(name, {}))
        if name in old and name in new:
            yield from _field_of_both(place, name, field)
        else:
            yield from _field_of_one(place, name, field)


def _field_of_both(place: _Place, name: str, field: _Place) -> Iterator[str]:
    sent, taken = (name in end.get("required", ()) for end in place.ends)
    if taken and not sent:
        yield field.says("is needed, and may be left out")
    yield from _differences(field)
    if place.direction.strict and not taken and _default(field.old) != _default(field.new):
        # what is a default is not sent, so both ends must mean the same by silence
        yield field.change("default")


def _default(schema: Schema) -> Any:
    return schema.get("default", ...)


def _field_of_one(place: _Place, name: str, field: _Place) -> Iterator[str]:
    _, taken = place.ends
    if name in taken.get("properties", {}):
        # an answer is read with what it lacks only if nobody ever had it
        was_there = not place.direction.older_sends
        if was_there or name in taken.get("required", ()):
            yield field.says(place.direction.lacking)
    elif place.direction.strict:
        yield field.says("is not taken any more")


def _choices(schema: Schema, root: Schema) -> list[Schema]:
    whole = resolved(schema, root)
    return [resolved(one, root) for one in whole.get("anyOf", (whole,))]


def _kind(schema: Schema) -> str:
    kind = str(schema.get("type", "anything"))
    return f"{kind} ({schema['format']})" if "format" in schema else kind


def resolved(schema: Schema, root: Schema) -> Schema:
    """What it refers to, with the words that stand beside the reference."""
    while "$ref" in schema:
        target: Any = root
        for step in schema["$ref"].removeprefix("#/").split("/"):
            target = target[step]
        schema = {**target, **{key: value for key, value in schema.items() if key != "$ref"}}
    return schema
