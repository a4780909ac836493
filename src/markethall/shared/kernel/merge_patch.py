"""The fields of a JSON merge patch (RFC 7396), in which an absent field stays unchanged."""

from typing import Any

from pydantic import Field


def omittable_field() -> Any:
    """Declare a field of a merge patch that may be absent, but not null."""
    return Field(default=None)


def remove_null_defaults(schema: dict[str, Any]) -> None:
    """Remove the defaults from the schema of a merge patch.

    An absent field stays unchanged, so its default null would mislead clients.
    """
    for field in schema["properties"].values():
        field.pop("default", None)
