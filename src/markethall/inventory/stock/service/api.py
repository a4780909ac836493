from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from pydantic import TypeAdapter

from markethall.inventory.catalogue.domain.text_keys import sku_key
from markethall.inventory.catalogue.ports import ProductCache
from markethall.inventory.contract import ProductNotFound
from markethall.inventory.stock.contract import (
    Adjustment,
    HistoricalProductStock,
    HistoricalStock,
    Movement,
    MovementNotFound,
    MovementReason,
    NewStocktake,
    NewTransfer,
    ProductStock,
    StockLevel,
    Stocktake,
    StocktakeNotFound,
    Transfer,
    TransferNotFound,
    WarehouseClosed,
    WarehouseNotFound,
)
from markethall.inventory.stock.domain import (
    MAIN_WAREHOUSE,
    InsufficientStock,
    Stock,
    StockChange,
    check_adjustment,
    check_stocktake,
    check_transfer,
    counts_by_product,
    movement_shortage,
    plan_transfer,
    stocktake_from_movements,
    stocktake_shortage,
    transfer_from_movements,
)
from markethall.inventory.stock.ports import ReadStore, ReservationExpiry, Store
from markethall.shared.idempotency.records import IdempotentCommand
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.clock import Clock
from markethall.shared.kernel.ids import new_id
from markethall.shared.kernel.pagination import Cursors, Page, PageQuery
from markethall.shared.persistence.database import Database

_MOVEMENT_KEYSET: Final = TypeAdapter(int)


