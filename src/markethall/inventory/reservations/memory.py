"""Stock and reservations in memory."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final, TypeVar
from uuid import UUID

from markethall.inventory.catalogue.contract.fields import ProductStatus
from markethall.inventory.catalogue.domain.products import Product
from markethall.inventory.catalogue.memory.tables import Tables
from markethall.inventory.reservations.domain.allocation import FreeStock
from markethall.inventory.reservations.domain.reservations import (
    HELD,
    CustomerLimits,
    CustomerUsage,
    Reservation,
    ReservationLine,
    quantity_by_product,
)
from markethall.inventory.reservations.ports import Availability, ExpiredReservations
from markethall.inventory.stock.contract.movements import Movement, MovementReason, StockLow
from markethall.inventory.stock.domain.stock import (
    Stock,
    StockChange,
    StockQuantity,
    sum_by_stock_row,
)
from markethall.shared.composition.memory import MemoryUnitOfWork
from markethall.shared.kernel.call_context import system_context
from markethall.shared.kernel.clock import Clock
from markethall.shared.persistence.memory import Table

K = TypeVar("K")

_NO_IDS: Final[frozenset[UUID]] = frozenset()


class MemoryStock(MemoryUnitOfWork):
    """One transaction, or reads without one: stock and reservations."""

    def __init__(self, tables: Tables, clock: Clock) -> None:
        super().__init__(tables, clock)
        self._tables = tables

    async def get_product_stock(self, product_id: UUID, now: datetime) -> Sequence[Stock]:
        overdue = self._overdue_by_warehouse(product_id, now)
        return [
            replace(stock, overdue=overdue[stock.warehouse_id])
            for stock in self._stock_of_product(product_id)
        ]

    async def get_movement(self, movement_id: UUID) -> Movement | None:
        return self._tables.movements.get(movement_id)

    async def list_movements(
        self, product_id: UUID, before: int | None, limit: int
    ) -> Sequence[tuple[int, Movement]]:
        ids = self._tables.movement_ids_by_product.get(product_id) or ()
        last = len(ids) if before is None else before - 1
        numbers = range(last, max(0, last - limit), -1)
        found = ((number, self._tables.movements.get(ids[number - 1])) for number in numbers)
        return [(number, movement) for number, movement in found if movement]

    async def list_movements_by_reference(self, reference: UUID) -> Sequence[Movement]:
        ids = self._tables.movement_ids_by_reference.get(reference) or ()
        found = (self._tables.movements.get(movement_id) for movement_id in ids)
        return [movement for movement in found if movement]

    async def get_on_hand_at(self, product_id: UUID, at: datetime) -> Mapping[UUID, int]:
        on_hand = {stock.warehouse_id: 0 for stock in self._stock_of_product(product_id)}
        for movement_id in self._tables.movement_ids_by_product.get(product_id) or ():
            movement = self._tables.movements.get(movement_id)
            if movement is not None and movement.created_at <= at:
                on_hand[movement.warehouse_id] += movement.delta
        return on_hand

    async def get_warehouse_stock(
        self, product_ids: Collection[UUID], warehouse_id: UUID, now: datetime
    ) -> Sequence[Stock]:
        levels = [
            await self.get_product_stock(product_id, now) for product_id in sorted(product_ids)
        ]
        return [
            stock
            for product_levels in levels
            for stock in product_levels
            if stock.warehouse_id == warehouse_id
        ]

    async def get_skus(
        self, product_ids: Collection[UUID], skus: Collection[str]
    ) -> Mapping[UUID, str]:
        named_product_ids = (self._tables.product_ids_by_sku.get(sku.lower()) for sku in skus)
        items = (
            self._tables.products.get(key) for key in {*product_ids, *named_product_ids} if key
        )
        return {item.product_id: item.sku for item in items if item}

    async def apply_changes(self, changes: Sequence[StockChange]) -> Sequence[Movement]:
        in_order = sorted(changes, key=lambda change: (change.product_id, change.warehouse_id))
        made = [await self._apply_change(change) for change in in_order]
        return [movement for movement in made if movement]

    async def ensure_stock_rows(self, product_ids: Collection[UUID], warehouse_id: UUID) -> None:
        for product_id in product_ids:
            key = (product_id, warehouse_id)
            if product_id in self._tables.products and key not in self._tables.stock:
                self._insert_stock_row(Stock(*key))

    async def _apply_change(self, change: StockChange) -> Movement | None:
        key = (change.product_id, change.warehouse_id)
        stock = self._tables.stock.get(key)
        if stock is None or self._is_recorded(change):
            return None
        delta = change.delta_from(stock.on_hand)
        stock = replace(stock, on_hand=stock.on_hand + delta)
        if stock.on_hand < 0 or stock.allocatable < 0:
            return None
        allocatable_before, stock = stock.allocatable - delta, stock.with_backorder_clamped()
        self._tables.stock.put(key, stock)
        if change.reason != MovementReason.SOLD:
            await self._publish_stock_low(stock, allocatable_before)
        return self._record_movement(change, delta, stock.on_hand)

    async def is_fulfilment_recorded(self, reference: UUID) -> bool:
        return reference in self._tables.movement_ids_by_reference

    # Reservations

    async def reserve_single_statement(
        self, reservation: Reservation, stock_quantity: StockQuantity, limits: CustomerLimits | None
    ) -> None:
        """Never: here the steps cost nothing."""

    async def insert_reservation(self, reservation: Reservation) -> bool:
        if reservation.reservation_id in self._tables.reservations:
            return False
        self._store_reservation(reservation)
        if reservation.order_id is not None:
            others = self._tables.reservation_ids_by_order.get(reservation.order_id) or ()
            self._tables.reservation_ids_by_order.put(
                reservation.order_id, (*others, reservation.reservation_id)
            )
        return True

    async def get_customer_usage(
        self, reservation: Reservation, product_ids: Collection[UUID], now: datetime
    ) -> CustomerUsage:
        ids = (
            self._tables.held_ids_by_customer.get(reservation.customer_id)
            if reservation.customer_id
            else None
        )
        found = (
            self._tables.reservations.get(key)
            for key in (ids or _NO_IDS) - {reservation.reservation_id}
        )
        other_reservations = [
            other_reservation
            for other_reservation in found
            if other_reservation and other_reservation.effective_status(now) == HELD
        ]
        lines = (line.remaining for other in other_reservations for line in other.lines)
        return CustomerUsage(
            len(other_reservations),
            quantity_by_product(s for s in lines if s.product_id in product_ids),
        )

    async def reserve_line(
        self, reservation: Reservation, stock_quantity: StockQuantity, *, include_backorder: bool
    ) -> ReservationLine | None:
        item = self._tables.products.get(stock_quantity.product_id)
        if (
            item is None
            or not is_active(item)
            or not await self.reserve_again(stock_quantity, include_backorder=include_backorder)
        ):
            return None
        key = (stock_quantity.product_id, stock_quantity.warehouse_id)
        price, _ = item.price_at(reservation.reserved_at)
        line = ReservationLine(*key, item.sku, item.name, price, stock_quantity.quantity)
        stored = self._tables.reservations.get(reservation.reservation_id)
        if stored is not None:
            self._store_reservation(replace(stored, lines=(*stored.lines, line)))
        return line

    async def reserve_again(
        self, stock_quantity: StockQuantity, *, include_backorder: bool
    ) -> bool:
        key = (stock_quantity.product_id, stock_quantity.warehouse_id)
        stock = self._tables.stock.get(key)
        if (
            stock is None
            or (stock.allocatable if include_backorder else stock.unreserved)
            < stock_quantity.quantity
        ):
            return False
        allocatable_before, stock = (
            stock.allocatable,
            replace(stock, reserved=stock.reserved + stock_quantity.quantity),
        )
        self._tables.stock.put(key, stock)
        await self._publish_stock_low(stock, allocatable_before)
        return True

    async def extend_if_held(
        self, reservation_id: UUID, expires_at: datetime, now: datetime
    ) -> Reservation | None:
        reservation = self._tables.reservations.get(reservation_id)
        if reservation is None or reservation.effective_status(now) != HELD:
            return None
        reservation.extend(expires_at, now)
        return self._store_reservation(reservation)

    async def commit_if_held(self, reservation_id: UUID) -> Reservation | None:
        reservation = self._tables.reservations.get(reservation_id)
        if reservation is None or reservation.status != HELD:
            return None
        reservation.commit()
        return self._store_reservation(reservation)

    async def get_reservation(self, reservation_id: UUID) -> Reservation | None:
        return self._tables.reservations.get(reservation_id)

    async def get_reservation_for_update(self, reservation_id: UUID) -> Reservation | None:
        return self._tables.reservations.get(reservation_id)

    async def list_order_reservations(
        self, order_id: UUID, after: UUID | None, limit: int
    ) -> Sequence[Reservation]:
        ids = sorted(self._tables.reservation_ids_by_order.get(order_id) or ())
        reservations = (
            self._tables.reservations.get(key) for key in ids if after is None or key > after
        )
        return [reservation for reservation in reservations if reservation is not None][:limit]

    async def save_reservation(self, reservation: Reservation) -> None:
        self._store_reservation(reservation)

    async def save_reservation_lines(self, reservation: Reservation) -> None:
        self._store_reservation(reservation)

    async def replace_lines(self, reservation: Reservation) -> None:
        self._store_reservation(reservation)

    async def record_partial_release(self, release_id: UUID, reservation_id: UUID) -> bool:
        return self._tables.part_releases.add(release_id, reservation_id)

    async def release_stock(
        self, quantities: Sequence[StockQuantity], *, is_consumed: bool = False
    ) -> None:
        for stock_quantity in quantities:
            key = (stock_quantity.product_id, stock_quantity.warehouse_id)
            stock = self._tables.stock.get(key)
            if stock is not None:
                stock = replace(stock, reserved=stock.reserved - stock_quantity.quantity)
                self._tables.stock.put(
                    key, stock if is_consumed else stock.with_backorder_clamped()
                )

    async def expire_reservations(
        self, now: datetime, limit: int, product_ids: Collection[UUID] | None
    ) -> ExpiredReservations:
        overdue_reservations = self._overdue_reservations(now, product_ids)[:limit]
        quantities: list[StockQuantity] = []
        for reservation in overdue_reservations:
            quantities += reservation.expire()
            self._store_reservation(reservation)
        return ExpiredReservations(len(overdue_reservations), sum_by_stock_row(quantities))

    async def get_availability(
        self, product_ids: Collection[UUID], now: datetime
    ) -> Mapping[UUID, Availability]:
        items = (self._tables.products.get(product_id) for product_id in product_ids)
        return {
            item.product_id: self._availability(item, now) for item in items if item is not None
        }

    # Helpers
    def _available(self, product_id: UUID, now: datetime) -> int:
        stock_rows = self._stock_of_product(product_id)
        allocatable = sum(stock.allocatable for stock in stock_rows)
        return allocatable + self._overdue_by_warehouse(product_id, now).total()

    async def _publish_stock_low(self, stock: Stock, allocatable_before: int) -> None:
        item = self._tables.products.get(stock.product_id)
        if item is None or (threshold := item.low_stock_threshold) is None:
            return
        if stock.allocatable <= threshold < allocatable_before:
            event = StockLow(
                product_id=item.product_id,
                warehouse_id=stock.warehouse_id,
                sku=item.sku,
                available=stock.allocatable,
                threshold=threshold,
            )
            await self.publish(event, system_context("stock"))

    def _availability(self, item: Product, now: datetime) -> Availability:
        stock_rows = self._stock_of_product(item.product_id)
        overdue = self._overdue_by_warehouse(item.product_id, now)
        return Availability(
            is_active(item),
            tuple(self._free_stock(stock.warehouse_id, stock.unreserved) for stock in stock_rows),
            tuple(self._free_stock(s.warehouse_id, overdue[s.warehouse_id]) for s in stock_rows),
            tuple(self._free_stock(s.warehouse_id, s.backorder) for s in stock_rows),
        )

    def _free_stock(self, warehouse_id: UUID, quantity: int) -> FreeStock:
        warehouse = self._tables.warehouses.get(warehouse_id)
        return FreeStock(warehouse_id, warehouse.priority if warehouse else 0, quantity)

    def _stock_of_product(self, product_id: UUID) -> list[Stock]:
        warehouse_ids = self._tables.warehouse_ids_by_product.get(product_id) or ()
        stock_rows = (
            self._tables.stock.get((product_id, warehouse_id)) for warehouse_id in warehouse_ids
        )
        return [stock for stock in stock_rows if stock is not None]

    def _insert_stock_row(self, stock: Stock) -> None:
        self._tables.stock.put((stock.product_id, stock.warehouse_id), stock)
        warehouse_ids = self._tables.warehouse_ids_by_product.get(stock.product_id) or ()
        self._tables.warehouse_ids_by_product.put(
            stock.product_id, tuple(sorted({*warehouse_ids, stock.warehouse_id}))
        )

    def _overdue_by_warehouse(self, product_id: UUID, now: datetime) -> Counter[UUID]:
        """What expired holds still have, per warehouse."""
        overdue: Counter[UUID] = Counter()
        for reservation in self._overdue_reservations(now, [product_id]):
            for line in reservation.lines:
                if line.product_id == product_id:
                    overdue[line.warehouse_id] += line.remaining_quantity
        return overdue

    def _overdue_reservations(
        self, now: datetime, product_ids: Collection[UUID] | None
    ) -> list[Reservation]:
        """Holds that are overdue, in the order of their ids."""
        keys = [None] if product_ids is None else product_ids
        ids = sorted(
            _NO_IDS.union(*(self._tables.held_ids_by_product.get(key) or _NO_IDS for key in keys))
        )
        reservations = (self._tables.reservations.get(reservation_id) for reservation_id in ids)
        return [
            reservation
            for reservation in reservations
            if reservation is not None and reservation.expires_at <= now
        ]

    def _store_reservation(self, reservation: Reservation) -> Reservation:
        self._tables.reservations.put(reservation.reservation_id, reservation)
        for key in (None, *(line.product_id for line in reservation.lines)):
            _update_held_index(self._tables.held_ids_by_product, key, reservation)
        if reservation.customer_id is not None:
            _update_held_index(
                self._tables.held_ids_by_customer, reservation.customer_id, reservation
            )
        return reservation

    def _is_recorded(self, change: StockChange) -> bool:
        ids = (
            self._tables.movement_ids_by_reference.get(change.reference)
            if change.reference
            else None
        )
        movements = (self._tables.movements.get(movement_id) for movement_id in ids or ())
        key = (change.product_id, change.warehouse_id)
        return change.movement_id in self._tables.movements or any(
            (movement.product_id, movement.warehouse_id) == key
            for movement in movements
            if movement
        )

    def _record_movement(self, change: StockChange, delta: int, on_hand: int) -> Movement:
        movement = Movement(
            movement_id=change.movement_id,
            product_id=change.product_id,
            warehouse_id=change.warehouse_id,
            delta=delta,
            on_hand_after=on_hand,
            # a count that finds what was known is no adjustment
            reason=change.reason if delta else MovementReason.COUNTED,
            note=change.note,
            reference=change.reference,
            actor=change.actor,
            created_at=change.created_at,
        )
        self._tables.movements.put(movement.movement_id, movement)
        ids = self._tables.movement_ids_by_product.get(change.product_id) or ()
        self._tables.movement_ids_by_product.put(change.product_id, (*ids, movement.movement_id))
        if change.reference is not None:
            movement_ids = self._tables.movement_ids_by_reference.get(change.reference) or ()
            self._tables.movement_ids_by_reference.put(
                change.reference, (*movement_ids, movement.movement_id)
            )
        return movement


def _update_held_index(
    table: "Table[K, frozenset[UUID]]", key: K, reservation: Reservation
) -> None:
    """Under this key is the hold while it is held, and not after."""
    before, reservation_ids = table.get(key) or _NO_IDS, frozenset({reservation.reservation_id})
    after = before | reservation_ids if reservation.status == HELD else before - reservation_ids
    if after != before:
        table.put(key, after)


def is_active(item: Product) -> bool:
    return item.status == ProductStatus.ACTIVE
