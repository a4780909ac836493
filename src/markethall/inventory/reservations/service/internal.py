from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final
from uuid import UUID

from markethall.inventory.catalogue.ports import ProductCache
from markethall.inventory.contract import (
    Consume,
    Extend,
    ListOffers,
    ListReservationStates,
    MergeReservations,
    OutOfStock,
    ProductNotFound,
    ProductOffers,
    ReleasePart,
    ReservationStates,
    ReservationStatus,
    ReservationView,
    Reserve,
    Restock,
)
from markethall.inventory.reservations.domain.allocation import allocate_from_main_warehouse
from markethall.inventory.reservations.domain.reservations import (
    CustomerLimits,
    Reservation,
    ReservationLine,
    ShortLine,
    out_of_stock_error,
    quantity_by_product,
    reservation_closed_error,
)
from markethall.inventory.reservations.ports import ReadStore, Store
from markethall.inventory.reservations.service.allocation_retry import (
    AllocationFailed,
    AllocationPlan,
    AllocationRunner,
    ProductConcurrencyLimiter,
)
from markethall.inventory.stock.contract import MovementReason
from markethall.inventory.stock.domain import StockChange, StockQuantity
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.clock import Clock
from markethall.shared.kernel.ids import new_id
from markethall.shared.persistence.database import Database

# sorts before every id
_NO_ID: Final = UUID(int=0)


