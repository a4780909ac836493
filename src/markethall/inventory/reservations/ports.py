"""What stock and reservations need from the outside."""

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
from markethall.inventory.stock.contract.movements import Movement
from markethall.inventory.stock.domain.stock import Stock, StockChange, StockQuantity


@dataclass(frozen=True)
class Availability:
    """May it be sold, where is it, how much more do expired holds still have there, and how much
    more is sold before it is there. Where more is promised than there is, less than nothing is
    free.
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
        """What can be taken: soon, once the expired holds have given back theirs; ahead, before it
        is there.
        """
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
    """How many holds have expired, and the goods to give back, in product id order."""

    count: int
    quantities: tuple[StockQuantity, ...]


class AllocationStrategy(Protocol):
    """From which warehouses an order is sent: a strategy that only thinks."""

    def plan(
        self, requested: Mapping[UUID, int], free_stock: FreeStockByProduct
    ) -> tuple[StockQuantity, ...] | None:
        """Units per product, in the order of product ids, from these shelves: goods in the order
        of product ids and then of warehouse ids. None when there is too little.
        """


class StockReads(Protocol):
    """Reads. Each is one statement that takes no lock."""

    async def get_product_stock(self, product_id: UUID, now: datetime) -> Sequence[Stock]:
        """One per warehouse; none means that there is no such product."""

    async def list_movements(
        self, product_id: UUID, before: int | None, limit: int
    ) -> Sequence[tuple[int, Movement]]:
        """With their numbers, the newest first."""

    async def get_movement(self, movement_id: UUID) -> Movement | None: ...

    async def list_movements_by_reference(self, reference: UUID) -> Sequence[Movement]:
        """Made by this fulfilment, transfer or stocktake."""

    async def get_on_hand_at(self, product_id: UUID, at: datetime) -> Mapping[UUID, int]:
        """Per warehouse, in the order of their ids."""

    async def get_warehouse_stock(
        self, product_ids: Collection[UUID], warehouse_id: UUID, now: datetime
    ) -> Sequence[Stock]:
        """Of these products in this warehouse, in product id order."""

    async def get_skus(
        self, product_ids: Collection[UUID], skus: Collection[str]
    ) -> Mapping[UUID, str]:
        """Of products that are there, named by their id or by their SKU, whatever its case."""

    async def get_reservation(self, reservation_id: UUID) -> Reservation | None: ...

    async def list_order_reservations(
        self, order_id: UUID, after: UUID | None, limit: int
    ) -> Sequence[Reservation]:
        """In the order of their ids."""

    async def get_availability(
        self, product_ids: Collection[UUID], now: datetime
    ) -> Mapping[UUID, Availability]:
        """Of products that there are."""


class SingleStatementReserve(Protocol):
    """What is a transaction of its own, and needs none around it."""

    async def reserve_single_statement(
        self, reservation: Reservation, stock_quantity: StockQuantity, limits: CustomerLimits | None
    ) -> ReservationLine | None:
        """The hold with this one line, if its customer may have it. None when it is not that
        simple, with nothing done: step by step it is seen why.
        """


class StockStore(StockReads, Protocol):
    """Reads and writes of one transaction."""

    async def apply_changes(self, changes: Sequence[StockChange]) -> Sequence[Movement]:
        """The only way to change what is on hand; each shelf once, and all for the same reason.

        Shelves are locked in the order of product ids and then of warehouse ids. What is refused is
        left out: the movement is made already, there is no such shelf, or less would be on hand
        than is reserved.
        """

    async def ensure_stock_rows(self, product_ids: Collection[UUID], warehouse_id: UUID) -> None:
        """Empty ones, of those products that are there and have none in this warehouse yet."""

    async def insert_reservation(self, reservation: Reservation) -> bool:
        """Without lines. False when this reservation is known already.

        Its customer, if it has one, opens no other until the end of the transaction.
        """

    async def get_customer_usage(
        self, reservation: Reservation, product_ids: Collection[UUID], now: datetime
    ) -> CustomerUsage:
        """What its customer holds unpaid beside it, and of these products how many units."""

    async def reserve_line(
        self, reservation: Reservation, stock_quantity: StockQuantity, *, include_backorder: bool
    ) -> ReservationLine | None:
        """Check, reserve and write the line, at the price of when it was held first, in one step;
        None unless all of it can be sold: what is on hand or, `ahead`, what is not there yet too.
        """

    async def reserve_again(
        self, stock_quantity: StockQuantity, *, include_backorder: bool
    ) -> bool:
        """Check and reserve in one step, for a line that is written already."""

    async def extend_if_held(
        self, reservation_id: UUID, expires_at: datetime, now: datetime
    ) -> Reservation | None:
        """A longer hold in one step, as Reservation.extend does it; None when it is not held any more."""

    async def commit_if_held(self, reservation_id: UUID) -> Reservation | None:
        """held -> committed in one step; None when it is not held."""

    async def get_reservation_for_update(self, reservation_id: UUID) -> Reservation | None:
        """Locked until the end of the transaction."""

    async def save_reservation(self, reservation: Reservation) -> None:
        """Its status."""

    async def save_reservation_lines(self, reservation: Reservation) -> None:
        """Its status, and what of its lines is wanted, consumed and released."""

    async def replace_lines(self, reservation: Reservation) -> None:
        """Its status, and its lines in the place of those that it had, which keep nothing any
        more. Their goods are taken before.
        """

    async def record_partial_release(self, release_id: UUID, reservation_id: UUID) -> bool:
        """Of a part of it. False when this release is known already."""

    async def release_stock(
        self, quantities: Sequence[StockQuantity], *, is_consumed: bool = False
    ) -> None:
        """Not reserved any more. In product id order.

        What was promised beyond the backorder limit is on offer no more; of goods that are
        `leaving`, their movement sees to that.
        """

    async def is_fulfilment_recorded(self, reference: UUID) -> bool:
        """Were goods sold by this fulfilment already?"""

    async def expire_reservations(
        self, now: datetime, limit: int, product_ids: Collection[UUID] | None
    ) -> ExpiredReservations:
        """held -> expired for holds that are overdue, at most `limit`. Their goods stay reserved.

        Without products: any holds, less those that somebody else works on. With products: only
        holds of these, and it waits for whoever works on one.
        """
