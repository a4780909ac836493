"""What staff ask of stock: what is where, and to write down what came and went."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from uuid import UUID

from markethall.inventory.contract import (
    Adjustment,
    Movement,
    MovementNotFound,
    NewStocktake,
    NewTransfer,
    ProductNotFound,
    ProductStock,
    ProductStockThen,
    Reason,
    Reservation,
    ReservationQuery,
    StockLevel,
    Stocktake,
    StocktakeNotFound,
    StockThen,
    Transfer,
    TransferNotFound,
    WarehouseClosed,
    WarehouseNotFound,
)
from markethall.inventory.domain import (
    MAIN_WAREHOUSE,
    Change,
    Shortage,
    Stock,
    available_of,
    check_adjustment,
    check_stocktake,
    check_transfer,
    counts_of,
    stocktake_of,
    too_few,
    too_many,
    transfer_of,
    transferred,
)
from markethall.inventory.ports import Database, ProductCache, Shelf, Store
from markethall.inventory.service.holds import ExpiredHolds
from markethall.shared.call import Call
from markethall.shared.clock import Clock
from markethall.shared.idempotency import Attempt
from markethall.shared.ids import new_id
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
            available=available_of(levels),
            warehouses=tuple(_level(level) for level in levels),
        )

    async def stock_at(self, call: Call, product_id: UUID, at: datetime) -> ProductStockThen:  # noqa: ARG002 - the contract
        async with self._database.reading() as shelf:
            then = await shelf.on_hand_at(product_id, at)
        if not then:
            raise ProductNotFound(product_ids=[str(product_id)])
        return ProductStockThen(
            product_id=product_id,
            at=at,
            on_hand=sum(then.values()),
            warehouses=tuple(
                StockThen(warehouse_id=key, on_hand=units) for key, units in then.items()
            ),
        )

    async def adjust(
        self, call: Call, product_id: UUID, command: Adjustment, attempt: Attempt
    ) -> Movement:
        check_adjustment(command)
        change = self._asked(call, product_id, command, attempt)

        async def move(store: Store) -> Movement:
            await _open_shelves(store, [product_id], [change.warehouse_id])
            moved = await store.move([change])
            movement = moved[0] if moved else await store.movement(change.movement_id)
            if movement is None:
                raise await _short(store, [change])
            await store.finish(attempt, movement)
            return movement

        movement = await self._expired.without(move)
        self._cache.invalidate([product_id], pages=False)
        return movement

    async def transfer(self, call: Call, command: NewTransfer, attempt: Attempt) -> Transfer:
        check_transfer(command)
        ids = (new_id(), new_id())
        changes = transferred(command, attempt.id, ids, call.actor.known_as, self._clock())

        async def move(store: Store) -> Transfer:
            await _open_shelves(
                store,
                [command.product_id],
                [command.from_warehouse_id, command.to_warehouse_id],
            )
            transfer = transfer_of(await _all_moved(store, changes))
            await store.finish(attempt, transfer)
            return transfer

        transfer = await self._expired.without(move)
        self._cache.invalidate([command.product_id], pages=False)
        return transfer

    async def transfer_made(self, call: Call, transfer_id: UUID) -> Transfer:  # noqa: ARG002 - the contract
        async with self._database.reading() as shelf:
            movements = await shelf.movements_by(transfer_id)
        if not _are(Reason.TRANSFERRED, movements):
            raise TransferNotFound(transfer_id=str(transfer_id))
        return transfer_of(movements)

    async def count(self, call: Call, command: NewStocktake, attempt: Attempt) -> Stocktake:
        check_stocktake(command)

        async def count(store: Store) -> Stocktake:
            skus = await _named(store, command)
            changes = self._counted(call, command, attempt, counts_of(command.lines, skus))
            await _open_shelves(store, list(skus), [changes[0].warehouse_id])
            stocktake = stocktake_of(await _all_moved(store, changes), skus)
            await store.finish(attempt, stocktake)
            return stocktake

        stocktake = await self._expired.without(count)
        self._cache.invalidate([line.product_id for line in stocktake.lines], pages=False)
        return stocktake

    async def stocktake(self, call: Call, stocktake_id: UUID) -> Stocktake:  # noqa: ARG002 - the contract
        async with self._database.reading() as shelf:
            movements = await shelf.movements_by(stocktake_id)
            skus = await shelf.skus([movement.product_id for movement in movements], ())
        if not _are(Reason.COUNTED, movements):
            raise StocktakeNotFound(stocktake_id=str(stocktake_id))
        return stocktake_of(movements, skus)

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
        now = self._clock()
        views = [hold.view(now) for hold in holds]
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

    def _counted(
        self, call: Call, command: NewStocktake, attempt: Attempt, counts: Mapping[UUID, int]
    ) -> list[Change]:
        now = self._clock()
        return [
            Change(
                movement_id=new_id(),
                product_id=product_id,
                warehouse_id=command.warehouse_id or MAIN_WAREHOUSE,
                delta=None,
                counted=counted,
                reason=Reason.COUNTED,
                note=command.note,
                reference=attempt.id,
                actor=call.actor.known_as,
                created_at=now,
            )
            for product_id, counted in counts.items()
        ]


async def _open_shelves(
    store: Store, product_ids: Collection[UUID], warehouse_ids: Iterable[UUID]
) -> None:
    """The main warehouse is always open, and every product has a shelf there.

    Raises WarehouseNotFound, WarehouseClosed.
    """
    # sorted: whoever needs several warehouses waits for them in the same order
    for warehouse_id in sorted({*warehouse_ids} - {MAIN_WAREHOUSE}):
        depot = await store.open_depot(warehouse_id)
        if depot is None:
            raise WarehouseNotFound(warehouse_id=str(warehouse_id))
        if not depot.active:
            raise WarehouseClosed(warehouse_id=str(warehouse_id))
        await store.open_shelves(product_ids, warehouse_id)


async def _all_moved(store: Store, changes: Sequence[Change]) -> Sequence[Movement]:
    """They, or those that the same command has made before.

    Raises ProductNotFound, Shortage.
    """
    moved = await store.move(changes)
    if len(moved) == len(changes):
        return moved
    reference = changes[0].reference
    if not moved and reference and (before := await store.movements_by(reference)):
        return before
    made = {(movement.product_id, movement.warehouse_id) for movement in moved}
    raise await _short(store, [c for c in changes if (c.product_id, c.warehouse_id) not in made])


async def _levels(shelf: Shelf, product_id: UUID, now: datetime) -> Sequence[Stock]:
    """Raises ProductNotFound."""
    levels = await shelf.levels(product_id, now)
    if not levels:
        raise ProductNotFound(product_ids=[str(product_id)])
    return levels


def _level(level: Stock) -> StockLevel:
    return StockLevel(
        warehouse_id=level.warehouse_id,
        on_hand=level.on_hand,
        reserved=level.reserved,
        available=level.available,
    )


async def _short(store: Store, refused: Sequence[Change]) -> Shortage:
    """Why these movements could not be made. Raises ProductNotFound."""
    shelves = {
        (level.product_id, level.warehouse_id): level
        for warehouse_id in {change.warehouse_id for change in refused}
        for level in await store.shelves(
            [change.product_id for change in refused], warehouse_id, refused[0].created_at
        )
    }
    unknown = [
        str(change.product_id)
        for change in refused
        if (change.product_id, change.warehouse_id) not in shelves
    ]
    if unknown:
        raise ProductNotFound(product_ids=unknown)
    short = [(shelves[change.product_id, change.warehouse_id], change) for change in refused]
    of_stocktake = refused[0].reference is not None and refused[0].counted is not None
    return too_many(short) if of_stocktake else too_few(*short[0])


async def _named(store: Store, command: NewStocktake) -> Mapping[UUID, str]:
    """The SKUs of the products that were counted. Raises ProductNotFound."""
    ids = [line.product_id for line in command.lines if line.product_id is not None]
    skus = [line.sku for line in command.lines if line.sku is not None]
    found = await store.skus(ids, skus)
    known = {sku.lower() for sku in found.values()}
    if unknown := [str(product_id) for product_id in ids if product_id not in found]:
        raise ProductNotFound(product_ids=unknown)
    if unnamed := [sku for sku in skus if sku.lower() not in known]:
        raise ProductNotFound(sku=unnamed[0])
    return found


def _are(reason: Reason, movements: Sequence[Movement]) -> bool:
    return bool(movements) and movements[0].reason == reason
