"""Field types of products, categories and product lists."""

from enum import StrEnum
from typing import Annotated, Any, Final

from pydantic import Field

from markethall.shared.kernel.model import Text, VisibleText


class ProductStatus(StrEnum):
    """Status of a product. Customers see and buy only active products."""

    DRAFT = "draft"
    ACTIVE = "active"
    ARCHIVED = "archived"


class InventoryPolicy(StrEnum):
    """Quantity that can be sold without stock: up to the backorder limit, or without limit."""

    DENY = "deny"
    CONTINUE = "continue"


# at least as wide as the limits of the shops that people come from
MAX_LABEL_LENGTH: Final = 255
MAX_TAG_LENGTH: Final = 255
Label = Annotated[VisibleText, Field(min_length=1, max_length=MAX_LABEL_LENGTH)]
Tag = Annotated[VisibleText, Field(min_length=1, max_length=MAX_TAG_LENGTH, examples=["green"])]
# a language tag of BCP 47 (RFC 5646): language, script, region, variants
_LANGUAGE_PATTERN: Final = r"^[a-z]{2,3}(-[A-Z][a-z]{3})?(-([A-Z]{2}|[0-9]{3}))?(-[a-z0-9]{5,8})*$"
MAX_LANGUAGES: Final = 50
Language = Annotated[
    Text,
    Field(
        max_length=35,
        pattern=_LANGUAGE_PATTERN,
        json_schema_extra={"pattern": _LANGUAGE_PATTERN},
        examples=["de"],
    ),
]


def omittable_field() -> Any:
    """Declare a field of a merge patch that may be absent, but not null."""
    return Field(default=None)


def remove_null_defaults(schema: dict[str, Any]) -> None:
    """Remove `default: null` from the JSON schema, because an absent field is not set to null."""
    for field in schema["properties"].values():
        field.pop("default", None)
