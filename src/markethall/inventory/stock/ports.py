"""Storage of stock and warehouses, and the expiry of reservations, as Protocols."""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol, TypeVar
from uuid import UUID

from markethall.inventory.stock.contract import Movement
from markethall.inventory.stock.domain import Stock, StockChange, Warehouse
from markethall.shared.idempotency.records import IdempotentCommand

T = TypeVar("T")


class ReadStore(Protocol):
    """Reads. Each is one statement that takes no lock."""

    async def get_product_stock(self, product_id: UUID, now: datetime) -> Sequence[Stock]:
        """Return one row per warehouse; nothing when the product does not exist."""

    async def get_warehouse_stock(
        self, product_ids: Collection[UUID], warehouse_id: UUID, now: datetime
    ) -> Sequence[Stock]:
        """Return the rows of these products in this warehouse, in product id order."""

    async def get_on_hand_at(self, product_id: UUID, at: datetime) -> Mapping[UUID, int]:
        """Return the units on hand at that time by warehouse, in warehouse id order."""

    async def list_movements(
        self, product_id: UUID, before: int | None, limit: int
    ) -> Sequence[tuple[int, Movement]]:
        """Return movements with their numbers, the newest first, below the number `before`."""

    async def get_movement(self, movement_id: UUID) -> Movement | None: ...

    async def list_movements_by_reference(self, reference: UUID) -> Sequence[Movement]:
        """Return the movements of one fulfilment, transfer or stocktake."""

    async def get_skus(
        self, product_ids: Collection[UUID], skus: Collection[str]
    ) -> Mapping[UUID, str]:
        """Return the SKUs by id of products that have one of these ids or SKUs (ignoring case)."""

    async def get_warehouse(self, warehouse_id: UUID) -> Warehouse | None: ...

    async def list_warehouses(
        self, after: tuple[int, UUID] | None, limit: int
    ) -> Sequence[Warehouse]:
        """Return warehouses by priority and id, later than `after`."""


class Store(ReadStore, Protocol):
    """Reads and writes of one transaction."""

    async def apply_changes(self, changes: Sequence[StockChange]) -> Sequence[Movement]:
        """Change the units on hand; the only way to do so.

        Each stock row at most once, and all changes for the same reason. Rows are locked in the
        order of product ids and then of warehouse ids. Left out are changes that are recorded
        already, that have no stock row, or that would leave less on hand than is reserved.
        """

    async def ensure_stock_rows(self, product_ids: Collection[UUID], warehouse_id: UUID) -> None:
        """Insert empty rows for the existing products that have none in this warehouse."""

    async def insert_warehouse(self, warehouse: Warehouse) -> bool:
        """Insert the warehouse. False when its id is taken."""

    async def get_warehouse_for_update(self, warehouse_id: UUID) -> Warehouse | None:
        """Lock the warehouse until the end of the transaction: no stock row is added meanwhile."""

    async def get_warehouse_for_share(self, warehouse_id: UUID) -> Warehouse | None:
        """Keep others from changing or deleting it until the end of the transaction."""

    async def has_stock(self, warehouse_id: UUID) -> bool:
        """Whether units are on hand or reserved there."""

    async def has_stock_rows(self, warehouse_id: UUID) -> bool:
        """Whether there were ever units."""

    async def save_warehouse(self, warehouse: Warehouse) -> None: ...

    async def delete_warehouse(self, warehouse_id: UUID) -> None: ...

    async def store_response(self, attempt: IdempotentCommand, result: Any) -> None:
        """Keep the response under the command's key. Raises LeaseLost."""


class ReservationExpiry(Protocol):
    """Releases the stock of expired reservations at once, for a caller that needs it."""

    async def run_after_expiring(self, work: Callable[[Store], Awaitable[T]]) -> T:
        """Run the work in a transaction; once more after expiring reservations that block it.

        `work` raises InsufficientStock; this raises its `error`.
        """

    async def expire_reservations(self, product_ids: Collection[UUID] | None) -> None:
        """Expire overdue reservations of these products, or all."""
