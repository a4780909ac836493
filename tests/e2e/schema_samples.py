"""Samples of what OpenAPI describes, and every way to spoil one value of them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Path = tuple[str | int, ...]
Schema = Mapping[str, Any]

# JSON text that no Python value stands for; it replaces the value as it is
RAW = ("NaN", "Infinity", "1e999", "1E400000", "-0", "0x10", "01", "1.", "9" * 5000, "'a'", "")

HOSTILE: tuple[Any, ...] = (
    None, True, 0, -1, 1, 2**31, 2**53 + 1, 2**63, 2**64, 10**40, -(10**40), 1.0, 1.5, 1e308,
    "", " ", "1", "1.0", "true", "null", "\x00", "a\x00b", "\ud800", "\udfff\ud800", "a" * 20_000,
    "😀" * 300, "\u202e\u0000", "'; DROP TABLE users; --", "%s%n{0}${jndi:ldap://x}", "<script>",
    "../../../etc/passwd", "0" * 36, "01890000-0000-7000-8000-000000000000",
    "\u0131\u0307\u0130ß\ufb01",
    "9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59", "infinity", "http://[::1", "a@b@c",
    [], [[]], [None], {}, {"a": 1}, {"": {}}, [[[[[[]]]]]], ["x"] * 2_000,
    {str(number): number for number in range(2_000)},
)  # fmt: skip


@dataclass(frozen=True)
class Place:
    """A value inside a sample, and which JSON types its schema admits there."""

    path: Path
    types: frozenset[str]


class Samples:
    """Builds what a schema describes, with the ids of things that exist."""

    def __init__(self, document: Schema, ids: Mapping[str, str]) -> None:
        self._schemas = document["components"]["schemas"]
        self._ids = ids

    def resolved(self, schema: Schema) -> Schema:
        while "$ref" in schema:
            schema = self._schemas[schema["$ref"].rpartition("/")[2]]
        return schema

    def branches(self, schema: Schema) -> list[Schema]:
        schema = self.resolved(schema)
        parts = schema.get("anyOf") or schema.get("oneOf")
        if not parts:
            return [schema]
        return [branch for part in parts for branch in self.branches(part)]

    def sample(self, schema: Schema, name: str = "") -> Any:
        schema = next((b for b in self.branches(schema) if b.get("type") != "null"), {})
        if name in self._ids:
            return self._ids[name]
        for given in ("examples", "enum"):
            if schema.get(given):
                return schema[given][0]
        return self._plain(schema, name)

    def _plain(self, schema: Schema, name: str) -> Any:
        match schema.get("type"):
            case "object":
                fields = schema.get("properties", {})
                return {field: self.sample(kind, field) for field, kind in fields.items()}
            case "array":
                return [self.sample(schema["items"], name)]
            case "integer":
                return max(1, int(schema.get("minimum", 1)))
            case "boolean":
                return True
            case _:
                return schema.get("const", "a sample of text")

    def places(self, schema: Schema, value: Any, path: Path = ()) -> Iterator[Place]:
        """Every place in the value, from the outermost inwards."""
        branches = self.branches(schema)
        yield Place(path, frozenset(kind for branch in branches for kind in _types(branch)))
        if isinstance(value, dict):
            fields = {k: v for branch in branches for k, v in branch.get("properties", {}).items()}
            # in one order: which attacks an ordinary run leaves out is no chance
            for name in filter(value.__contains__, fields):
                yield from self.places(fields[name], value[name], (*path, name))
        elif isinstance(value, list) and value:
            items: Schema = next((branch["items"] for branch in branches if "items" in branch), {})
            yield from self.places(items, value[0], (*path, 0))


def _types(schema: Schema) -> list[str]:
    if "const" in schema or "enum" in schema:
        return [type_of(value) for value in schema.get("enum", [schema.get("const")])]
    # without a type, anything goes
    return [schema["type"]] if "type" in schema else ["anything"]


def type_of(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "number"
        case str():
            return "string"
        case list():
            return "array"
        case _:
            return "object"


def wrong_type(place: Place, value: Any) -> bool:
    return not place.types & {type_of(value), "anything"}


def spoiled(sample: Any, path: Path, value: Any) -> Any:
    """A copy of the sample with one value replaced."""
    if not path:
        return value
    first, *rest = path
    copy: Any = list(sample) if isinstance(sample, list) else dict(sample)
    copy[first] = spoiled(sample[first], tuple(rest), value)
    return copy


def without(sample: dict[str, Any], name: str) -> dict[str, Any]:
    return {field: value for field, value in sample.items() if field != name}
