from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final, TypeVar
from uuid import UUID

from markethall.inventory.catalogue.domain.products import Product
from markethall.inventory.catalogue.memory import find_rows
from markethall.inventory.contract import ProductOffer, ReservationState
from markethall.inventory.reservations.domain.allocation import FreeStock
from markethall.inventory.reservations.domain.integrity import (
    OnHandSum,
    OverdueReservation,
    ReservedSum,
)
from markethall.inventory.reservations.domain.reservations import (
    COMMITTED,
    HELD,
    CustomerLimits,
    CustomerUsage,
    Reservation,
    ReservationLine,
    quantity_by_product,
)
from markethall.inventory.reservations.ports import Availability, ExpiredReservations
from markethall.inventory.stock.domain import Stock, StockQuantity, sum_by_stock_row
from markethall.inventory.stock.memory import MemoryStockStore, StockTables
from markethall.shared.persistence.memory import Table

K = TypeVar("K")

_NO_IDS: Final[frozenset[UUID]] = frozenset()


class ReservationTables(StockTables):
    def __init__(self) -> None:
        super().__init__()
        self.reservations: Table[UUID, Reservation] = Table()
        self.reservation_ids_by_order: Table[UUID, tuple[UUID, ...]] = Table()
        # key: release id; value: reservation id
        self.partial_releases: Table[UUID, UUID] = Table()
        self.held_ids_by_customer: Table[UUID, frozenset[UUID]] = Table()
        # the key None holds the ids of all held reservations
        self.held_ids_by_product: Table[UUID | None, frozenset[UUID]] = Table()


class MemoryReservationStore(MemoryStockStore):
    _tables: ReservationTables

    async def reserve_single_statement(
        self, reservation: Reservation, stock_quantity: StockQuantity, limits: CustomerLimits | None
    ) -> None:
        """Return None: the caller then reserves in a transaction, which is as fast in memory."""

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
        found = find_rows(
            self._tables.reservations, (ids or _NO_IDS) - {reservation.reservation_id}
        )
        others = [other for other in found if other.effective_status(now) == HELD]
        lines = (line.remaining for other in others for line in other.lines)
        return CustomerUsage(
            len(others), quantity_by_product(s for s in lines if s.product_id in product_ids)
        )

    async def reserve_line(
        self, reservation: Reservation, stock_quantity: StockQuantity, *, include_backorder: bool
    ) -> ReservationLine | None:
        product = self._tables.products.get(stock_quantity.product_id)
        if (
            product is None
            or not product.is_active
            or not await self.reserve_again(stock_quantity, include_backorder=include_backorder)
        ):
            return None
        price = product.price_in(reservation.currency, reservation.reserved_at)
        line = ReservationLine(
            *stock_quantity.key,
            product.sku,
            product.name,
            price,
            stock_quantity.quantity,
            tax_class=product.tax_class,
            weight_grams=product.weight_grams,
            category=product.category,
            tags=product.tags,
        )
        stored = self._tables.reservations.get(reservation.reservation_id)
        if stored is not None:
            self._store_reservation(replace(stored, lines=(*stored.lines, line)))
        return line

    async def reserve_again(
        self, stock_quantity: StockQuantity, *, include_backorder: bool
    ) -> bool:
        stock = self._tables.stock.get(stock_quantity.key)
        if (
            stock is None
            or (stock.allocatable if include_backorder else stock.unreserved)
            < stock_quantity.quantity
        ):
            return False
        allocatable_before = stock.allocatable
        stock = replace(stock, reserved=stock.reserved + stock_quantity.quantity)
        self._tables.stock.put(stock.key, stock)
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

    # transactions in memory run one at a time, so no row needs a lock
    get_reservation_for_update = get_reservation

    async def list_order_reservations(
        self, order_id: UUID, after: UUID | None, limit: int
    ) -> Sequence[Reservation]:
        ids = sorted(self._tables.reservation_ids_by_order.get(order_id) or ())
        ids = [key for key in ids if after is None or key > after]
        return find_rows(self._tables.reservations, ids[:limit])

    async def list_reservation_states(
        self, after: tuple[UUID, UUID], limit: int
    ) -> Sequence[ReservationState]:
        states = [
            ReservationState(**vars(one))
            for one in self._tables.reservations.rows()
            if one.order_id is not None and (one.order_id, one.reservation_id) > after
        ]
        return sorted(states, key=lambda one: (one.order_id, one.reservation_id))[:limit]

    async def save_reservation(self, reservation: Reservation) -> None:
        self._store_reservation(reservation)

    # the lines are stored with their reservation
    save_reservation_lines = replace_lines = save_reservation

    async def record_partial_release(self, release_id: UUID, reservation_id: UUID) -> bool:
        return self._tables.partial_releases.add(release_id, reservation_id)

    async def get_untracked_products(self, product_ids: Collection[UUID]) -> Collection[UUID]:
        products = find_rows(self._tables.products, product_ids)
        return {product.product_id for product in products if not product.track_inventory}

    async def release_stock(
        self, quantities: Sequence[StockQuantity], *, is_consumed: bool = False
    ) -> None:
        for stock_quantity in quantities:
            stock = self._tables.stock.get(stock_quantity.key)
            if stock is not None:
                stock = replace(stock, reserved=stock.reserved - stock_quantity.quantity)
                stock = stock if is_consumed else stock.with_backorder_clamped()
                self._tables.stock.put(stock.key, stock)

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
        products = find_rows(self._tables.products, product_ids)
        return {product.product_id: self._availability(product, now) for product in products}

    async def list_offers(
        self, product_ids: Collection[UUID], currency: str | None, now: datetime
    ) -> Sequence[ProductOffer]:
        products = find_rows(self._tables.products, sorted(set(product_ids)))
        return [self._offer(product, currency, now) for product in products if product.is_active]

    def _offer(self, product: Product, currency: str | None, now: datetime) -> ProductOffer:
        available = self._availability(product, now).available
        price = product.price_in(currency, now)
        return ProductOffer(**vars(product), unit_price=price, available=available)

    def _availability(self, product: Product, now: datetime) -> Availability:
        stock_rows = self._stock_of_product(product.product_id)
        overdue = self._overdue_by_warehouse(product.product_id, now)
        return Availability(
            product.is_active,
            tuple(self._free_stock(stock.warehouse_id, stock.unreserved) for stock in stock_rows),
            tuple(self._free_stock(s.warehouse_id, overdue[s.warehouse_id]) for s in stock_rows),
            tuple(self._free_stock(s.warehouse_id, s.backorder) for s in stock_rows),
        )

    def _free_stock(self, warehouse_id: UUID, quantity: int) -> FreeStock:
        warehouse = self._tables.warehouses.get(warehouse_id)
        return FreeStock(warehouse_id, warehouse.priority if warehouse else 0, quantity)

    def _overdue_by_warehouse(self, product_id: UUID, now: datetime) -> Counter[UUID]:
        overdue: Counter[UUID] = Counter()
        for reservation in self._overdue_reservations(now, [product_id]):
            for line in reservation.lines:
                if line.product_id == product_id:
                    overdue[line.warehouse_id] += line.remaining_quantity
        return overdue

    def _overdue_reservations(
        self, now: datetime, product_ids: Collection[UUID] | None
    ) -> list[Reservation]:
        """Return the held reservations past `expires_at` of these products, sorted by id.

        If `product_ids` is None, return those of all products.
        """
        keys = [None] if product_ids is None else product_ids
        ids = sorted(
            _NO_IDS.union(*(self._tables.held_ids_by_product.get(key) or _NO_IDS for key in keys))
        )
        found = find_rows(self._tables.reservations, ids)
        return [reservation for reservation in found if reservation.expires_at <= now]

    def _store_reservation(self, reservation: Reservation) -> Reservation:
        self._tables.reservations.put(reservation.reservation_id, reservation)
        for key in (None, *(line.product_id for line in reservation.lines)):
            _update_held_index(self._tables.held_ids_by_product, key, reservation)
        if reservation.customer_id is not None:
            _update_held_index(
                self._tables.held_ids_by_customer, reservation.customer_id, reservation
            )
        return reservation


