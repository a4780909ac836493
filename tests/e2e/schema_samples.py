"""Builds sample values of an OpenAPI schema, and copies with one hostile value."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Path = tuple[str | int, ...]
Schema = Mapping[str, Any]

# raw texts that replace a value in a JSON body; most are invalid JSON or out-of-range numbers
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
class ValuePosition:
    """The position of a value in a sample, and the JSON types that its schema allows."""

    path: Path
    types: frozenset[str]


class Samples:
    """Builds samples of a schema, with ids of existing entities."""

    def __init__(self, document: Schema, ids: Mapping[str, str]) -> None:
        self._schemas = document["components"]["schemas"]
        self._ids = ids

    def resolve(self, schema: Schema) -> Schema:
        while "$ref" in schema:
            schema = self._schemas[schema["$ref"].rpartition("/")[2]]
        return schema

    def branches(self, schema: Schema) -> list[Schema]:
        schema = self.resolve(schema)
        parts = schema.get("anyOf") or schema.get("oneOf")
        if not parts:
            return [schema]
        return [branch for part in parts for branch in self.branches(part)]

    def sample(self, schema: Schema, name: str = "") -> Any:
        schema = next((b for b in self.branches(schema) if b.get("type") != "null"), {})
        if name in self._ids:
            return self._ids[name]
        for keyword in ("examples", "enum"):
            if schema.get(keyword):
                return schema[keyword][0]
        return self._plain(schema, name)

    def _plain(self, schema: Schema, name: str) -> Any:
        match schema.get("type"):
            case "object":
                fields = schema.get("properties", {})
                return {
                    field: self.sample(schema_of_field, field)
                    for field, schema_of_field in fields.items()
                }
            case "array":
                return [self.sample(schema["items"], name)]
            case "integer":
                return max(1, int(schema.get("minimum", 1)))
            case "boolean":
                return True
            case _:
                return schema.get("const", "a sample of text")

    def positions(self, schema: Schema, value: Any, path: Path = ()) -> Iterator[ValuePosition]:
        """Yield every position in the value, outermost first."""
        branches = self.branches(schema)
        yield ValuePosition(
            path,
            frozenset(schema_of_field for branch in branches for schema_of_field in _types(branch)),
        )
        if isinstance(value, dict):
            fields = {k: v for branch in branches for k, v in branch.get("properties", {}).items()}
            # iterate in the order of the schema: an ordinary run sends every eighth attack, which
            # must be the same attacks each time
            for name in filter(value.__contains__, fields):
                yield from self.positions(fields[name], value[name], (*path, name))
        elif isinstance(value, list) and value:
            items: Schema = next((branch["items"] for branch in branches if "items" in branch), {})
            yield from self.positions(items, value[0], (*path, 0))


def _types(schema: Schema) -> list[str]:
    if "const" in schema or "enum" in schema:
        return [type_of(value) for value in schema.get("enum", [schema.get("const")])]
    # a schema without a type allows any value
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


def wrong_type(position: ValuePosition, value: Any) -> bool:
    return not position.types & {type_of(value), "anything"}


def with_value(sample: Any, path: Path, value: Any) -> Any:
    """Return a copy of the sample with one value replaced."""
    if not path:
        return value
    first, *rest = path
    copy: Any = list(sample) if isinstance(sample, list) else dict(sample)
    copy[first] = with_value(sample[first], tuple(rest), value)
    return copy


def without(sample: dict[str, Any], name: str) -> dict[str, Any]:
    return {field: value for field, value in sample.items() if field != name}
