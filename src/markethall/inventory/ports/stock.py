"""What stock and reservations need from the outside."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol
from uuid import UUID

from markethall.inventory.contract import Movement
from markethall.inventory.domain import (
    Change,
    Free,
    Goods,
    Hold,
    Holding,
    Limits,
    Line,
    Shelves,
    Stock,
)


@dataclass(frozen=True)
class Supply:
    """May it be sold, where is it, how much more do expired holds still have there, and how much
    more is sold before it is there. Where more is promised than there is, less than nothing is
    free.
    """

    for_sale: bool
    free: tuple[Free, ...]
    overdue: tuple[Free, ...]
    backorder: tuple[Free, ...]

    @property
    def available(self) -> int:
        return sum(shelf.units for shelf in self.shelves(soon=True, ahead=True))

    def shelves(self, *, soon: bool, ahead: bool) -> tuple[Free, ...]:
        """What can be taken: soon, once the expired holds have given back theirs; ahead, before it
        is there.
        """
        return tuple(
            replace(shelf, units=shelf.units + soon * late.units + ahead * more.units)
            for shelf, late, more in zip(self.free, self.overdue, self.backorder, strict=True)
        )


@dataclass(frozen=True)
class Expired:
    """How many holds have expired, and the goods to give back, in product id order."""

    count: int
    goods: tuple[Goods, ...]


class Allocation(Protocol):
    """From which warehouses an order is sent: a strategy that only thinks."""

    def plan(self, wants: Mapping[UUID, int], shelves: Shelves) -> tuple[Goods, ...] | None:
        """Units per product, in the order of product ids, from these shelves: goods in the order
        of product ids and then of warehouse ids. None when there is too little.
        """


class Stocks(Protocol):
    """Reads. Each is one statement that takes no lock."""

    async def levels(self, product_id: UUID, now: datetime) -> Sequence[Stock]:
        """One per warehouse; none means that there is no such product."""

    async def movements(
        self, product_id: UUID, before: int | None, limit: int
    ) -> Sequence[tuple[int, Movement]]:
        """With their numbers, the newest first."""

    async def movement(self, movement_id: UUID) -> Movement | None: ...

    async def movements_by(self, reference: UUID) -> Sequence[Movement]:
        """Made by this fulfilment, transfer or stocktake."""

    async def on_hand_at(self, product_id: UUID, at: datetime) -> Mapping[UUID, int]:
        """Per warehouse, in the order of their ids."""

    async def shelves(
        self, product_ids: Collection[UUID], warehouse_id: UUID, now: datetime
    ) -> Sequence[Stock]:
        """Of these products in this warehouse, in product id order."""

    async def skus(
        self, product_ids: Collection[UUID], skus: Collection[str]
    ) -> Mapping[UUID, str]:
        """Of products that are there, named by their id or by their SKU, whatever its case."""

    async def find_hold(self, reservation_id: UUID) -> Hold | None: ...

    async def holds_of(self, order_id: UUID, after: UUID | None, limit: int) -> Sequence[Hold]:
        """In the order of their ids."""

    async def supply(self, product_ids: Collection[UUID], now: datetime) -> Mapping[UUID, Supply]:
        """Of products that there are."""


class AtOnce(Protocol):
    """What is a transaction of its own, and needs none around it."""

    async def reserve_at_once(self, hold: Hold, goods: Goods, limits: Limits | None) -> Line | None:
        """The hold with this one line, if its customer may have it. None when it is not that
        simple, with nothing done: step by step it is seen why.
        """


class StockStore(Stocks, Protocol):
    """Reads and writes of one transaction."""

    async def move(self, changes: Sequence[Change]) -> Sequence[Movement]:
        """The only way to change what is on hand; each shelf once, and all for the same reason.

        Shelves are locked in the order of product ids and then of warehouse ids. What is refused is
        left out: the movement is made already, there is no such shelf, or less would be on hand
        than is reserved.
        """

    async def open_shelves(self, product_ids: Collection[UUID], warehouse_id: UUID) -> None:
        """Empty ones, of those products that are there and have none in this warehouse yet."""

    async def open(self, hold: Hold) -> bool:
        """Without lines. False when this reservation is known already.

        Its customer, if it has one, opens no other until the end of the transaction.
        """

    async def holding(self, hold: Hold, product_ids: Collection[UUID], now: datetime) -> Holding:
        """What its customer holds unpaid beside it, and of these products how many units."""

    async def take(self, hold: Hold, goods: Goods, *, ahead: bool) -> Line | None:
        """Check, reserve and write the line, at the price of when it was held first, in one step;
        None unless all of it can be sold: what is on hand or, `ahead`, what is not there yet too.
        """

    async def take_again(self, goods: Goods, *, ahead: bool) -> bool:
        """Check and reserve in one step, for a line that is written already."""

    async def extend_held(
        self, reservation_id: UUID, until: datetime, now: datetime
    ) -> Hold | None:
        """A longer hold in one step, as Hold.extend does it; None when it is not held any more."""

    async def commit_held(self, reservation_id: UUID) -> Hold | None:
        """held -> committed in one step; None when it is not held."""

    async def hold(self, reservation_id: UUID) -> Hold | None:
        """Locked until the end of the transaction."""

    async def save_hold(self, hold: Hold) -> None:
        """Its status."""

    async def save_lines(self, hold: Hold) -> None:
        """Its status, and what of its lines is wanted, consumed and released."""

    async def move_lines(self, hold: Hold) -> None:
        """Its status, and its lines in the place of those that it had, which keep nothing any
        more. Their goods are taken before.
        """

    async def note_release(self, release_id: UUID, reservation_id: UUID) -> bool:
        """Of a part of it. False when this release is known already."""

    async def give_back(self, goods: Sequence[Goods], *, leaving: bool = False) -> None:
        """Not reserved any more. In product id order.

        What was promised beyond the backorder limit is on offer no more; of goods that are
        `leaving`, their movement sees to that.
        """

    async def sold(self, reference: UUID) -> bool:
        """Were goods sold by this fulfilment already?"""

    async def expire(
        self, now: datetime, limit: int, product_ids: Collection[UUID] | None
    ) -> Expired:
        """held -> expired for holds that are overdue, at most `limit`. Their goods stay reserved.

        Without products: any holds, less those that somebody else works on. With products: only
        holds of these, and it waits for whoever works on one.
        """
