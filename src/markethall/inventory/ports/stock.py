"""What stock and reservations need from the outside."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from uuid import UUID

from markethall.inventory.contract import Movement
from markethall.inventory.domain import Change, Goods, Hold, Line, Stock


@dataclass(frozen=True)
class Standing:
    """May it be sold, and how many are there, those of expired holds included."""

    for_sale: bool
    available: int


@dataclass(frozen=True)
class Expired:
    """How many holds have expired, and the goods to give back, in product id order."""

    count: int
    goods: tuple[Goods, ...]


class Stocks(Protocol):
    """Reads. Each is one statement that takes no lock."""

    async def levels(self, product_id: UUID, now: datetime) -> Sequence[Stock]:
        """One per warehouse; none means that there is no such product."""

    async def movements(
        self, product_id: UUID, before: int | None, limit: int
    ) -> Sequence[tuple[int, Movement]]:
        """With their numbers, the newest first."""

    async def movement(self, movement_id: UUID) -> Movement | None: ...

    async def find_hold(self, reservation_id: UUID) -> Hold | None: ...

    async def holds_of(self, order_id: UUID, after: UUID | None, limit: int) -> Sequence[Hold]:
        """In the order of their ids."""

    async def standing(
        self, product_ids: Collection[UUID], now: datetime
    ) -> Mapping[UUID, Standing]: ...


class StockStore(Stocks, Protocol):
    """Reads and writes of one transaction."""

    async def move(self, change: Change) -> Movement | None:
        """The only way to change what is on hand. None when that is refused: the movement is
        made already, there is no such shelf, or less would be on hand than is reserved.
        """

    async def open(self, hold: Hold) -> bool:
        """Without lines. False when this reservation is known already."""

    async def take(self, hold: Hold, goods: Goods) -> Line | None:
        """Check, reserve and write the line in one step; None unless all of it can be sold."""

    async def take_again(self, goods: Goods) -> bool:
        """Check and reserve in one step, for a line that is written already."""

    async def commit_held(self, reservation_id: UUID) -> Hold | None:
        """held -> committed in one step; None when it is not held."""

    async def hold(self, reservation_id: UUID) -> Hold | None:
        """Locked until the end of the transaction."""

    async def save_hold(self, hold: Hold) -> None:
        """Its status."""

    async def save_consumed(self, hold: Hold) -> None:
        """Its status, and what of its lines is consumed."""

    async def give_back(self, goods: Sequence[Goods]) -> None:
        """Not reserved any more. In product id order."""

    async def sell(self, changes: Sequence[Change]) -> None:
        """`move` for goods that were reserved; in product id order."""

    async def sold(self, reference: UUID) -> bool:
        """Were goods sold by this fulfilment already?"""

    async def expire(
        self, now: datetime, limit: int, product_ids: Collection[UUID] | None
    ) -> Expired:
        """held -> expired for holds that are overdue, at most `limit`. Their goods stay reserved.

        Without products: any holds, less those that somebody else works on. With products: only
        holds of these, and it waits for whoever works on one.
        """
