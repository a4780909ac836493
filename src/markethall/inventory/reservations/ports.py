"""Storage of reservations, and the choice of warehouses, as Protocols."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol
from uuid import UUID

from markethall.inventory.reservations.domain.allocation import FreeStock, FreeStockByProduct
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
    """Stock of one product by warehouse.

    `free`: units on hand that are not reserved, below zero where more is reserved than on hand;
    `overdue`: units of expired reservations; `backorder`: units that may be sold before they
    arrive.
    """

    is_active: bool
    free: tuple[FreeStock, ...]
    overdue: tuple[FreeStock, ...]
    backorder: tuple[FreeStock, ...]

    @property
    def available(self) -> int:
        return sum(
            stock.quantity
            for stock in self.allocatable(include_expired=True, include_backorder=True)
        )

    def allocatable(
        self, *, include_expired: bool, include_backorder: bool
    ) -> tuple[FreeStock, ...]:
        """Units that can be reserved by warehouse."""
        return tuple(
            replace(
                stock,
                quantity=stock.quantity
                + include_expired * overdue.quantity
                + include_backorder * backorder.quantity,
            )
            for stock, overdue, backorder in zip(
                self.free, self.overdue, self.backorder, strict=True
            )
        )


@dataclass(frozen=True)
class ExpiredReservations:
    """How many reservations have expired, and the stock to release, in stock row order."""

    count: int
    quantities: tuple[StockQuantity, ...]


class AllocationStrategy(Protocol):
    """Chooses the warehouses that an order is sent from. Does no I/O."""

    def plan(
        self, requested: Mapping[UUID, int], free_stock: FreeStockByProduct
    ) -> tuple[StockQuantity, ...] | None:
        """Divide the requested units, in product id order, between warehouses.

        Returned in the order of product ids and then of warehouse ids; None when there is too
        little stock.
        """


class ReadStore(Protocol):
    """Reads. Each is one statement that takes no lock; `reserve_single_statement` also writes."""

    async def get_reservation(self, reservation_id: UUID) -> Reservation | None: ...

    async def list_order_reservations(
        self, order_id: UUID, after: UUID | None, limit: int
    ) -> Sequence[Reservation]:
        """Return reservations of the order by id, later than `after`."""

    async def get_availability(
        self, product_ids: Collection[UUID], now: datetime
    ) -> Mapping[UUID, Availability]:
        """Return the availability of the products that exist."""

    async def reserve_single_statement(
        self, reservation: Reservation, stock_quantity: StockQuantity, limits: CustomerLimits | None
    ) -> ReservationLine | None:
        """Insert the reservation with one line, if `limits` allow it.

        One statement that is a transaction of its own. None, with nothing changed, when the fast
        path does not apply: then the steps in a transaction find the reason.
        """


class Store(ReadStore, StockStore, Protocol):
    """Reads and writes of one transaction."""

    async def insert_reservation(self, reservation: Reservation) -> bool:
        """Insert it without lines. False when the reservation exists.

        Locks its customer, if it has one: others of the customer wait for the end of this
        transaction.
        """

    async def get_customer_usage(
        self, reservation: Reservation, product_ids: Collection[UUID], now: datetime
    ) -> CustomerUsage:
        """Sum the other unpaid reservations of its customer, and their units of these products."""

    async def reserve_line(
        self, reservation: Reservation, stock_quantity: StockQuantity, *, include_backorder: bool
    ) -> ReservationLine | None:
        """Check and reserve the stock and write the line in one statement.

        Priced as of `reserved_at`. None when there is too little stock or the product is not
        active.
        """

    async def reserve_again(
        self, stock_quantity: StockQuantity, *, include_backorder: bool
    ) -> bool:
        """Check and reserve the stock of an existing line in one statement."""

    async def extend_if_held(
        self, reservation_id: UUID, expires_at: datetime, now: datetime
    ) -> Reservation | None:
        """Do Reservation.extend in one statement; None when it is not held."""

    async def commit_if_held(self, reservation_id: UUID) -> Reservation | None:
        """held -> committed in one statement; None when it is not held."""

    async def get_reservation_for_update(self, reservation_id: UUID) -> Reservation | None:
        """Lock the reservation until the end of the transaction."""

    async def save_reservation(self, reservation: Reservation) -> None:
        """Update the status."""

    async def save_reservation_lines(self, reservation: Reservation) -> None:
        """Update the status, and the quantities of the lines."""

    async def replace_lines(self, reservation: Reservation) -> None:
        """Update the status and replace all lines. Their stock is reserved before."""

    async def record_partial_release(self, release_id: UUID, reservation_id: UUID) -> bool:
        """Record the release. False when it is recorded already."""

    async def is_fulfilment_recorded(self, reference: UUID) -> bool:
        """Whether the fulfilment's movements were made already."""

    async def release_stock(
        self, quantities: Sequence[StockQuantity], *, is_consumed: bool = False
    ) -> None:
        """Subtract from the reserved units, in product id order.

        Lowers a backorder above its limit; for consumed units the movement does that.
        """

    async def expire_reservations(
        self, now: datetime, limit: int, product_ids: Collection[UUID] | None
    ) -> ExpiredReservations:
        """held -> expired for at most `limit` overdue reservations. Their stock stays reserved.

        Without products: skips locked reservations. With products: only reservations of these,
        and waits for locks.
        """
