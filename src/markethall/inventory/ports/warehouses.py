"""What warehouses need from the outside."""

from collections.abc import Sequence
from typing import Protocol
from uuid import UUID

from markethall.inventory.domain import Depot


class Depots(Protocol):
    """Reads. Each is one statement that takes no lock."""

    async def find_depot(self, warehouse_id: UUID) -> Depot | None: ...

    async def depots(self, after: tuple[int, UUID] | None, limit: int) -> Sequence[Depot]:
        """By priority and id, beyond that place."""


class DepotStore(Depots, Protocol):
    """Reads and writes of one transaction."""

    async def add_depot(self, depot: Depot) -> bool:
        """False when its id is taken."""

    async def depot(self, warehouse_id: UUID) -> Depot | None:
        """Locked until the end of the transaction: no goods come in meanwhile."""

    async def open_depot(self, warehouse_id: UUID) -> Depot | None:
        """It is neither changed nor deleted until the end of the transaction."""

    async def has_goods(self, warehouse_id: UUID) -> bool:
        """Are any on hand, or reserved?"""

    async def has_shelves(self, warehouse_id: UUID) -> bool:
        """Were goods ever there?"""

    async def save_depot(self, depot: Depot) -> None: ...

    async def remove_depot(self, warehouse_id: UUID) -> None: ...
