from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import Protocol, TypeVar
from uuid import UUID

from markethall.inventory.stock.contract import Movement
from markethall.inventory.stock.domain import Stock, StockChange, Warehouse
from markethall.shared.idempotency.records import ResponseStore

T = TypeVar("T")


class ReadStore(Protocol):
    """Reads without locks. In Postgres, each method executes one statement."""

    async def get_product_stock(self, product_id: UUID, now: datetime) -> Sequence[Stock]:
        """Return the product's stock rows, with the units that are overdue at `now`.

        A product that exists has at least the stock row of the main warehouse.
        """

    async def get_warehouse_stock(
        self, product_ids: Collection[UUID], warehouse_id: UUID, now: datetime
    ) -> Sequence[Stock]:
        """Return the stock rows of these products in this warehouse, sorted by product id."""

    async def get_on_hand_at(self, product_id: UUID, at: datetime) -> Mapping[UUID, int]:
        """Return the units on hand at this time by warehouse, sorted by warehouse id."""

    async def list_movements(
        self, product_id: UUID, before: int | None, limit: int
    ) -> Sequence[tuple[int, Movement]]:
        """Return (number, movement) with numbers below `before`, the greatest number first.

        In each stock row, newer movements have greater numbers.
        """

    async def get_movement(self, movement_id: UUID) -> Movement | None: ...

    async def list_movements_by_reference(self, reference: UUID) -> Sequence[Movement]:
        """Return the movements of one fulfilment, restock, transfer or stocktake."""

    async def get_skus(
        self, product_ids: Collection[UUID], skus: Collection[str]
    ) -> Mapping[UUID, str]:
        """Map product id to SKU, for the products with these ids or SKUs. Ignore letter case."""

    async def get_warehouse(self, warehouse_id: UUID) -> Warehouse | None: ...

    async def list_warehouses(
        self, after: tuple[int, UUID] | None, limit: int
    ) -> Sequence[Warehouse]:
        """Return warehouses sorted by (priority, id), beginning after the pair `after`."""


class Store(ReadStore, ResponseStore, Protocol):
    """Reads and writes of one transaction."""

    async def apply_changes(self, changes: Sequence[StockChange]) -> Sequence[Movement]:
        """Change the units on hand and record the movements. Return the recorded movements.

        All changes must have the same reason, note, reference, actor and time, and different stock
        rows. Rows are locked in the order of product ids and warehouse ids. A change is skipped if
        its movement exists already, if it has no stock row, or if it would leave fewer units on
        hand than are reserved. Backorder units do not count as reserved here.
        """

    async def ensure_stock_rows(self, product_ids: Collection[UUID], warehouse_id: UUID) -> None:
        """Insert empty stock rows for products that have none in this warehouse.

        Ignore products that do not exist.
        """

    async def insert_warehouse(self, warehouse: Warehouse) -> bool:
        """Insert the warehouse. Return False when its id exists."""

    async def get_warehouse_for_update(self, warehouse_id: UUID) -> Warehouse | None:
        """Return the warehouse and lock its row. No other transaction can then add stock to it."""

    async def get_warehouse_for_share(self, warehouse_id: UUID) -> Warehouse | None:
        """Return the warehouse with a shared lock. No other transaction can then change it."""

    async def has_stock(self, warehouse_id: UUID) -> bool:
        """Tell whether units are on hand or reserved in the warehouse."""

    async def has_stock_rows(self, warehouse_id: UUID) -> bool:
        """Tell whether the warehouse ever had stock."""

    async def save_warehouse(self, warehouse: Warehouse) -> None: ...

    async def delete_warehouse(self, warehouse_id: UUID) -> None: ...


class ReservationExpiry(Protocol):
    """Expire overdue reservations before the periodic job does, because their stock is needed."""

    async def run_after_expiring(self, work: Callable[[Store], Awaitable[T]]) -> T:
        """Run `work` in a transaction.

        If `work` raises InsufficientStock and `is_final` is false, expire the overdue reservations
        of the exception's `product_ids` and run `work` once more. If `is_final` is true, or if the
        second run also raises InsufficientStock, raise the exception's `error`.
        """

    async def expire_reservations(self, product_ids: Collection[UUID] | None) -> None:
        """Expire the overdue reservations of these products, or all if `product_ids` is None."""