class InventoryService:
    """Implementation of the contract `Inventory` in this process.

    All transactions take locks in one order, so that they cannot deadlock: customer, reservation,
    then stock rows by product id and warehouse id.
    """

    def __init__(
        self,
        database: Database[ReadStore, Store],
        cache: ProductCache,
        allocation: AllocationRunner,
        limits: CustomerLimits,
        clock: Clock,
    ) -> None:
        self._database = database
        self._cache = cache
        self._allocation = allocation
        self._limits = limits
        self._clock = clock
        self._limiter = ProductConcurrencyLimiter()

    async def list_reservation_states(
        self, ctx: CallContext, page: ListReservationStates
    ) -> ReservationStates:
        after = (page.after_order_id or _NO_ID, page.after_reservation_id or _NO_ID)
        async with self._database.read_session() as store:
            states = await store.list_reservation_states(after, page.limit)
        return ReservationStates(items=tuple(states))

    async def list_offers(self, ctx: CallContext, query: ListOffers) -> ProductOffers:
        async with self._database.read_session() as store:
            offers = await store.list_offers(query.product_ids, query.currency, self._clock())
        return ProductOffers(items=tuple(offers))

    async def reserve(self, ctx: CallContext, command: Reserve) -> ReservationView:
        requested = quantity_by_product(command.lines)
        reservation = await self._reserve_single_statement(
            command, requested
        ) or await self._reserve_in_transaction(command, requested)
        return await self._invalidate_and_view(reservation)

    async def _reserve_single_statement(
        self, command: Reserve, requested: Mapping[UUID, int]
    ) -> Reservation | None:
        """Reserve one product in the main warehouse. This is enough for most orders.

        Return None if there are several products, or if the statement fails for any reason.
        """
        if len(requested) != 1:
            return None
        reservation = Reservation.from_command(command, self._clock())
        [stock_quantity] = allocate_from_main_warehouse(requested)
        limits = self._limits if command.limited else None
        async with (
            self._limiter.slot(stock_quantity.product_id),
            self._database.autocommit() as store,
        ):
            line = await store.reserve_single_statement(reservation, stock_quantity, limits)
        return replace(reservation, lines=(line,)) if line else None

    async def _reserve_in_transaction(
        self, command: Reserve, requested: Mapping[UUID, int]
    ) -> Reservation:
        """Reserve in several statements, at first in the main warehouse.

        Raises the errors of `reserve`.
        """
        main_warehouse_plan = AllocationPlan(allocate_from_main_warehouse(requested))

        async def reserve(store: Store, new_plan: AllocationPlan | None) -> Reservation:
            reservation = Reservation.from_command(command, self._clock())
            if not await store.insert_reservation(reservation):
                return await _get_reservation_for_update(store, reservation.reservation_id)
            if command.limited:
                usage = await store.get_customer_usage(
                    reservation, list(requested), reservation.reserved_at
                )
                self._limits.check(usage, requested)
            plan = new_plan or main_warehouse_plan
            await _reserve_lines(store, reservation, plan, requested)
            return reservation

        return await self._allocation.run(reserve)

    async def extend(self, ctx: CallContext, command: Extend) -> ReservationView:
        reservation_id, now = command.reservation_id, self._clock()
        async with self._database.transaction() as store:
            reservation = await store.extend_if_held(reservation_id, command.expires_at, now)
            if reservation is None:
                current = await store.get_reservation(reservation_id)
                raise reservation_closed_error(
                    reservation_id, current.effective_status(now) if current else None
                )
        return reservation.to_view(now)

    async def commit(self, ctx: CallContext, reservation_id: UUID) -> ReservationView:
        async with self._database.autocommit() as store:
            committed = await store.commit_if_held(reservation_id)
        if committed is None:
            committed = await self._allocation.run(
                lambda store, new_plan: _commit_not_held(store, reservation_id, new_plan)
            )
        return await self._invalidate_and_view(committed)

    async def consume(self, ctx: CallContext, command: Consume) -> ReservationView:
        async with self._database.transaction() as store:
            reservation = await _get_reservation_for_update(store, command.reservation_id)
            if not await store.list_movements_by_reference(command.fulfilment_id):
                quantities = reservation.consume(quantity_by_product(command.lines))
                await store.save_reservation_lines(reservation)
                await store.release_stock(quantities, is_consumed=True)
                sale = self._changes(ctx, MovementReason.SOLD, command.fulfilment_id, quantities)
                await self._record_sale(store, sale, quantities)
        return await self._invalidate_and_view(reservation)

    async def release_part(self, ctx: CallContext, command: ReleasePart) -> ReservationView:
        async with self._database.transaction() as store:
            reservation = await _get_reservation_for_update(store, command.reservation_id)
            if await store.record_partial_release(command.release_id, reservation.reservation_id):
                released = reservation.release_part(quantity_by_product(command.lines))
                await store.save_reservation_lines(reservation)
                await store.release_stock(released)
        return await self._invalidate_and_view(reservation)

    async def release(self, ctx: CallContext, reservation_id: UUID) -> ReservationView:
        async with self._database.transaction() as store:
            reservation = await store.get_reservation_for_update(reservation_id)
            if reservation is None:
                reservation = Reservation.tombstone(reservation_id, self._clock())
                if await store.insert_reservation(reservation):
                    return reservation.to_view(self._clock())
                # a concurrent `reserve` has inserted a reservation with this id
                reservation = await _get_reservation_for_update(store, reservation_id)
            released = reservation.release()
            await store.save_reservation(reservation)
            await store.release_stock(released)
        return await self._invalidate_and_view(reservation)

    async def merge(self, ctx: CallContext, command: MergeReservations) -> ReservationView:
        async with self._database.transaction() as store:
            ids = sorted({command.reservation_id, command.merged_reservation_id})
            locked = {one: await _get_reservation_for_update(store, one) for one in ids}
            reservation = locked[command.reservation_id]
            merged = locked[command.merged_reservation_id]
            if merged.status not in {ReservationStatus.RELEASED, ReservationStatus.CONSUMED}:
                is_same = reservation.reservation_id == merged.reservation_id
                if is_same or reservation.order_id != merged.order_id:
                    raise reservation_closed_error(merged.reservation_id, merged.status)
                reservation.merge(merged)
                # The merged reservation is saved first. Its lines are counted only at commit. By
                # then, the inserted lines of the other reservation have locked all stock rows in
                # the right order.
                await store.save_reservation_lines(merged)
                await store.replace_lines(reservation)
        return reservation.to_view(self._clock())

    async def restock(self, ctx: CallContext, command: Restock) -> None:
        quantities = allocate_from_main_warehouse(quantity_by_product(command.lines))
        changes = self._changes(ctx, MovementReason.RETURNED, command.restock_id, quantities)
        async with self._database.transaction() as store:
            recorded = {movement.product_id for movement in await store.apply_changes(changes)}
            missing = [c.product_id for c in changes if c.product_id not in recorded]
            # no change is recorded if an earlier call with this id has recorded all of them
            if missing and (
                recorded or not await store.list_movements_by_reference(command.restock_id)
            ):
                raise ProductNotFound(product_ids=list(map(str, missing)))
        self._cache.invalidate([change.product_id for change in changes], pages=False)

    async def _record_sale(
        self, store: Store, sale: Sequence[StockChange], quantities: Sequence[StockQuantity]
    ) -> None:
        """Record the movements of a sale.

        Raises OutOfStock if units of a product with tracked inventory are not on hand. If the
        inventory is not tracked, first record an adjustment that adds the units, because a movement
        must not make the units on hand negative.
        """
        recorded = {
            (movement.product_id, movement.warehouse_id)
            for movement in await store.apply_changes(sale)
        }
        missing = [change for change in sale if change.key not in recorded]
        if not missing:
            return
        untracked = await store.get_untracked_products([c.product_id for c in missing])
        not_on_hand = {change.key for change in missing if change.product_id not in untracked}
        if not_on_hand:
            unsold = [one for one in quantities if one.key in not_on_hand]
            raise await _not_on_hand_error(store, unsold, self._clock())
        await store.apply_changes([_untracked_supply(change) for change in missing])
        await store.apply_changes(missing)

    def _changes(
        self,
        ctx: CallContext,
        reason: MovementReason,
        reference: UUID,
        quantities: Sequence[StockQuantity],
    ) -> list[StockChange]:
        """Build the movements of units that are sold or returned."""
        now, sign = self._clock(), -1 if reason is MovementReason.SOLD else 1
        return [
            StockChange(
                movement_id=new_id(),
                product_id=stock_quantity.product_id,
                warehouse_id=stock_quantity.warehouse_id,
                delta=sign * stock_quantity.quantity,
                reason=reason,
                reference=reference,
                actor=ctx.actor.audit_name,
                created_at=now,
            )
            for stock_quantity in quantities
        ]

    async def _invalidate_and_view(self, reservation: Reservation) -> ReservationView:
        """Invalidate the cached products and return the view. Call it after the commit."""
        self._cache.invalidate([line.product_id for line in reservation.lines], pages=False)
        return reservation.to_view(self._clock())


