"""Inventory in the memory of this process. The same promises as in Postgres, kept by one lock."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from markethall.inventory.contract import (
    Category,
    Movement,
    ProductQuery,
    ProductStatus,
    SkuTaken,
)
from markethall.inventory.domain import (
    HELD,
    MAIN_WAREHOUSE,
    Change,
    Goods,
    Hold,
    Item,
    Line,
    Stock,
    summed,
)
from markethall.inventory.ports import Card, Cards, Expired, Listing, Standing
from markethall.shared import memory
from markethall.shared.clock import Clock
from markethall.shared.memory import CommonTables, Table

Shelf = tuple[UUID, UUID]  # product and warehouse

_NOBODY: Final[frozenset[UUID]] = frozenset()


class Tables(CommonTables):
    def __init__(self) -> None:
        super().__init__()
        self.items: Table[UUID, Item] = Table()
        self.skus: Table[str, UUID] = Table()
        self.stock: Table[Shelf, Stock] = Table()
        self.movements: Table[UUID, Movement] = Table()
        # the ids of a product's movements, the oldest first
        self.ledger: Table[UUID, tuple[UUID, ...]] = Table()
        # which fulfilments have taken goods
        self.sales: Table[UUID, UUID] = Table()
        self.holds: Table[UUID, Hold] = Table()
        self.of_order: Table[UUID, tuple[UUID, ...]] = Table()
        # which reservations are held: those that have this product, and under None all of them
        self.held: Table[UUID | None, frozenset[UUID]] = Table()


class MemoryStore(memory.MemoryStore):
    """One transaction, or reads without one."""

    def __init__(self, tables: Tables, clock: Clock) -> None:
        super().__init__(tables, clock)
        self._tables = tables

    # Products

    async def card(self, product_id: UUID, now: datetime) -> Card | None:
        item = self._tables.items.get(product_id)
        return self._card(item, now) if item else None

    async def card_by_sku(self, sku: str, now: datetime) -> Card | None:
        product_id = self._tables.skus.get(sku.lower())
        return await self.card(product_id, now) if product_id else None

    async def page(self, listing: Listing, now: datetime) -> Cards:
        query = listing.query
        key = _KEYS[query.sort.removeprefix("-")]
        falling = query.sort.startswith("-")

        def place(item: Item) -> tuple[Any, UUID]:
            return key(item), item.product_id

        items = self._tables.items.where(lambda item: self._matches(item, query, now))
        if (after := listing.after) is not None:
            items = [i for i in items if (place(i) < after if falling else place(i) > after)]
        items.sort(key=place, reverse=falling)
        kept = items[: query.limit]
        last = (key(kept[-1]), str(kept[-1].product_id)) if len(items) > query.limit else None
        return Cards(",".join(self._card(item, now).json for item in kept), last)

    async def categories(self, after: str, limit: int) -> Sequence[Category]:
        counts: dict[str, int] = {}
        for item in self._tables.items.where(_is_active):
            if item.category is not None and item.category > after:
                counts[item.category] = counts.get(item.category, 0) + 1
        return [Category(category=name, product_count=counts[name]) for name in sorted(counts)][
            :limit
        ]

    async def count(self) -> int:
        return len(self._tables.items.where(_is_active))

    async def add(self, item: Item) -> bool:
        if item.sku.lower() in self._tables.skus or not self._tables.items.add(
            item.product_id, item
        ):
            return False
        self._tables.skus.put(item.sku.lower(), item.product_id)
        shelf = (item.product_id, MAIN_WAREHOUSE)
        self._tables.stock.put(shelf, Stock(*shelf))
        return True

    async def item(self, product_id: UUID) -> Item | None:
        return self._tables.items.get(product_id)

    async def save(self, item: Item) -> None:
        before = self._tables.items.get(item.product_id)
        if before is not None and before.sku.lower() != item.sku.lower():
            if not self._tables.skus.add(item.sku.lower(), item.product_id):
                raise SkuTaken(sku=item.sku)
            self._tables.skus.remove(before.sku.lower())
        self._tables.items.put(item.product_id, item)

    # Stock

    async def levels(self, product_id: UUID, now: datetime) -> Sequence[Stock]:
        stock = self._tables.stock.get((product_id, MAIN_WAREHOUSE))
        return [replace(stock, overdue=self._overdue(product_id, now))] if stock else []

    async def movement(self, movement_id: UUID) -> Movement | None:
        return self._tables.movements.get(movement_id)

    async def movements(
        self, product_id: UUID, before: int | None, limit: int
    ) -> Sequence[tuple[int, Movement]]:
        ids = self._tables.ledger.get(product_id) or ()
        last = len(ids) if before is None else before - 1
        numbers = range(last, max(0, last - limit), -1)
        found = ((number, self._tables.movements.get(ids[number - 1])) for number in numbers)
        return [(number, movement) for number, movement in found if movement]

    async def move(self, change: Change) -> Movement | None:
        shelf = (change.product_id, change.warehouse_id)
        stock = self._tables.stock.get(shelf)
        if stock is None or change.movement_id in self._tables.movements:
            return None
        delta = change.delta_of(stock.on_hand)
        if stock.on_hand + delta < stock.reserved:
            return None
        stock = replace(stock, on_hand=stock.on_hand + delta)
        self._tables.stock.put(shelf, stock)
        return self._recorded(change, delta, stock.on_hand)

    async def sell(self, changes: Sequence[Change]) -> None:
        for change in changes:
            await self.move(change)

    async def sold(self, reference: UUID) -> bool:
        return reference in self._tables.sales

    # Reservations

    async def open(self, hold: Hold) -> bool:
        if hold.reservation_id in self._tables.holds:
            return False
        self._put(hold)
        if hold.order_id is not None:
            others = self._tables.of_order.get(hold.order_id) or ()
            self._tables.of_order.put(hold.order_id, (*others, hold.reservation_id))
        return True

    async def take(self, hold: Hold, goods: Goods) -> Line | None:
        item = self._tables.items.get(goods.product_id)
        if item is None or not _is_active(item) or not await self.take_again(goods):
            return None
        shelf = (goods.product_id, goods.warehouse_id)
        line = Line(*shelf, item.sku, item.name, item.price, goods.quantity)
        stored = self._tables.holds.get(hold.reservation_id)
        if stored is not None:
            self._put(replace(stored, lines=(*stored.lines, line)))
        return line

    async def take_again(self, goods: Goods) -> bool:
        shelf = (goods.product_id, goods.warehouse_id)
        stock = self._tables.stock.get(shelf)
        if stock is None or stock.on_hand - stock.reserved < goods.quantity:
            return False
        self._tables.stock.put(shelf, replace(stock, reserved=stock.reserved + goods.quantity))
        return True

    async def commit_held(self, reservation_id: UUID) -> Hold | None:
        hold = self._tables.holds.get(reservation_id)
        if hold is None or hold.status != HELD:
            return None
        hold.commit()
        return self._put(hold)

    async def hold(self, reservation_id: UUID) -> Hold | None:
        return self._tables.holds.get(reservation_id)

    async def holds_of(self, order_id: UUID, after: UUID | None, limit: int) -> Sequence[Hold]:
        ids = sorted(self._tables.of_order.get(order_id) or ())
        holds = (self._tables.holds.get(key) for key in ids if after is None or key > after)
        return [hold for hold in holds if hold is not None][:limit]

    async def save_hold(self, hold: Hold) -> None:
        self._put(hold)

    async def save_consumed(self, hold: Hold) -> None:
        self._put(hold)

    async def give_back(self, goods: Sequence[Goods]) -> None:
        for some in goods:
            shelf = (some.product_id, some.warehouse_id)
            stock = self._tables.stock.get(shelf)
            if stock is not None:
                left = stock.reserved - some.quantity
                self._tables.stock.put(shelf, replace(stock, reserved=left))

    async def expire(
        self, now: datetime, limit: int, product_ids: Collection[UUID] | None
    ) -> Expired:
        due = self._due(now, product_ids)[:limit]
        goods: list[Goods] = []
        for hold in due:
            goods += hold.expire()
            self._put(hold)
        return Expired(len(due), summed(goods))

    async def standing(
        self, product_ids: Collection[UUID], now: datetime
    ) -> Mapping[UUID, Standing]:
        items = (self._tables.items.get(product_id) for product_id in product_ids)
        return {
            item.product_id: Standing(_is_active(item), self._available(item.product_id, now))
            for item in items
            if item is not None
        }

    # Helpers

    def _card(self, item: Item, now: datetime) -> Card:
        text = item.seen_with(self._available(item.product_id, now)).model_dump_json()
        return Card(item.version, _is_active(item), text)

    def _available(self, product_id: UUID, now: datetime) -> int:
        stock = self._tables.stock.get((product_id, MAIN_WAREHOUSE))
        overdue = self._overdue(product_id, now)
        return stock.on_hand - stock.reserved + overdue if stock else 0

    def _overdue(self, product_id: UUID, now: datetime) -> int:
        return sum(
            line.quantity
            for hold in self._due(now, [product_id])
            for line in hold.lines
            if line.product_id == product_id
        )

    def _due(self, now: datetime, product_ids: Collection[UUID] | None) -> list[Hold]:
        """Holds that are overdue, in the order of their ids."""
        keys = [None] if product_ids is None else product_ids
        ids = sorted(_NOBODY.union(*(self._tables.held.get(key) or _NOBODY for key in keys)))
        holds = (self._tables.holds.get(reservation_id) for reservation_id in ids)
        return [hold for hold in holds if hold is not None and hold.expires_at <= now]

    def _put(self, hold: Hold) -> Hold:
        self._tables.holds.put(hold.reservation_id, hold)
        mine = frozenset({hold.reservation_id})
        for key in (None, *(line.product_id for line in hold.lines)):
            held = self._tables.held.get(key) or _NOBODY
            after = held | mine if hold.status == HELD else held - mine
            if after != held:
                self._tables.held.put(key, after)
        return hold

    def _recorded(self, change: Change, delta: int, on_hand: int) -> Movement:
        movement = Movement(
            movement_id=change.movement_id,
            product_id=change.product_id,
            warehouse_id=change.warehouse_id,
            delta=delta,
            on_hand_after=on_hand,
            reason=change.reason,
            note=change.note,
            reference=change.reference,
            actor=change.actor,
            created_at=change.created_at,
        )
        self._tables.movements.put(movement.movement_id, movement)
        ids = self._tables.ledger.get(change.product_id) or ()
        self._tables.ledger.put(change.product_id, (*ids, movement.movement_id))
        if change.reference is not None:
            self._tables.sales.put(change.reference, movement.movement_id)
        return movement

    def _matches(self, item: Item, query: ProductQuery, now: datetime) -> bool:
        return (
            item.status == query.status
            and query.category in {None, item.category}
            and query.family in {None, item.family}
            and (query.tag is None or query.tag in item.tags)
            and (query.min_price is None or query.min_price <= item.price.amount)
            and (query.max_price is None or item.price.amount <= query.max_price)
            and (query.q is None or _contains(item, query.q))
            and (
                query.in_stock is None
                or query.in_stock == (self._available(item.product_id, now) > 0)
            )
        )


_KEYS: Final[Mapping[str, Callable[[Item], Any]]] = {
    "name": lambda item: item.name.lower(),
    "price": lambda item: item.price.amount,
    "created_at": lambda item: item.created_at,
}


def _is_active(item: Item) -> bool:
    return item.status == ProductStatus.ACTIVE


def _contains(item: Item, text: str) -> bool:
    wanted = text.lower()
    return wanted in item.name.lower() or wanted in item.sku.lower()