class MemoryIntegrityReads:
    """Reads of the integrity checks. The constructor sums all movements and reservations once."""

    def __init__(self, tables: ReservationTables) -> None:
        self._stock = sorted(tables.stock.rows(), key=lambda stock: stock.key)
        self._held = tables.reservations.where(lambda reservation: reservation.status == HELD)
        self._moved: Counter[tuple[UUID, UUID]] = Counter()
        for movement in tables.movements.rows():
            self._moved[movement.product_id, movement.warehouse_id] += movement.delta
        self._reserved: Counter[tuple[UUID, UUID]] = Counter()
        for reservation in tables.reservations.where(lambda row: row.status in {HELD, COMMITTED}):
            for line in reservation.lines:
                self._reserved[line.key] += line.remaining_quantity

    async def list_on_hand_sums(
        self, after: tuple[UUID, UUID] | None, limit: int
    ) -> Sequence[OnHandSum]:
        return [
            OnHandSum(*stock.key, stock.on_hand, self._moved[stock.key])
            for stock in self._stock_after(after)[:limit]
        ]

    async def list_reserved_sums(
        self, after: tuple[UUID, UUID] | None, limit: int
    ) -> Sequence[ReservedSum]:
        return [
            ReservedSum(
                *stock.key,
                stock.on_hand,
                stock.backorder,
                stock.reserved,
                self._reserved[stock.key],
            )
            for stock in self._stock_after(after)[:limit]
        ]

    async def list_overdue_reservations(
        self, before: datetime, after: tuple[datetime, UUID] | None, limit: int
    ) -> Sequence[OverdueReservation]:
        overdue = [
            OverdueReservation(one.reservation_id, one.order_id, one.expires_at)
            for one in self._held
            if one.expires_at < before
        ]
        overdue.sort(key=lambda reservation: reservation.key)
        return [one for one in overdue if after is None or one.key > after][:limit]

    def _stock_after(self, after: tuple[UUID, UUID] | None) -> list[Stock]:
        return [stock for stock in self._stock if after is None or stock.key > after]


def _update_held_index(
    table: "Table[K, frozenset[UUID]]", key: K, reservation: Reservation
) -> None:
    """Add the reservation to the index if it is held, else remove it."""
    before, reservation_ids = table.get(key) or _NO_IDS, frozenset({reservation.reservation_id})
    after = before | reservation_ids if reservation.status == HELD else before - reservation_ids
    if after != before:
        table.put(key, after)