def _untracked_supply(sale: StockChange) -> StockChange:
    """Build the adjustment that adds the units of a sale of an untracked product."""
    return replace(
        sale,
        movement_id=new_id(),
        delta=-(sale.delta or 0),
        reason=MovementReason.ADJUSTED,
        note="untracked stock",
        reference=None,
    )


async def _get_reservation_for_update(store: Store, reservation_id: UUID) -> Reservation:
    """Raises ReservationClosed when the reservation does not exist."""
    reservation = await store.get_reservation_for_update(reservation_id)
    if reservation is None:
        raise reservation_closed_error(reservation_id, None)
    return reservation


async def _not_on_hand_error(
    store: Store, unsold: Sequence[StockQuantity], now: datetime
) -> OutOfStock:
    """Build the error for units that were sold as backorder and are not on hand."""
    on_hand = {
        stock.key: stock.on_hand
        for stock_quantity in unsold
        for stock in await store.get_product_stock(stock_quantity.product_id, now)
    }
    return out_of_stock_error(
        [ShortLine(one.product_id, one.quantity, on_hand[one.key]) for one in unsold]
    )


async def _reserve_lines(
    store: Store, reservation: Reservation, plan: AllocationPlan, requested: Mapping[UUID, int]
) -> None:
    """Reserve the stock of the plan and set the lines. Raises AllocationFailed."""
    lines: list[ReservationLine] = []
    for stock_quantity in plan.quantities:
        line = await store.reserve_line(
            reservation, stock_quantity, include_backorder=plan.include_backorder
        )
        if line is None:
            raise AllocationFailed(requested, stock_quantity)
        lines.append(line)
    reservation.lines = tuple(lines)


async def _commit_not_held(
    store: Store, reservation_id: UUID, new_plan: AllocationPlan | None
) -> Reservation:
    """Commit a reservation that is not held. If it is expired, reserve its stock again.

    If `new_plan` is None, reserve in the warehouses of the existing lines. Else reserve the stock
    of the plan, and replace the lines. Raises AllocationFailed, ReservationClosed.
    """
    reservation = await _get_reservation_for_update(store, reservation_id)
    expired_quantities = reservation.commit()
    if not expired_quantities:
        await store.save_reservation(reservation)
        return reservation
    plan = new_plan or AllocationPlan(expired_quantities)
    for stock_quantity in plan.quantities:
        if not await store.reserve_again(stock_quantity, include_backorder=plan.include_backorder):
            # must_be_active=False, because a paid order is fulfilled even if a product is archived
            raise AllocationFailed(
                quantity_by_product(expired_quantities), stock_quantity, must_be_active=False
            )
    if new_plan:
        reservation.reassign(new_plan.quantities)
        await store.replace_lines(reservation)
    else:
        await store.save_reservation(reservation)
    return reservation
