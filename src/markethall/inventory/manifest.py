from typing import TYPE_CHECKING, Final

from markethall.inventory.settings import InventorySettings
from markethall.shared.composition.manifest import ContextManifest, built_in_migrations

if TYPE_CHECKING:
    from sqlalchemy import MetaData

    from markethall.inventory.container import InventoryContainer
    from markethall.shared.composition.parts import ContextParts


def _load_parts() -> "ContextParts[InventoryContainer]":
    from markethall.inventory.container import InventoryContainer
    from markethall.inventory.contract import Inventory
    from markethall.inventory.remote import GuardedInventory, RemoteInventory, routes
    from markethall.inventory.router import router
    from markethall.shared.composition.parts import ContextParts, InternalApi

    internal_api: InternalApi[InventoryContainer, Inventory] = InternalApi(
        routes=routes,
        local=lambda container: container.inventory(),
        remote=RemoteInventory,
        guarded=GuardedInventory,
    )
    return ContextParts(InventoryContainer, router, internal_api)


def _load_metadata() -> "MetaData":
    from markethall.inventory.sql import metadata

    return metadata


_FILTERS: Final = frozenset({"category", "tag", "option.", "attribute."})

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
        "media",
        "exports",
        "reservations",
    ),
    tags={
        "inventory": "Products, categories, search, warehouses, stock, reservations and imports.",
    },
    migrations=built_in_migrations("inventory"),
    settings=InventorySettings,
    load_parts=_load_parts,
    load_metadata=_load_metadata,
    search_parameters=dict.fromkeys(("/products", "/families"), frozenset({"q", "facets"})),
    facet_parameters=dict.fromkeys(("/products", "/families"), frozenset({"facets"})),
    repeatable_parameters={"/products": _FILTERS, "/families": _FILTERS},
    long_paths=(r"/imports/[^/]+/events", r"/exports/[^/]+"),
    counters=("product_count",),
)
