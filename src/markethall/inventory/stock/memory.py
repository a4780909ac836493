from abc import abstractmethod
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from uuid import UUID

from markethall.inventory.catalogue.domain.products import Product
from markethall.inventory.catalogue.domain.text_keys import sku_key
from markethall.inventory.catalogue.memory import CatalogueTables, MemoryProductStore, find_rows
from markethall.inventory.contract import StockLow
from markethall.inventory.stock.contract import Movement, MovementReason
from markethall.inventory.stock.domain import MAIN_WAREHOUSE, Stock, StockChange, Warehouse
from markethall.shared.composition.memory import MemoryUnitOfWork
from markethall.shared.kernel.call_context import system_context
from markethall.shared.persistence.memory import Table

StockKey = tuple[UUID, UUID]  # product id and warehouse id


class StockTables(CatalogueTables):
    def __init__(self) -> None:
        super().__init__()
        main = Warehouse(MAIN_WAREHOUSE, "Main")
        self.warehouses: Table[UUID, Warehouse] = Table(rows={MAIN_WAREHOUSE: main})
        self.stock: Table[StockKey, Stock] = Table()
        # the warehouse ids are sorted
        self.warehouse_ids_by_product: Table[UUID, tuple[UUID, ...]] = Table()
        self.movements: Table[UUID, Movement] = Table()
        # the oldest movement comes first
        self.movement_ids_by_product: Table[UUID, tuple[UUID, ...]] = Table()
        self.movement_ids_by_reference: Table[UUID, tuple[UUID, ...]] = Table()


class MemoryWarehouseStore(MemoryUnitOfWork):
    _tables: StockTables

    async def get_warehouse(self, warehouse_id: UUID) -> Warehouse | None:
        return self._tables.warehouses.get(warehouse_id)

    # transactions in memory run one at a time, so no row needs a lock
    get_warehouse_for_update = get_warehouse_for_share = get_warehouse

    async def list_warehouses(
        self, after: tuple[int, UUID] | None, limit: int
    ) -> Sequence[Warehouse]:
        rows = self._tables.warehouses.where(lambda row: after is None or _sort_key(row) > after)
        return sorted(rows, key=_sort_key)[:limit]

    async def insert_warehouse(self, warehouse: Warehouse) -> bool:
        return self._tables.warehouses.add(warehouse.warehouse_id, warehouse)

    async def save_warehouse(self, warehouse: Warehouse) -> None:
        self._tables.warehouses.put(warehouse.warehouse_id, warehouse)

    async def delete_warehouse(self, warehouse_id: UUID) -> None:
        self._tables.warehouses.remove(warehouse_id)

    async def has_stock(self, warehouse_id: UUID) -> bool:
        return any(
            stock.on_hand + stock.reserved
            for stock in self._tables.stock.rows()
            if stock.warehouse_id == warehouse_id
        )

    async def has_stock_rows(self, warehouse_id: UUID) -> bool:
        return any(stock.warehouse_id == warehouse_id for stock in self._tables.stock.rows())


