"""Stock and reservations in memory."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final, TypeVar
from uuid import UUID

from markethall.inventory.contract import (
    Movement,
    ProductStatus,
    Reason,
    StockLow,
)
from markethall.inventory.domain import (
    HELD,
    Change,
    Free,
    Goods,
    Hold,
    Holding,
    Item,
    Limits,
    Line,
    Stock,
    summed,
    units_of,
)
from markethall.inventory.memory.tables import Tables
from markethall.inventory.ports import Expired, Supply
from markethall.shared import memory
from markethall.shared.call import system_call
from markethall.shared.clock import Clock
from markethall.shared.memory import Table

K = TypeVar("K")

_NOBODY: Final[frozenset[UUID]] = frozenset()


class MemoryStock(memory.MemoryStore):
    """One transaction, or reads without one: stock and reservations."""

    def __init__(self, tables: Tables, clock: Clock) -> None:
        super().__init__(tables, clock)
        self._tables = tables

    async def levels(self, product_id: UUID, now: datetime) -> Sequence[Stock]:
        late = self._overdue(product_id, now)
        return [
            replace(stock, overdue=late[stock.warehouse_id]) for stock in self._shelves(product_id)
        ]

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

    async def movements_by(self, reference: UUID) -> Sequence[Movement]:
        ids = self._tables.of_reference.get(reference) or ()
        found = (self._tables.movements.get(movement_id) for movement_id in ids)
        return [movement for movement in found if movement]

    async def on_hand_at(self, product_id: UUID, at: datetime) -> Mapping[UUID, int]:
        then = {stock.warehouse_id: 0 for stock in self._shelves(product_id)}
        for movement_id in self._tables.ledger.get(product_id) or ():
            movement = self._tables.movements.get(movement_id)
            if movement is not None and movement.created_at <= at:
                then[movement.warehouse_id] += movement.delta
        return then

    async def shelves(
        self, product_ids: Collection[UUID], warehouse_id: UUID, now: datetime
    ) -> Sequence[Stock]:
        levels = [await self.levels(product_id, now) for product_id in sorted(product_ids)]
        return [stock for some in levels for stock in some if stock.warehouse_id == warehouse_id]

    async def skus(
        self, product_ids: Collection[UUID], skus: Collection[str]
    ) -> Mapping[UUID, str]:
        named = (self._tables.skus.get(sku.lower()) for sku in skus)
        items = (self._tables.items.get(key) for key in {*product_ids, *named} if key)
        return {item.product_id: item.sku for item in items if item}

    async def move(self, changes: Sequence[Change]) -> Sequence[Movement]:
        in_order = sorted(changes, key=lambda change: (change.product_id, change.warehouse_id))
        made = [await self._move(change) for change in in_order]
        return [movement for movement in made if movement]

    async def open_shelves(self, product_ids: Collection[UUID], warehouse_id: UUID) -> None:
        for product_id in product_ids:
            shelf = (product_id, warehouse_id)
            if product_id in self._tables.items and shelf not in self._tables.stock:
                self._add_shelf(Stock(*shelf))

    async def _move(self, change: Change) -> Movement | None:
        shelf = (change.product_id, change.warehouse_id)
        stock = self._tables.stock.get(shelf)
        if stock is None or self._is_made(change):
            return None
        delta = change.delta_of(stock.on_hand)
        stock = replace(stock, on_hand=stock.on_hand + delta)
        if stock.on_hand < 0 or stock.free < 0:
            return None
        before, stock = stock.free - delta, stock.settled()
        self._tables.stock.put(shelf, stock)
        if change.reason != Reason.SOLD:
            await self._tell_low(stock, before)
        return self._recorded(change, delta, stock.on_hand)

    async def sold(self, reference: UUID) -> bool:
        return reference in self._tables.of_reference

    # Reservations

    async def reserve_at_once(self, hold: Hold, goods: Goods, limits: Limits | None) -> None:
        """Never: here the steps cost nothing."""

    async def open(self, hold: Hold) -> bool:
        if hold.reservation_id in self._tables.holds:
            return False
        self._put(hold)
        if hold.order_id is not None:
            others = self._tables.of_order.get(hold.order_id) or ()
            self._tables.of_order.put(hold.order_id, (*others, hold.reservation_id))
        return True

    async def holding(self, hold: Hold, product_ids: Collection[UUID], now: datetime) -> Holding:
        ids = self._tables.of_customer.get(hold.customer_id) if hold.customer_id else None
        found = (self._tables.holds.get(key) for key in (ids or _NOBODY) - {hold.reservation_id})
        others = [other for other in found if other and other.standing(now) == HELD]
        lines = (line.remaining for other in others for line in other.lines)
        return Holding(len(others), units_of(s for s in lines if s.product_id in product_ids))

    async def take(self, hold: Hold, goods: Goods, *, ahead: bool) -> Line | None:
        item = self._tables.items.get(goods.product_id)
        if item is None or not is_active(item) or not await self.take_again(goods, ahead=ahead):
            return None
        shelf = (goods.product_id, goods.warehouse_id)
        price, _ = item.price_at(hold.held_since)
        line = Line(*shelf, item.sku, item.name, price, goods.quantity)
        stored = self._tables.holds.get(hold.reservation_id)
        if stored is not None:
            self._put(replace(stored, lines=(*stored.lines, line)))
        return line

    async def take_again(self, goods: Goods, *, ahead: bool) -> bool:
        shelf = (goods.product_id, goods.warehouse_id)
        stock = self._tables.stock.get(shelf)
        if stock is None or (stock.free if ahead else stock.there) < goods.quantity:
            return False
        before, stock = stock.free, replace(stock, reserved=stock.reserved + goods.quantity)
        self._tables.stock.put(shelf, stock)
        await self._tell_low(stock, before)
        return True

    async def extend_held(
        self, reservation_id: UUID, until: datetime, now: datetime
    ) -> Hold | None:
        hold = self._tables.holds.get(reservation_id)
        if hold is None or hold.standing(now) != HELD:
            return None
        hold.extend(until, now)
        return self._put(hold)

    async def commit_held(self, reservation_id: UUID) -> Hold | None:
        hold = self._tables.holds.get(reservation_id)
        if hold is None or hold.status != HELD:
            return None
        hold.commit()
        return self._put(hold)

    async def find_hold(self, reservation_id: UUID) -> Hold | None:
        return self._tables.holds.get(reservation_id)

    async def hold(self, reservation_id: UUID) -> Hold | None:
        return self._tables.holds.get(reservation_id)

    async def holds_of(self, order_id: UUID, after: UUID | None, limit: int) -> Sequence[Hold]:
        ids = sorted(self._tables.of_order.get(order_id) or ())
        holds = (self._tables.holds.get(key) for key in ids if after is None or key > after)
        return [hold for hold in holds if hold is not None][:limit]

    async def save_hold(self, hold: Hold) -> None:
        self._put(hold)

    async def save_lines(self, hold: Hold) -> None:
        self._put(hold)

    async def move_lines(self, hold: Hold) -> None:
        self._put(hold)

    async def note_release(self, release_id: UUID, reservation_id: UUID) -> bool:
        return self._tables.part_releases.add(release_id, reservation_id)

    async def give_back(self, goods: Sequence[Goods], *, leaving: bool = False) -> None:
        for some in goods:
            shelf = (some.product_id, some.warehouse_id)
            stock = self._tables.stock.get(shelf)
            if stock is not None:
                stock = replace(stock, reserved=stock.reserved - some.quantity)
                self._tables.stock.put(shelf, stock if leaving else stock.settled())

    async def expire(
        self, now: datetime, limit: int, product_ids: Collection[UUID] | None
    ) -> Expired:
        due = self._due(now, product_ids)[:limit]
        goods: list[Goods] = []
        for hold in due:
            goods += hold.expire()
            self._put(hold)
        return Expired(len(due), summed(goods))

    async def supply(self, product_ids: Collection[UUID], now: datetime) -> Mapping[UUID, Supply]:
        items = (self._tables.items.get(product_id) for product_id in product_ids)
        return {item.product_id: self._supply(item, now) for item in items if item is not None}

    # Helpers
    def _available(self, product_id: UUID, now: datetime) -> int:
        shelves = self._shelves(product_id)
        free = sum(stock.free for stock in shelves)
        return free + self._overdue(product_id, now).total()

    async def _tell_low(self, stock: Stock, before: int) -> None:
        item = self._tables.items.get(stock.product_id)
        if item is None or (threshold := item.low_stock_threshold) is None:
            return
        if stock.free <= threshold < before:
            fallen = StockLow(
                product_id=item.product_id,
                warehouse_id=stock.warehouse_id,
                sku=item.sku,
                available=stock.free,
                threshold=threshold,
            )
            await self.publish(fallen, system_call("stock"))

    def _supply(self, item: Item, now: datetime) -> Supply:
        shelves = self._shelves(item.product_id)
        late = self._overdue(item.product_id, now)
        return Supply(
            is_active(item),
            tuple(self._free(s.warehouse_id, s.there) for s in shelves),
            tuple(self._free(s.warehouse_id, late[s.warehouse_id]) for s in shelves),
            tuple(self._free(s.warehouse_id, s.backorder) for s in shelves),
        )

    def _free(self, warehouse_id: UUID, units: int) -> Free:
        depot = self._tables.warehouses.get(warehouse_id)
        return Free(warehouse_id, depot.priority if depot else 0, units)

    def _shelves(self, product_id: UUID) -> list[Stock]:
        places = self._tables.places.get(product_id) or ()
        shelves = (self._tables.stock.get((product_id, place)) for place in places)
        return [shelf for shelf in shelves if shelf is not None]

    def _add_shelf(self, stock: Stock) -> None:
        self._tables.stock.put((stock.product_id, stock.warehouse_id), stock)
        places = self._tables.places.get(stock.product_id) or ()
        self._tables.places.put(stock.product_id, tuple(sorted({*places, stock.warehouse_id})))

    def _overdue(self, product_id: UUID, now: datetime) -> Counter[UUID]:
        """What expired holds still have, per warehouse."""
        late: Counter[UUID] = Counter()
        for hold in self._due(now, [product_id]):
            for line in hold.lines:
                if line.product_id == product_id:
                    late[line.warehouse_id] += line.left
        return late

    def _due(self, now: datetime, product_ids: Collection[UUID] | None) -> list[Hold]:
        """Holds that are overdue, in the order of their ids."""
        keys = [None] if product_ids is None else product_ids
        ids = sorted(_NOBODY.union(*(self._tables.held.get(key) or _NOBODY for key in keys)))
        holds = (self._tables.holds.get(reservation_id) for reservation_id in ids)
        return [hold for hold in holds if hold is not None and hold.expires_at <= now]

    def _put(self, hold: Hold) -> Hold:
        self._tables.holds.put(hold.reservation_id, hold)
        for key in (None, *(line.product_id for line in hold.lines)):
            _index(self._tables.held, key, hold)
        if hold.customer_id is not None:
            _index(self._tables.of_customer, hold.customer_id, hold)
        return hold

    def _is_made(self, change: Change) -> bool:
        ids = self._tables.of_reference.get(change.reference) if change.reference else None
        others = (self._tables.movements.get(movement_id) for movement_id in ids or ())
        shelf = (change.product_id, change.warehouse_id)
        return change.movement_id in self._tables.movements or any(
            (other.product_id, other.warehouse_id) == shelf for other in others if other
        )

    def _recorded(self, change: Change, delta: int, on_hand: int) -> Movement:
        movement = Movement(
            movement_id=change.movement_id,
            product_id=change.product_id,
            warehouse_id=change.warehouse_id,
            delta=delta,
            on_hand_after=on_hand,
            # a count that finds what was known is no adjustment
            reason=change.reason if delta else Reason.COUNTED,
            note=change.note,
            reference=change.reference,
            actor=change.actor,
            created_at=change.created_at,
        )
        self._tables.movements.put(movement.movement_id, movement)
        ids = self._tables.ledger.get(change.product_id) or ()
        self._tables.ledger.put(change.product_id, (*ids, movement.movement_id))
        if change.reference is not None:
            others = self._tables.of_reference.get(change.reference) or ()
            self._tables.of_reference.put(change.reference, (*others, movement.movement_id))
        return movement


def _index(table: "Table[K, frozenset[UUID]]", key: K, hold: Hold) -> None:
    """Under this key is the hold while it is held, and not after."""
    before, mine = table.get(key) or _NOBODY, frozenset({hold.reservation_id})
    after = before | mine if hold.status == HELD else before - mine
    if after != before:
        table.put(key, after)


def is_active(item: Item) -> bool:
    return item.status == ProductStatus.ACTIVE
