from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol
from uuid import UUID

from markethall.inventory.contract import ProductOffer, ReservationState
from markethall.inventory.reservations.domain.allocation import FreeStock, FreeStockByProduct
from markethall.inventory.reservations.domain.integrity import (
    OnHandSum,
    OverdueReservation,
    ReservedSum,
)
from markethall.inventory.reservations.domain.reservations import (
    CustomerLimits,
    CustomerUsage,
    Reservation,
    ReservationLine,
)
from markethall.inventory.stock.domain import StockQuantity
from markethall.inventory.stock.ports import Store as StockStore


@dataclass(frozen=True)
class Availability:
    """The stock of one product. Each tuple has one entry per warehouse, in the same order.

    `free` is on hand minus reserved. It is negative if units were sold as backorder. `overdue` has
    the units that overdue reservations still reserve. `backorder` has the units that may be sold
    before they arrive.
    """

    is_active: bool
    free: tuple[FreeStock, ...]
    overdue: tuple[FreeStock, ...]
    backorder: tuple[FreeStock, ...]

    @property
    def available(self) -> int:
        return sum(
            stock.quantity
            for stock in self.allocatable(include_overdue=True, include_backorder=True)
        )

    def allocatable(
        self, *, include_overdue: bool, include_backorder: bool
    ) -> tuple[FreeStock, ...]:
        """Return the free units per warehouse, plus the overdue and backorder units if included."""
        return tuple(
            replace(
                stock,
                quantity=stock.quantity
                + include_overdue * overdue.quantity
                + include_backorder * backorder.quantity,
            )
            for stock, overdue, backorder in zip(
                self.free, self.overdue, self.backorder, strict=True
            )
        )


@dataclass(frozen=True)
class ExpiredReservations:
    """The result of `expire_reservations`: the number of reservations, and the units to release.

    The units are sorted by product id and warehouse id.
    """

    count: int
    quantities: tuple[StockQuantity, ...]


class IntegrityReads(Protocol):
    """The reads of the integrity checks. `after` is the key of the previous page's last row."""

    async def list_on_hand_sums(
        self, after: tuple[UUID, UUID] | None, limit: int
    ) -> Sequence[OnHandSum]:
        """Return one entry per stock row, sorted by product id and warehouse id."""

    async def list_reserved_sums(
        self, after: tuple[UUID, UUID] | None, limit: int
    ) -> Sequence[ReservedSum]:
        """Return one entry per stock row, sorted by product id and warehouse id."""

    async def list_overdue_reservations(
        self, before: datetime, after: tuple[datetime, UUID] | None, limit: int
    ) -> Sequence[OverdueReservation]:
        """Return held reservations past their expiry at this time, sorted by expiry and id."""


class AllocationStrategy(Protocol):
    """A rule that chooses the warehouses from which an order is sent. It does no I/O."""

    def plan(
        self, requested: Mapping[UUID, int], free_stock: FreeStockByProduct
    ) -> tuple[StockQuantity, ...] | None:
        """Divide the requested units of each product id between warehouses.

        Return None if the stock is too small. The result is sorted by product id and warehouse id,
        because stock rows are locked in this order.
        """


class ReadStore(Protocol):
    """Reads without locks, and one write. In Postgres, each method executes one statement.

    The write, `reserve_single_statement`, needs no transaction, because its statement commits by
    itself.
    """

    async def get_reservation(self, reservation_id: UUID) -> Reservation | None: ...

    async def list_order_reservations(
        self, order_id: UUID, after: UUID | None, limit: int
    ) -> Sequence[Reservation]:
        """Return reservations of the order with ids greater than `after`, sorted by id."""

    async def list_reservation_states(
        self, after: tuple[UUID, UUID], limit: int
    ) -> Sequence[ReservationState]:
        """Return states after this order id and reservation id, sorted by the two ids.

        Tombstones are left out.
        """

    async def get_availability(
        self, product_ids: Collection[UUID], now: datetime
    ) -> Mapping[UUID, Availability]:
        """Return the availability by product id. Products that do not exist are missing."""

    async def list_offers(
        self, product_ids: Collection[UUID], currency: str | None, now: datetime
    ) -> Sequence[ProductOffer]:
        """Return the offers of the active products among these, sorted by product id."""

    async def reserve_single_statement(
        self, reservation: Reservation, stock_quantity: StockQuantity, limits: CustomerLimits | None
    ) -> ReservationLine | None:
        """Reserve the stock and insert the reservation with one line, all in one statement.

        `limits` is None if the customer has no limits. Return None and change nothing when the
        statement fails for any reason. The caller then reserves in a transaction, which finds the
        reason or another warehouse.
        """


class Store(ReadStore, StockStore, Protocol):
    """Reads and writes of one transaction."""

    async def insert_reservation(self, reservation: Reservation) -> bool:
        """Insert the reservation without its lines. Return False when its id exists.

        Lock the customer: until this transaction ends, other transactions that insert a
        reservation of the same customer wait.
        """

    async def get_customer_usage(
        self, reservation: Reservation, product_ids: Collection[UUID], now: datetime
    ) -> CustomerUsage:
        """Count the customer's other held reservations, and sum up their units of these products.

        Overdue reservations do not count.
        """

    async def reserve_line(
        self, reservation: Reservation, stock_quantity: StockQuantity, *, include_backorder: bool
    ) -> ReservationLine | None:
        """Reserve the stock and insert the line in one statement.

        The line has the price that is valid at `reserved_at`. Return None if the stock is too small
        or the product is not active.
        """

    async def reserve_again(
        self, stock_quantity: StockQuantity, *, include_backorder: bool
    ) -> bool:
        """Reserve the stock of an existing line in one statement. The product need not be active.

        Return False if the stock is too small.
        """

    async def extend_if_held(
        self, reservation_id: UUID, expires_at: datetime, now: datetime
    ) -> Reservation | None:
        """Extend the reservation in one statement. Return None if it is overdue or not held."""

    async def commit_if_held(self, reservation_id: UUID) -> Reservation | None:
        """Change the status from held to committed. Return None when it is not held."""

    async def get_reservation_for_update(self, reservation_id: UUID) -> Reservation | None:
        """Return the reservation and lock its row."""

    async def save_reservation(self, reservation: Reservation) -> None:
        """Update the status of the reservation."""

    async def save_reservation_lines(self, reservation: Reservation) -> None:
        """Update the status of the reservation and the quantities of its lines."""

    async def replace_lines(self, reservation: Reservation) -> None:
        """Update the status and replace all lines.

        The caller must first reserve the stock of the new lines.
        """

    async def record_partial_release(self, release_id: UUID, reservation_id: UUID) -> bool:
        """Record the release id. Return False when it is recorded already."""

    async def get_untracked_products(self, product_ids: Collection[UUID]) -> Collection[UUID]:
        """Return the ids of the products among these whose inventory is not tracked."""

    async def release_stock(
        self, quantities: Sequence[StockQuantity], *, is_consumed: bool = False
    ) -> None:
        """Subtract the quantities from the reserved units of the stock rows, in the given order.

        Also lower the `backorder` of a row that is above its `backorder_limit`. If `is_consumed` is
        true, `backorder` falls only with the movement of the sale, which the caller records next.
        """

    async def expire_reservations(
        self, now: datetime, limit: int, product_ids: Collection[UUID] | None
    ) -> ExpiredReservations:
        """Expire at most `limit` overdue reservations. The caller must release their stock.

        If `product_ids` is None, skip reservations that another transaction has locked. Else expire
        only reservations of these products, and wait for the locked ones among them.
        """