class MemoryStockStore(MemoryProductStore):
    """The store of stock. The store of `reservations` implements the abstract method."""

    _tables: StockTables

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
        return find_rows(self._tables.movements, ids)

    async def get_on_hand_at(self, product_id: UUID, at: datetime) -> Mapping[UUID, int]:
        on_hand = {stock.warehouse_id: 0 for stock in self._stock_of_product(product_id)}
        ids = self._tables.movement_ids_by_product.get(product_id) or ()
        for movement in find_rows(self._tables.movements, ids):
            if movement.created_at <= at:
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
        ids_by_sku = find_rows(self._tables.product_ids_by_sku, map(sku_key, skus))
        products = find_rows(self._tables.products, {*product_ids, *ids_by_sku})
        return {product.product_id: product.sku for product in products}

    async def apply_changes(self, changes: Sequence[StockChange]) -> Sequence[Movement]:
        in_order = sorted(changes, key=lambda change: change.key)
        made = [await self._apply_change(change) for change in in_order]
        return [movement for movement in made if movement]

    async def ensure_stock_rows(self, product_ids: Collection[UUID], warehouse_id: UUID) -> None:
        for product_id in product_ids:
            key = (product_id, warehouse_id)
            if product_id in self._tables.products and key not in self._tables.stock:
                self._insert_stock_row(Stock(*key))

    async def ensure_main_stock_row(self, product_id: UUID) -> None:
        product = self._tables.products.get(product_id)
        if product is not None and (product_id, MAIN_WAREHOUSE) not in self._tables.stock:
            self._insert_stock_row(
                Stock(product_id, MAIN_WAREHOUSE).with_backorder_limit(
                    product.effective_backorder_limit
                )
            )

    @abstractmethod
    def _overdue_by_warehouse(self, product_id: UUID, now: datetime) -> Counter[UUID]:
        """Return the units of overdue reservations of the product, by warehouse.

        The expiry job has not released them yet.
        """

    def _available(self, product_id: UUID, now: datetime) -> int:
        allocatable = sum(stock.allocatable for stock in self._stock_of_product(product_id))
        return allocatable + self._overdue_by_warehouse(product_id, now).total()

    def _apply_backorder_limit(self, product: Product) -> None:
        stock = self._tables.stock.get((product.product_id, MAIN_WAREHOUSE))
        if stock is not None:
            stock = stock.with_backorder_limit(product.effective_backorder_limit)
            self._tables.stock.put(stock.key, stock)

    async def _apply_change(self, change: StockChange) -> Movement | None:
        stock = self._tables.stock.get(change.key)
        if stock is None or self._is_recorded(change):
            return None
        delta = change.delta_from(stock.on_hand)
        stock = replace(stock, on_hand=stock.on_hand + delta)
        if stock.on_hand < 0 or stock.allocatable < 0:
            return None
        allocatable_before, stock = stock.allocatable - delta, stock.with_backorder_clamped()
        self._tables.stock.put(stock.key, stock)
        if change.reason != MovementReason.SOLD:
            await self._publish_stock_low(stock, allocatable_before)
        return self._record_movement(change, delta, stock.on_hand)

    async def _publish_stock_low(self, stock: Stock, allocatable_before: int) -> None:
        product = self._tables.products.get(stock.product_id)
        if product is None or (threshold := product.low_stock_threshold) is None:
            return
        if stock.allocatable <= threshold < allocatable_before:
            event = StockLow(
                product_id=product.product_id,
                warehouse_id=stock.warehouse_id,
                sku=product.sku,
                available=stock.allocatable,
                threshold=threshold,
            )
            await self.publish(event, system_context("stock"))

    def _stock_of_product(self, product_id: UUID) -> list[Stock]:
        warehouse_ids = self._tables.warehouse_ids_by_product.get(product_id) or ()
        return find_rows(self._tables.stock, [(product_id, key) for key in warehouse_ids])

    def _insert_stock_row(self, stock: Stock) -> None:
        self._tables.stock.put(stock.key, stock)
        warehouse_ids = self._tables.warehouse_ids_by_product.get(stock.product_id) or ()
        self._tables.warehouse_ids_by_product.put(
            stock.product_id, tuple(sorted({*warehouse_ids, stock.warehouse_id}))
        )

    def _is_recorded(self, change: StockChange) -> bool:
        ids = change.reference and self._tables.movement_ids_by_reference.get(change.reference)
        return change.movement_id in self._tables.movements or any(
            (movement.product_id, movement.warehouse_id) == change.key
            for movement in find_rows(self._tables.movements, ids or ())
        )

    def _record_movement(self, change: StockChange, delta: int, on_hand: int) -> Movement:
        # A count that equals the units on hand has the delta 0, whatever its reason. Only the
        # reason `counted` may have the delta 0.
        reason = change.reason if delta else MovementReason.COUNTED
        made = {"delta": delta, "on_hand_after": on_hand, "reason": reason}
        movement = Movement(**vars(change) | made)
        self._tables.movements.put(movement.movement_id, movement)
        ids = self._tables.movement_ids_by_product.get(change.product_id) or ()
        self._tables.movement_ids_by_product.put(change.product_id, (*ids, movement.movement_id))
        if change.reference is not None:
            movement_ids = self._tables.movement_ids_by_reference.get(change.reference) or ()
            self._tables.movement_ids_by_reference.put(
                change.reference, (*movement_ids, movement.movement_id)
            )
        return movement


def _sort_key(warehouse: Warehouse) -> tuple[int, UUID]:
    return warehouse.priority, warehouse.warehouse_id
