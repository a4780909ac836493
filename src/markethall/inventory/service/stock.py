"""What staff ask of stock: what is where, and to write down what came and went."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from markethall.inventory.contract import (
    Adjustment,
    Movement,
    MovementNotFound,
    ProductNotFound,
    ProductStock,
    Reason,
    Reservation,
    ReservationQuery,
    StockLevel,
    WarehouseNotFound,
)
from markethall.inventory.domain import (
    MAIN_WAREHOUSE,
    Change,
    Stock,
    check_adjustment,
    too_few,
)
from markethall.inventory.ports import Database, ProductCache, Shelf, Store
from markethall.inventory.service.holds import ExpiredHolds
from markethall.shared.call import Call
from markethall.shared.clock import Clock
from markethall.shared.idempotency import Attempt
from markethall.shared.pages import Cursors, Page, PageQuery


class StockroomService:
    """A contract.Stockroom."""

    def __init__(
        self,
        database: Database,
        cache: ProductCache,
        expired: ExpiredHolds,
        cursors: Cursors,
        clock: Clock,
    ) -> None:
        self._database = database
        self._cache = cache
        self._expired = expired
        self._cursors = cursors
        self._clock = clock

    async def stock(self, call: Call, product_id: UUID) -> ProductStock:  # noqa: ARG002 - the contract
        async with self._database.reading() as shelf:
            levels = await _levels(shelf, product_id, self._clock())
        return ProductStock(
            product_id=product_id,
            available=_available(levels),
            warehouses=tuple(_level(level) for level in levels),
        )

    async def adjust(
        self, call: Call, product_id: UUID, command: Adjustment, attempt: Attempt
    ) -> Movement:
        check_adjustment(command)
        change = self._asked(call, product_id, command, attempt)

        async def move(store: Store) -> Movement:
            movement = await store.move(change) or await _refused(store, change)
            await store.finish(attempt, movement)
            return movement

        movement = await self._expired.without(move)
        await self._cache.forget([product_id], pages=False)
        return movement

    async def movements(
        self,
        call: Call,  # noqa: ARG002 - the contract
        product_id: UUID,
        query: PageQuery,
    ) -> Page[Movement]:
        name = f"movements:{product_id}"
        before = (self._cursors.decode(name, query.cursor) or [None])[0]
        async with self._database.reading() as shelf:
            rows = await shelf.movements(product_id, before, query.limit + 1)
            if not rows:
                await _levels(shelf, product_id, self._clock())
        page = self._cursors.page(name, rows, query.limit, lambda row: [row[0]])
        return Page(items=tuple(row[1] for row in page.items), next_cursor=page.next_cursor)

    async def movement(self, call: Call, product_id: UUID, movement_id: UUID) -> Movement:  # noqa: ARG002 - the contract
        async with self._database.reading() as shelf:
            movement = await shelf.movement(movement_id)
        if movement is None or movement.product_id != product_id:
            raise MovementNotFound(movement_id=str(movement_id))
        return movement

    async def reservations(self, call: Call, query: ReservationQuery) -> Page[Reservation]:  # noqa: ARG002 - the contract
        name = f"reservations:{query.order_id}"
        after = self._cursors.decode(name, query.cursor)
        async with self._database.reading() as shelf:
            holds = await shelf.holds_of(
                query.order_id, UUID(after[0]) if after else None, query.limit + 1
            )
        views = [hold.view() for hold in holds]
        return self._cursors.page(name, views, query.limit, lambda row: [str(row.reservation_id)])

    def _asked(self, call: Call, product_id: UUID, command: Adjustment, attempt: Attempt) -> Change:
        return Change(
            movement_id=attempt.id,
            product_id=product_id,
            warehouse_id=command.warehouse_id or MAIN_WAREHOUSE,
            delta=command.delta,
            counted=command.counted,
            reason=Reason(command.reason),
            note=command.note,
            reference=None,
            actor=call.actor.known_as,
            created_at=self._clock(),
        )


async def _levels(shelf: Shelf, product_id: UUID, now: datetime) -> Sequence[Stock]:
    """Raises ProductNotFound."""
    levels = await shelf.levels(product_id, now)
    if not levels:
        raise ProductNotFound(product_ids=[str(product_id)])
    return levels


def _available(levels: Sequence[Stock]) -> int:
    return sum(level.available for level in levels)


def _level(level: Stock) -> StockLevel:
    return StockLevel(
        warehouse_id=level.warehouse_id,
        on_hand=level.on_hand,
        reserved=level.reserved,
        available=level.available,
    )


async def _refused(store: Store, change: Change) -> Movement:
    """The same movement, when it was made before.

    Raises ProductNotFound, WarehouseNotFound, Shortage.
    """
    made = await store.movement(change.movement_id)
    if made is not None:
        return made
    levels = await _levels(store, change.product_id, change.created_at)
    level = next((level for level in levels if level.warehouse_id == change.warehouse_id), None)
    if level is None:
        raise WarehouseNotFound(warehouse_id=str(change.warehouse_id))
    raise too_few(level, change)
