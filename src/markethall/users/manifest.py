"""The manifest of users."""

from typing import TYPE_CHECKING, Final

from markethall.shared.composition.manifest import ContextManifest
from markethall.shared.composition.migrations import built_in_migrations

if TYPE_CHECKING:
    from sqlalchemy import MetaData


def _load_metadata() -> "MetaData":
    from markethall.users.sql import metadata

    return metadata


MANIFEST: Final = ContextManifest(
    name="users",
    path_prefixes=(
        "users",
        "token",
        ".well-known",
    ),
    migrations=built_in_migrations("users"),
    load_metadata=_load_metadata,
    issues_access_tokens=True,
)