class StockroomService:
    """Implementation of `Stockroom`."""

    def __init__(
        self,
        database: Database[ReadStore, Store],
        cache: ProductCache,
        expiry: ReservationExpiry,
        cursors: Cursors,
        clock: Clock,
    ) -> None:
        self._database = database
        self._cache = cache
        self._expiry = expiry
        self._cursors = cursors
        self._clock = clock

    async def get_stock(self, ctx: CallContext, product_id: UUID) -> ProductStock:
        async with self._database.read_session() as reads:
            levels = await _get_levels_or_404(reads, product_id, self._clock())
        return ProductStock(
            product_id=product_id,
            available=sum(level.available for level in levels),
            warehouses=tuple(
                StockLevel(**vars(level), available=level.available) for level in levels
            ),
        )

    async def get_stock_at(
        self, ctx: CallContext, product_id: UUID, at: datetime
    ) -> HistoricalProductStock:
        async with self._database.read_session() as reads:
            on_hand = await reads.get_on_hand_at(product_id, at)
        if not on_hand:
            raise ProductNotFound(product_ids=[str(product_id)])
        return HistoricalProductStock(
            product_id=product_id,
            at=at,
            on_hand=sum(on_hand.values()),
            warehouses=tuple(
                HistoricalStock(warehouse_id=warehouse_id, on_hand=quantity)
                for warehouse_id, quantity in on_hand.items()
            ),
        )

    async def adjust(
        self, ctx: CallContext, product_id: UUID, command: Adjustment, attempt: IdempotentCommand
    ) -> Movement:
        check_adjustment(command)
        change = self._adjustment_change(ctx, product_id, command, attempt)

        async def move(store: Store) -> Movement:
            await _ensure_stock_rows(store, [product_id], [change.warehouse_id])
            moved = await store.apply_changes([change])
            movement = moved[0] if moved else await store.get_movement(change.movement_id)
            if movement is None:
                raise await _shortage(store, [change])
            await store.store_response(attempt, movement)
            return movement

        movement = await self._expiry.run_after_expiring(move)
        self._cache.invalidate([product_id], pages=False)
        return movement

    async def transfer(
        self, ctx: CallContext, command: NewTransfer, attempt: IdempotentCommand
    ) -> Transfer:
        check_transfer(command)
        movement_ids = (new_id(), new_id())
        changes = plan_transfer(
            command, attempt.id, movement_ids, ctx.actor.audit_name, self._clock()
        )

        async def move(store: Store) -> Transfer:
            await _ensure_stock_rows(
                store,
                [command.product_id],
                [command.from_warehouse_id, command.to_warehouse_id],
            )
            transfer = transfer_from_movements(await _apply_all_changes(store, changes))
            await store.store_response(attempt, transfer)
            return transfer

        transfer = await self._expiry.run_after_expiring(move)
        self._cache.invalidate([command.product_id], pages=False)
        return transfer

    async def get_transfer(self, ctx: CallContext, transfer_id: UUID) -> Transfer:
        async with self._database.read_session() as reads:
            movements = await reads.list_movements_by_reference(transfer_id)
        if not movements or movements[0].reason != MovementReason.TRANSFERRED:
            raise TransferNotFound(transfer_id=str(transfer_id))
        return transfer_from_movements(movements)

    async def record_stocktake(
        self, ctx: CallContext, command: NewStocktake, attempt: IdempotentCommand
    ) -> Stocktake:
        check_stocktake(command)

        async def record(store: Store) -> Stocktake:
            skus = await _get_skus_or_404(store, command)
            changes = self._stocktake_changes(
                ctx, command, attempt, counts_by_product(command.lines, skus)
            )
            await _ensure_stock_rows(store, list(skus), [changes[0].warehouse_id])
            stocktake = stocktake_from_movements(await _apply_all_changes(store, changes), skus)
            await store.store_response(attempt, stocktake)
            return stocktake

        stocktake = await self._expiry.run_after_expiring(record)
        self._cache.invalidate([line.product_id for line in stocktake.lines], pages=False)
        return stocktake

    async def get_stocktake(self, ctx: CallContext, stocktake_id: UUID) -> Stocktake:
        async with self._database.read_session() as reads:
            movements = await reads.list_movements_by_reference(stocktake_id)
            skus = await reads.get_skus([movement.product_id for movement in movements], ())
        if not movements or movements[0].reason != MovementReason.COUNTED:
            raise StocktakeNotFound(stocktake_id=str(stocktake_id))
        return stocktake_from_movements(movements, skus)

    async def list_movements(
        self, ctx: CallContext, product_id: UUID, query: PageQuery
    ) -> Page[Movement]:
        name = f"movements:{product_id}"
        before = self._cursors.decode(name, query.cursor, _MOVEMENT_KEYSET)
        async with self._database.read_session() as reads:
            rows = await reads.list_movements(product_id, before, query.limit + 1)
            if not rows:
                await _get_levels_or_404(reads, product_id, self._clock())
        page = self._cursors.build_page(name, rows, query.limit, lambda row: row[0])
        return Page(items=tuple(row[1] for row in page.items), next_cursor=page.next_cursor)

    async def get_movement(self, ctx: CallContext, product_id: UUID, movement_id: UUID) -> Movement:
        async with self._database.read_session() as reads:
            movement = await reads.get_movement(movement_id)
        if movement is None or movement.product_id != product_id:
            raise MovementNotFound(movement_id=str(movement_id))
        return movement

    def _adjustment_change(
        self, ctx: CallContext, product_id: UUID, command: Adjustment, attempt: IdempotentCommand
    ) -> StockChange:
        return StockChange(
            movement_id=attempt.id,
            product_id=product_id,
            warehouse_id=command.warehouse_id or MAIN_WAREHOUSE,
            delta=command.delta,
            counted=command.counted,
            reason=MovementReason(command.reason),
            note=command.note,
            actor=ctx.actor.audit_name,
            created_at=self._clock(),
        )

    def _stocktake_changes(
        self,
        ctx: CallContext,
        command: NewStocktake,
        attempt: IdempotentCommand,
        counts: Mapping[UUID, int],
    ) -> list[StockChange]:
        now = self._clock()
        return [
            StockChange(
                movement_id=new_id(),
                product_id=product_id,
                warehouse_id=command.warehouse_id or MAIN_WAREHOUSE,
                counted=counted,
                reason=MovementReason.COUNTED,
                note=command.note,
                reference=attempt.id,
                actor=ctx.actor.audit_name,
                created_at=now,
            )
            for product_id, counted in counts.items()
        ]


