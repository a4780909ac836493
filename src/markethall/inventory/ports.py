"""What inventory needs from the outside."""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

from markethall.inventory.contract import Category, Movement, ProductQuery, Rendered
from markethall.inventory.domain import Change, Goods, Hold, Item, Line, Stock
from markethall.shared.call import Call
from markethall.shared.events import Delivery, Event
from markethall.shared.idempotency import Attempt


@dataclass(frozen=True)
class Card:
    """A product as the store shows it: its JSON is that of contract.Product.

    The store makes the JSON, so that a read copies it to the client and never takes it apart.
    """

    version: int
    active: bool
    json: str


@dataclass(frozen=True)
class Cards:
    """A page of them: their JSON joined by commas, and the place of the last when more follow."""

    json: str
    last: tuple[Any, str] | None


@dataclass(frozen=True)
class Listing:
    """A page of products to read: `after` is the place where the last page ended."""

    query: ProductQuery
    after: tuple[Any, UUID] | None


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


class Shelf(Protocol):
    """Reads. Each is one statement that takes no lock."""

    async def card(self, product_id: UUID, now: datetime) -> Card | None: ...

    async def card_by_sku(self, sku: str, now: datetime) -> Card | None:
        """Case does not count."""

    async def page(self, listing: Listing, now: datetime) -> Cards: ...

    async def categories(self, after: str, limit: int) -> Sequence[Category]:
        """Of active products, in the order of their names, later than `after`."""

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

    async def count(self) -> int: ...


class Store(Shelf, Protocol):
    """Reads and writes of one transaction."""

    async def publish(self, event: Event, call: Call) -> None: ...

    async def handled(self, delivery: Delivery) -> bool: ...

    async def finish(self, attempt: Attempt, result: Any) -> None: ...

    async def add(self, item: Item) -> bool:
        """With an empty shelf in the main warehouse. False when its id or sku is taken."""

    async def item(self, product_id: UUID) -> Item | None:
        """Locked until the end of the transaction."""

    async def save(self, item: Item) -> None:
        """Raises SkuTaken."""

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


class Database(Protocol):
    on_publish: Callable[[], None]

    def transaction(self) -> AbstractAsyncContextManager[Store]:
        """Commits when the block ends, rolls back when it raises."""

    def reading(self) -> AbstractAsyncContextManager[Shelf]:
        """Takes no locks."""


class ProductCache(Protocol):
    """Rendered answers for the public. What is absent is not kept."""

    async def product(
        self, product_id: UUID, load: Callable[[], Awaitable[Rendered | None]]
    ) -> Rendered | None: ...

    async def page(self, key: str, load: Callable[[], Awaitable[Rendered]]) -> Rendered: ...

    async def forget(self, product_ids: Sequence[UUID], *, pages: bool) -> None: ...


class Bytes(Protocol):
    """A cache of bytes: shared.cache.Cache."""

    async def fetch(
        self, space: str, key: str, ttl: float, load: Callable[[], Awaitable[bytes | None]]
    ) -> bytes | None: ...

    async def forget(self, space: str, keys: Sequence[str]) -> None: ...

    async def forget_space(self, space: str) -> None: ...
