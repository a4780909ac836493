"""Base classes of Pydantic models, and field types."""

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Self
from uuid import UUID

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    ModelWrapValidatorHandler,
    ValidationError,
    model_validator,
)
from pydantic.config import JsonDict
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError

# a request with more errors gets a single error, because each error takes a hundred times the
# memory of its input
MAX_ERRORS: Final = 50

# a key of `json_schema_extra`: the response omits the fields of this model that are null
OMITS_NULL: Final = "x-omits-null"


# The base classes have `defer_build`: a model is built at its first use, because a process uses few
# of its models, and building all of them takes a tenth of the start.


class Dto(BaseModel):
    """Base class of DTOs between contexts. Immutable; ignores unknown fields of a newer sender."""

    model_config = ConfigDict(
        frozen=True, extra="ignore", ser_json_bytes="base64", defer_build=True
    )


class QueryModel(BaseModel):
    """Base class of query parameters. Immutable; rejects unknown parameters."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class RequestModel(BaseModel):
    """Base class of the request bodies of clients.

    It rejects unknown fields. More than MAX_ERRORS errors become one error. Fields that are
    sequences have `fail_fast=True`, so that validation stops at the first invalid element.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    @model_validator(mode="wrap")
    @classmethod
    def _limit_errors(cls, value: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return handler(value)
        except ValidationError as error:
            raise limited_error(error) from None


def exactly_one_of(**types: str) -> JsonDict:
    """Return a part of a JSON schema that requires exactly one of these fields not to be null.

    `types` names the JSON type of each field.
    """
    return {
        "anyOf": [
            {
                "required": [name],
                "properties": {
                    field: {"type": kind if field == name else "null"}
                    for field, kind in types.items()
                },
            }
            for name in types
        ]
    }


def limited_error(error: ValidationError) -> Exception:
    """Return the error, or a short one if it contains more than MAX_ERRORS errors."""
    if error.error_count() <= MAX_ERRORS:
        return error
    return PydanticCustomError(
        "too_many_errors", "has more than {limit} errors", {"limit": MAX_ERRORS}
    )


def _reject_nul_and_surrogates(text: str) -> str:
    if "\x00" in text:
        raise ValueError("must not contain a NUL character")
    if not text.isascii():
        text.encode()  # raises UnicodeEncodeError, a ValueError, for a lone surrogate
    return text


# The first and last character of each range of invisible characters. Invisible are the categories
# Z, Cc and Cf of Unicode 16: separators, control characters and format characters such as the zero
# width space. The Hangul fillers and the empty Braille pattern are drawn as a space, so they are
# included too.
_INVISIBLE_RANGES: Final = (
    "\x00\x20", "\x7f\xa0", "\xad", "\u0600\u0605", "\u061c", "\u06dd",
    "\u070f", "\u0890\u0891", "\u08e2", "\u115f\u1160", "\u1680",
    "\u180e", "\u2000\u200f", "\u2028\u202f", "\u205f\u2064", "\u2066\u206f",
    "\u2800", "\u3000", "\u3164", "\ufeff", "\uffa0",
    "\ufff9\ufffb", "\U000110bd", "\U000110cd", "\U00013430\U0001343f",
    "\U0001bca0\U0001bca3", "\U0001d173\U0001d17a", "\U000e0001",
    "\U000e0020\U000e007f",
)  # fmt: skip


_INVISIBLE_CHARACTERS: Final = "".join(
    "-".join(map(re.escape, limits)) for limits in _INVISIBLE_RANGES
)
# The documented character class leaves out characters beyond the Basic Multilingual Plane. Python,
# ECMAScript and Rust have no common escape for them, and ECMAScript without the flag `u` rejects
# ranges of them. So the documented pattern accepts a few texts that the validator rejects.
_DOCUMENTED_INVISIBLE_CHARACTERS: Final = "".join(
    "-".join(f"\\u{ord(character):04x}" for character in limits)
    for limits in _INVISIBLE_RANGES
    if limits <= "\uffff"
)
_TEXT_PATTERN: Final = r"^[^\u0000]*$"
_VISIBLE_TEXT_PATTERN: Final = rf"^[^\u0000]*[^{_DOCUMENTED_INVISIBLE_CHARACTERS}][^\u0000]*$"
_VISIBLE_CHARACTER: Final = re.compile(f"[^{_INVISIBLE_CHARACTERS}]")


class DocumentedPattern:
    """Annotation of a text type: the pattern that its validator implies, for the JSON schema.

    A field that declares its own pattern keeps that pattern.
    """

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern

    def __get_pydantic_json_schema__(
        self, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {"pattern": self._pattern} | handler(core_schema)


def has_visible_character(text: str) -> bool:
    return _VISIBLE_CHARACTER.search(text) is not None


def _require_visible_character(text: str) -> str:
    # an empty text is accepted here, because `min_length` of the field rejects it
    if text and not has_visible_character(text):
        raise PydanticCustomError("blank", "must have a visible character")
    return text


_UUID_LENGTH: Final = 36


def _require_canonical_uuid(value: Any) -> Any:
    if isinstance(value, str) and (len(value) != _UUID_LENGTH or value[8] != "-"):
        raise ValueError("must be a UUID in its 36 character form")
    return value


_ISO_DATE_PREFIX: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ]")


def _require_iso_string(value: Any) -> Any:
    if not isinstance(value, str | datetime) or (
        # Pydantic would read a number in quotes as seconds or milliseconds since 1970
        isinstance(value, str) and not _ISO_DATE_PREFIX.match(value)
    ):
        raise ValueError("must be a time in ISO 8601, with its offset")
    return value


def _to_utc(value: datetime) -> datetime:
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise PydanticCustomError(
            "year_out_of_range", "must lie in the years 1 to 9999, in UTC too"
        ) from None


_StorableText = Annotated[str, Field(strict=True), AfterValidator(_reject_nul_and_surrogates)]
Text = Annotated[_StorableText, DocumentedPattern(_TEXT_PATTERN)]
# a text with at least one visible character, such as a name
VisibleText = Annotated[
    _StorableText,
    AfterValidator(_require_visible_character),
    DocumentedPattern(_VISIBLE_TEXT_PATTERN),
]
Int = Annotated[int, Field(strict=True)]
Bool = Annotated[bool, Field(strict=True)]
# a time with an offset (RFC 3339), converted to UTC
UtcDatetime = Annotated[
    AwareDatetime, BeforeValidator(_require_iso_string), AfterValidator(_to_utc)
]
Id = Annotated[UUID, BeforeValidator(_require_canonical_uuid)]

# in minor units; far below the limit of BIGINT, so that sums of many amounts fit too
MAX_AMOUNT = 10**15
