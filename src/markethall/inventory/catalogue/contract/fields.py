import re
from collections.abc import Iterable
from enum import StrEnum
from types import MappingProxyType
from typing import Annotated, Any, Final

from pydantic import AfterValidator, Field, PlainSerializer
from pydantic_core import PydanticCustomError

from markethall.shared.kernel.languages import LANGUAGE_TAG
from markethall.shared.kernel.model import Text, VisibleText, has_visible_character


class ProductStatus(StrEnum):
    """Status of a product. Customers see and buy only active products."""

    DRAFT = "draft"
    ACTIVE = "active"
    ARCHIVED = "archived"


class InventoryPolicy(StrEnum):
    """The rule for selling more units than the stock has.

    DENY: sell up to the product's backorder limit. CONTINUE: sell any number.
    """

    DENY = "deny"
    CONTINUE = "continue"


def frozen_as(serialized_type: Any) -> tuple[AfterValidator, PlainSerializer]:
    """Return the annotations of a mapping that cannot be changed, and its type as JSON."""
    freeze = AfterValidator(lambda values: MappingProxyType(dict(values)))
    return freeze, PlainSerializer(dict, return_type=serialized_type)


# in characters; not lower than in common shop systems, so that their catalogues can be imported
MAX_LABEL_LENGTH: Final = 255
MAX_TAG_LENGTH: Final = 255
Label = Annotated[VisibleText, Field(min_length=1, max_length=MAX_LABEL_LENGTH)]
Tag = Annotated[VisibleText, Field(min_length=1, max_length=MAX_TAG_LENGTH, examples=["green"])]
PATH_SEPARATOR: Final = " > "
# the character > and its fullwidth and small forms in Unicode
_SEPARATOR_PATTERN: Final = re.compile("[>\uff1e\ufe65]")
# Both limits are larger than those of Shopify's taxonomy. The length, in characters, is limited,
# because an index row of Postgres holds at most 2,700 bytes.
MAX_CATEGORY_DEPTH: Final = 20
MAX_CATEGORY_LENGTH: Final = 400


def split_path(text: str) -> tuple[str, ...]:
    """Split a path such as "Drinks > Tea" into names. A text without a separator is one name."""
    names = (part.strip() for part in _SEPARATOR_PATTERN.split(text))
    return tuple(name for name in names if has_visible_character(name)) or (text.strip(),)


def join_path(names: Iterable[str]) -> str:
    return PATH_SEPARATOR.join(names)


def _normalize_path(text: str) -> str:
    names = split_path(text)
    if len(names) > MAX_CATEGORY_DEPTH:
        raise PydanticCustomError(
            "too_deep", "must have at most {limit} names", {"limit": MAX_CATEGORY_DEPTH}
        )
    path = join_path(names)
    if len(path) > MAX_CATEGORY_LENGTH or max(map(len, names)) > MAX_LABEL_LENGTH:
        message = "should have at most {path} characters, and each name of it at most {name}"
        limits = {"path": MAX_CATEGORY_LENGTH, "name": MAX_LABEL_LENGTH}
        raise PydanticCustomError("path_too_long", message, limits)
    return path


# a text that names a category: its key, its path such as "Drinks > Tea", or its name
CategoryPath = Annotated[
    VisibleText,
    Field(min_length=1, max_length=MAX_CATEGORY_LENGTH),
    AfterValidator(_normalize_path),
]
_LANGUAGE_PATTERN: Final = f"^{LANGUAGE_TAG}$"
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
