"""The changes of a batch of rows: new products, changed products, counted stock."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final
from uuid import UUID

from markethall.inventory.catalogue.domain.products import Product
from markethall.inventory.imports.domain.csv_columns import describe_family_change, format_field
from markethall.inventory.imports.domain.file_records import (
    FilePosition,
    RowChange,
    RowError,
    RowWarning,
)
from markethall.inventory.imports.domain.jobs import ImportJob, RowOutcome
from markethall.inventory.imports.domain.product_lookup import ProductLookup
from markethall.inventory.imports.domain.row_validation import (
    FamilyRow,
    RowResult,
    ValidatedRow,
    describe_product,
)
from markethall.inventory.imports.ports import Store
from markethall.inventory.imports.service.row_references import RowCategories, RowFamilies
from markethall.inventory.stock.contract import MovementReason
from markethall.inventory.stock.domain import MAIN_WAREHOUSE, Stock, StockChange
from markethall.shared.kernel.ids import new_id

_NO_STOCK: Final[Mapping[UUID, Stock]] = {}
_NO_ID: Final = UUID(int=0)
_STOCK_FIELDS: Final = frozenset(
    {"backorder_limit", "inventory_policy", "track_inventory", "low_stock_threshold"}
)


class SkuConflict(Exception):
    """Another transaction has created a product with a SKU of this batch. Retry the batch."""


class BlockedByExpiredReservations(Exception):
    """Rows set fewer units on hand than are reserved, but some reservations are overdue.

    The caller must expire the overdue reservations and try the batch again.
    """

    def __init__(self, product_ids: Sequence[UUID]) -> None:
        super().__init__()
        self.product_ids = product_ids


@dataclass
class BatchChanges:
    """The changes of a batch. Among rows of the same product, the last one wins."""

    job: ImportJob
    now: datetime
    lookup: ProductLookup
    categories: RowCategories
    families: RowFamilies
    stock_by_product: Mapping[UUID, Stock]
    new_products: dict[UUID, Product] = field(default_factory=dict)
    changed_products: dict[UUID, Product] = field(default_factory=dict)
    counted_on_hand: dict[UUID, int] = field(default_factory=dict)
    # the products whose counted units are fewer than their reserved units
    undercounted: set[UUID] = field(default_factory=set)
    outcomes: Counter[str] = field(default_factory=Counter)
    changed_fields: Counter[str] = field(default_factory=Counter)
    errors: list[RowError] = field(default_factory=list)
    warnings: list[RowWarning] = field(default_factory=list)
    # filled only in a dry run
    noted_changes: list[RowChange] = field(default_factory=list)
    # the families of the products in the rows
    family_by_id: dict[UUID, str] = field(default_factory=dict)
    last_id: UUID = _NO_ID

    def add_row(self, row: RowResult) -> None:
        row = self.categories.resolve(row)
        if isinstance(row, FamilyRow):
            self._add_family_row(row)
            return
        errors = row if isinstance(row, tuple) else self._check_row(row)
        if errors or isinstance(row, tuple):
            self.outcomes[RowOutcome.FAILED] += 1
            self.errors += errors
        else:
            self.outcomes[self._apply_row(row)] += 1
            self._add_warnings(row.warnings)

    def archive_missing(self, product: Product, line: int) -> None:
        """Archive a product that is not in the file. `line` is the last line of the file."""
        before = format_field(product, "status")
        product.archive(self.now)
        self.changed_products[product.product_id] = product
        self.outcomes[RowOutcome.ARCHIVED] += 1
        if self.job.dry_run:
            name = f"{describe_product(product)}, {product.sku}, is not in the file"
            message = f"{before} -> {format_field(product, 'status')}: {name}"
            self.noted_changes.append(RowChange(line, "status", "archived", message))

    @property
    def touched_product_ids(self) -> list[UUID]:
        return sorted({*self.new_products, *self.changed_products, *self.counted_on_hand})

    @property
    def written_products(self) -> list[Product]:
        return [*self.new_products.values(), *self.changed_products.values()]

    def movements(self, *, of_new_products: bool) -> list[StockChange]:
        """Return the movements of the new products, or those of the existing products."""
        return [
            self._movement(product_id, self.counted_on_hand[product_id] - self._on_hand(product_id))
            for product_id in sorted(self.counted_on_hand)
            if self.counted_on_hand[product_id] != self._on_hand(product_id)
            and (product_id in self.new_products) == of_new_products
        ]

    def _add_family_row(self, row: FamilyRow) -> None:
        if errors := self.families.check(row):
            self.outcomes[RowOutcome.FAILED] += 1
            self.errors += errors
            return
        self._add_warnings(row.warnings)
        applied = self.families.apply(row, self.now)
        if applied is None or not applied[1]:
            return
        before, changed = applied
        self.outcomes[RowOutcome.FAMILIES_UPDATED] += 1
        self.changed_fields.update(f"family.{name}" for name in changed)
        if self.job.dry_run:
            after = self.families.changed[row.label]
            self.noted_changes += [
                RowChange(
                    row.line,
                    f"family.{name}",
                    "changed",
                    describe_family_change(before, after, name),
                )
                for name in sorted(changed)
            ]

    def _add_warnings(self, warnings: Sequence[RowWarning]) -> None:
        self.outcomes[RowOutcome.WARNINGS] += len(warnings)
        self.warnings += warnings

    def _check_row(self, row: ValidatedRow) -> Sequence[RowError]:
        product = self.lookup.find(row)
        if error := self.lookup.find_clash(row, product):
            return (error,)
        if product is None:
            return row.missing_field_errors
        return self._check_count(row, product)

    def _check_count(self, row: ValidatedRow, product: Product) -> Sequence[RowError]:
        stock = self.stock_by_product.get(product.product_id)
        counted = row.on_hand if self._sets_stock_of(product) else None
        if stock is None or counted is None or counted + stock.backorder >= stock.reserved:
            return ()
        self.undercounted.add(product.product_id)
        message = f"{stock.reserved} are reserved"
        return (RowError(*row.locate(("on_hand",)), "inventory.would_go_negative", message),)

    def _apply_row(self, row: ValidatedRow) -> str:
        product = self.lookup.find(row)
        if product is None:
            product = row.to_product(self._next_id(), self.now)
            self._add_member(row, product)
            self.new_products[product.product_id] = product
            self._record_count(row, product)
            return RowOutcome.CREATED
        before = replace(product) if self.job.dry_run else product
        changed = row.apply_to(product, self.now)
        self._add_member(row, product)
        if changed and product.product_id not in self.new_products:
            self.changed_products[product.product_id] = product
            self.changed_fields.update(changed)
        if self.job.dry_run:
            for name in sorted(changed):
                message = f"{format_field(before, name)} -> {format_field(product, name)}"
                self.noted_changes.append(RowChange(row.line, name, "changed", message))
        recounted = self._record_count(row, product)
        return RowOutcome.UPDATED if changed or recounted else RowOutcome.UNCHANGED

    def _add_member(self, row: ValidatedRow, product: Product) -> None:
        self.lookup.add(row, product)
        if product.family is not None:
            self.family_by_id[product.product_id] = product.family

    def _sets_stock_of(self, product: Product) -> bool:
        """Tell whether the import sets the stock of the product.

        It sets the stock of new products. With the option `with_stock`, it sets all stock.
        """
        return self.job.with_stock or product.product_id in self.new_products

    def _next_id(self) -> UUID:
        """Return an id greater than the previous one, so that ids follow the order of the file."""
        self.last_id = max(new_id(), UUID(int=self.last_id.int + 1))
        return self.last_id

    def _record_count(self, row: ValidatedRow, product: Product) -> bool:
        """Record the counted quantity. Return True if the stock changes."""
        product_id = product.product_id
        previous = self.counted_on_hand.get(product_id, self._on_hand(product_id))
        if row.on_hand is None or row.on_hand == previous:
            return False
        if not self._sets_stock_of(product):
            self.outcomes[RowOutcome.STOCK_SKIPPED] += 1
            return False
        self.counted_on_hand[product_id] = row.on_hand
        if product_id not in self.new_products:
            self.outcomes[RowOutcome.STOCK_CHANGED] += 1
            self.changed_fields["on_hand"] += 1
            if self.job.dry_run:
                message = f"{previous} -> {row.on_hand}"
                self.noted_changes.append(RowChange(row.line, "on_hand", "changed", message))
        return True

    def _on_hand(self, product_id: UUID) -> int:
        stock = self.stock_by_product.get(product_id)
        return stock.on_hand if stock else 0

    def _movement(self, product_id: UUID, delta: int) -> StockChange:
        return StockChange(
            movement_id=new_id(),
            product_id=product_id,
            warehouse_id=MAIN_WAREHOUSE,
            delta=delta,
            reason=MovementReason.COUNTED,
            note=f"import {self.job.import_id}",
            actor=self.job.actor,
            created_at=self.now,
        )


async def build_batch_changes(
    store: Store, job: ImportJob, rows: Sequence[RowResult], now: datetime
) -> BatchChanges:
    """Compute the changes of the rows. Lock the existing products and their stock rows."""
    # categories come first and families second, because every transaction locks them in this order
    # before products
    categories = await RowCategories.load(store, rows, is_dry_run=job.dry_run)
    families = await RowFamilies.load(store, rows, is_dry_run=job.dry_run)
    rows = [families.resolve(row) for row in rows]
    validated_rows = [row for row in rows if isinstance(row, ValidatedRow)]
    lookup = ProductLookup(validated_rows, await _get_existing_products(store, validated_rows))
    product_ids = {
        product.product_id
        for row in validated_rows
        # rows that count stock, or change a field that is copied to the stock rows
        if (row.on_hand is not None or row.provided_fields & _STOCK_FIELDS)
        and (product := lookup.find(row))
    }
    stock_by_product = (
        await store.get_main_stock_for_update(sorted(product_ids)) if product_ids else _NO_STOCK
    )
    changes = BatchChanges(job, now, lookup, categories, families, stock_by_product)
    for row in rows:
        changes.add_row(row)
    changes.outcomes[RowOutcome.FAMILIES_CREATED] += len(
        families.new_labels(changes.written_products)
    )
    return changes


async def archive_missing_products(
    store: Store, changes: BatchChanges, end: FilePosition, *, is_last: bool
) -> None:
    """Record the products of the batch. In the last batch, archive the missing products.

    A product is missing if its family is in the file and the product is not. Archive none if a row
    has failed, because that row may describe one of the missing products.
    """
    job = changes.job
    if changes.family_by_id:
        await store.add_import_members(job.import_id, changes.family_by_id)
    if not is_last:
        return
    if not changes.outcomes[RowOutcome.FAILED] + job.outcomes.get(RowOutcome.FAILED, 0):
        for product in await store.list_missing_products_for_update(job.import_id):
            changes.archive_missing(product, end.line)
    await store.delete_import_members(job.import_id)


async def check_expired_reservations(store: Store, changes: BatchChanges) -> None:
    """Raises BlockedByExpiredReservations if an undercounted product has overdue reservations."""
    if changes.undercounted:
        stock_rows = await store.get_warehouse_stock(
            sorted(changes.undercounted), MAIN_WAREHOUSE, changes.now
        )
        if product_ids := [stock.product_id for stock in stock_rows if stock.overdue]:
            raise BlockedByExpiredReservations(product_ids)


async def persist(store: Store, changes: BatchChanges) -> None:
    """Write the changes. Raises SkuConflict."""
    # Write the movements of existing products before the products. The counts were checked against
    # the old backorder limits, which change when the products are written.
    await _apply(store, changes.movements(of_new_products=False))
    new_products = list(changes.new_products.values())
    changed_products = list(changes.changed_products.values())
    product_categories = [product.category for product in changes.written_products]
    await changes.categories.create(store, [*product_categories, *changes.families.category_keys])
    await changes.families.write(store, changes.written_products, changes.now)
    if (new_products or changed_products) and not await store.write_products(
        new_products, changed_products
    ):
        raise SkuConflict
    await _apply(store, changes.movements(of_new_products=True))


async def _apply(store: Store, movements: Sequence[StockChange]) -> None:
    if movements and len(await store.apply_changes(movements)) != len(movements):
        raise LookupError("a counted stock row has changed, although this transaction locks it")


async def _get_existing_products(
    store: Store, validated_rows: Iterable[ValidatedRow]
) -> Sequence[Product]:
    skus = {key for row in validated_rows for key in row.lookup_sku_keys}
    handles = {row.variant.handle for row in validated_rows if row.variant}
    return await store.get_products_for_update(skus, handles) if skus else ()
