"""The manifest of payments."""

from typing import TYPE_CHECKING, Final

from markethall.shared.composition.manifest import ContextManifest
from markethall.shared.composition.migrations import built_in_migrations

if TYPE_CHECKING:
    from sqlalchemy import MetaData


def _load_metadata() -> "MetaData":
    from markethall.payments.sql import metadata

    return metadata


MANIFEST: Final = ContextManifest(
    name="payments",
    path_prefixes=(
        "payments",
        "transactions",
        "ledger",
    ),
    migrations=built_in_migrations("payments"),
    load_metadata=_load_metadata,
)
