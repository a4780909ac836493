"""The installed contexts: the four built-in ones, and those of other Python packages.

A package adds a context by an entry point in the group `markethall.contexts` that names its
manifest; see docs/writing-a-context.md.
"""

from functools import cache
from importlib.metadata import entry_points
from typing import Final

from markethall.inventory.manifest import MANIFEST as INVENTORY
from markethall.orders.manifest import MANIFEST as ORDERS
from markethall.payments.manifest import MANIFEST as PAYMENTS
from markethall.shared.composition.manifest import ContextManifest
from markethall.shared.composition.topology import InvalidManifest, Topology
from markethall.users.manifest import MANIFEST as USERS

ENTRY_POINT_GROUP: Final = "markethall.contexts"
BUILT_IN_CONTEXTS: Final = (USERS, INVENTORY, ORDERS, PAYMENTS)


@cache
def topology() -> Topology:
    """Return the relations between all installed contexts. Raises InvalidManifest."""
    return Topology((*BUILT_IN_CONTEXTS, *_additional_contexts()))


def context_names() -> tuple[str, ...]:
    return topology().names


def _additional_contexts() -> list[ContextManifest]:
    manifests = []
    for entry_point in sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda e: e.name):
        manifest = entry_point.load()
        if not isinstance(manifest, ContextManifest):
            raise InvalidManifest(f"{entry_point.value} is not a ContextManifest")
        manifests.append(manifest)
    return manifests
