"""The manifest of inventory."""

from typing import TYPE_CHECKING, Final

from markethall.shared.composition.manifest import ContextManifest
from markethall.shared.composition.migrations import built_in_migrations

if TYPE_CHECKING:
    from sqlalchemy import MetaData


def _load_metadata() -> "MetaData":
    from markethall.inventory.sql import metadata

    return metadata


MANIFEST: Final = ContextManifest(
    name="inventory",
    path_prefixes=(
        "products",
        "categories",
        "families",
        "warehouses",
        "stock-transfers",
        "stocktakes",
        "imports",
        "exports",
        "reservations",
    ),
    migrations=built_in_migrations("inventory"),
    load_metadata=_load_metadata,
)