async def _ensure_stock_rows(
    store: Store, product_ids: Collection[UUID], warehouse_ids: Iterable[UUID]
) -> None:
    """Insert missing stock rows, except in the main warehouse, where every product has one.

    Raises WarehouseNotFound, WarehouseClosed.
    """
    # sorted, because transactions that lock warehouses in different orders could deadlock
    for warehouse_id in sorted({*warehouse_ids} - {MAIN_WAREHOUSE}):
        warehouse = await store.get_warehouse_for_share(warehouse_id)
        if warehouse is None:
            raise WarehouseNotFound(warehouse_id=str(warehouse_id))
        if not warehouse.active:
            raise WarehouseClosed(warehouse_id=str(warehouse_id))
        await store.ensure_stock_rows(product_ids, warehouse_id)


async def _apply_all_changes(store: Store, changes: Sequence[StockChange]) -> Sequence[Movement]:
    """Apply all changes, or return the movements that an earlier attempt recorded.

    Raises ProductNotFound, InsufficientStock. The caller must then roll back the transaction,
    because some of the changes may be applied.
    """
    movements = await store.apply_changes(changes)
    if len(movements) == len(changes):
        return movements
    reference = changes[0].reference
    if (
        not movements
        and reference
        and (earlier := await store.list_movements_by_reference(reference))
    ):
        return earlier
    changed_keys = {(movement.product_id, movement.warehouse_id) for movement in movements}
    raise await _shortage(store, [each for each in changes if each.key not in changed_keys])


async def _get_levels_or_404(reads: ReadStore, product_id: UUID, now: datetime) -> Sequence[Stock]:
    """Raises ProductNotFound."""
    levels = await reads.get_product_stock(product_id, now)
    if not levels:
        raise ProductNotFound(product_ids=[str(product_id)])
    return levels


async def _shortage(store: Store, refused: Sequence[StockChange]) -> InsufficientStock:
    """Build the error for changes that `apply_changes` did not apply.

    The changes would leave fewer units on hand than are reserved. Raises ProductNotFound if a
    change has no stock row.
    """
    stock_by_key = {
        level.key: level
        for warehouse_id in {change.warehouse_id for change in refused}
        for level in await store.get_warehouse_stock(
            [change.product_id for change in refused], warehouse_id, refused[0].created_at
        )
    }
    unknown = [str(change.product_id) for change in refused if change.key not in stock_by_key]
    if unknown:
        raise ProductNotFound(product_ids=unknown)
    short_changes = [(stock_by_key[change.key], change) for change in refused]
    is_stocktake = refused[0].reference is not None and refused[0].counted is not None
    return (
        stocktake_shortage(short_changes) if is_stocktake else movement_shortage(*short_changes[0])
    )


async def _get_skus_or_404(store: Store, command: NewStocktake) -> Mapping[UUID, str]:
    """Return the SKUs of the counted products, by product id. Raises ProductNotFound."""
    product_ids = [line.product_id for line in command.lines if line.product_id is not None]
    skus = [line.sku for line in command.lines if line.sku is not None]
    skus_by_product = await store.get_skus(product_ids, skus)
    known_skus = {sku_key(sku) for sku in skus_by_product.values()}
    if unknown_ids := [
        str(product_id) for product_id in product_ids if product_id not in skus_by_product
    ]:
        raise ProductNotFound(product_ids=unknown_ids)
    if unknown_skus := [sku for sku in skus if sku_key(sku) not in known_skus]:
        raise ProductNotFound(sku=unknown_skus[0])
    return skus_by_product
