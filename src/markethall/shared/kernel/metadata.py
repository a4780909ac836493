"""Metadata: texts by name, which users attach to a resource. The application ignores them."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Final

from pydantic import AfterValidator, Field, PlainSerializer

from markethall.shared.kernel.errors import ValidationFailed
from markethall.shared.kernel.model import Text

MAX_METADATA_ENTRIES: Final = 50
MAX_METADATA_NAME_LENGTH: Final = 40
MAX_METADATA_LENGTH: Final = 500
_METADATA_NAME_PATTERN: Final = "^[A-Za-z0-9_.-]+$"

MetadataName = Annotated[
    Text,
    Field(
        min_length=1,
        max_length=MAX_METADATA_NAME_LENGTH,
        pattern=_METADATA_NAME_PATTERN,
        json_schema_extra={"pattern": _METADATA_NAME_PATTERN},
    ),
]
MetadataValue = Annotated[Text, Field(max_length=MAX_METADATA_LENGTH)]
# a JSON merge patch (RFC 7396): null removes an entry
MetadataPatch = Annotated[
    dict[MetadataName, MetadataValue | None],
    Field(max_length=MAX_METADATA_ENTRIES, examples=[{"season": "spring"}]),
]
FrozenMetadata = Annotated[
    Mapping[str, str],
    AfterValidator(lambda texts: MappingProxyType(dict(texts))),
    PlainSerializer(dict, return_type=dict[str, str]),
]


def merge_metadata(
    current: Mapping[str, str], patch: Mapping[str, str | None]
) -> Mapping[str, str]:
    """Return the metadata after the patch, sorted by name.

    Raises ValidationFailed if it has more than MAX_METADATA_ENTRIES entries.
    """
    combined = {**current, **patch}
    merged = {name: combined[name] for name in sorted(combined) if combined[name] is not None}
    if len(merged) > MAX_METADATA_ENTRIES:
        message = f"should have at most {MAX_METADATA_ENTRIES} after the change"
        raise ValidationFailed(
            errors=[{"field": "/metadata", "code": "too_long", "message": message}]
        )
    return {name: text for name, text in merged.items() if text is not None}
