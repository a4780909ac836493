from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Protocol
from uuid import UUID

from markethall.inventory.catalogue.domain.categories import CategoryNode
from markethall.inventory.catalogue.domain.families import Family
from markethall.inventory.catalogue.domain.products import Product
from markethall.inventory.catalogue.ports import Store as CatalogueStore
from markethall.inventory.imports.contract import NoteKind
from markethall.inventory.imports.domain.file_records import RowNote
from markethall.inventory.imports.domain.jobs import ImportJob
from markethall.inventory.stock.domain import Stock
from markethall.inventory.stock.ports import Store as StockStore


class ReadStore(Protocol):
    """Reads without locks. In Postgres, each method executes one statement."""

    async def get_import_job(self, import_id: UUID) -> ImportJob | None: ...

    async def list_row_notes(
        self, import_id: UUID, kind: NoteKind, after: int, limit: int
    ) -> Sequence[tuple[int, RowNote]]:
        """Return (number, note) with numbers greater than `after`, sorted by number."""

    async def get_upload_part(self, upload_id: UUID, number: int) -> bytes | None: ...

    async def list_products_with_stock(
        self, after: UUID | None, limit: int
    ) -> Sequence[tuple[Product, int]]:
        """Return (product, units on hand in the main warehouse), sorted by product id."""

    async def list_families(self, after: str, limit: int) -> Sequence[Family]:
        """Return families whose `label_key` is greater than `after`, sorted by it."""

    async def list_all_category_nodes(self) -> Sequence[CategoryNode]: ...


class Store(ReadStore, CatalogueStore, StockStore, Protocol):
    """Reads and writes of one transaction."""

    async def create_upload(self, upload_id: UUID, now: datetime) -> None: ...

    async def add_upload_part(self, upload_id: UUID, number: int, data: bytes) -> None: ...

    async def delete_upload_if_unused(self, upload_id: UUID) -> None:
        """Delete an upload unless an import still has to read it."""

    async def delete_stale_uploads(self, before: datetime, failed_before: datetime) -> None:
        """Delete uploads created before `before` that no import has to read.

        An import that failed before `failed_before` does not need its upload.
        """

    async def delete_old_import_jobs(self, before: datetime) -> None:
        """Delete the imports that finished before this time, and their notes."""

    async def add_import_job(self, job: ImportJob) -> bool:
        """Insert the import. Return False if its id exists."""

    async def get_import_job_for_update(self, import_id: UUID) -> ImportJob | None:
        """Return the import and lock its row."""

    async def save_import_job(self, job: ImportJob) -> None: ...

    async def lease_import_job(
        self, token: UUID, now: datetime, lease_until: datetime, import_id: UUID | None
    ) -> ImportJob | None:
        """Lease the oldest unfinished import that has no valid lease. Return None if there is none.

        If `import_id` is not None, consider only this import.
        """

    async def advance_import_job(self, job: ImportJob, token: UUID, expected_offset: int) -> bool:
        """Save the progress. Return False if the stored token or offset is not the expected one."""

    async def release_import_lease(self, import_id: UUID, token: UUID) -> None:
        """End the lease, so that another worker can process the import at once."""

    async def add_row_notes(
        self, import_id: UUID, kind: NoteKind, first: int, notes: Sequence[RowNote]
    ) -> None:
        """Insert notes. Number them consecutively, beginning with `first`."""

    async def get_products_for_update(
        self, skus: Collection[str], families: Collection[str]
    ) -> Sequence[Product]:
        """Return the products with these SKUs or of these families. Lock their rows in id order.

        `skus` are results of `sku_key`.
        """

    async def list_families_by_sku(self, skus: Collection[str]) -> Mapping[str, str]:
        """Map each `sku_key` to the label of the family of its product, if it has one."""

    async def get_families_for_update(self, labels: Collection[str]) -> Sequence[Family]:
        """Return the families with these labels. Lock their rows in the order of their labels."""

    async def save_families(self, families: Sequence[Family]) -> None:
        """Update families, and record their slugs."""

    async def add_import_members(self, import_id: UUID, family_by_id: Mapping[UUID, str]) -> None:
        """Record the products in the file, with their families."""

    async def list_missing_products_for_update(self, import_id: UUID) -> Sequence[Product]:
        """Return the products that are not in the file, but belong to a family that is in it.

        `add_import_members` has recorded the products and families of the file. Archived products
        are left out. Lock the rows of the returned products in id order.
        """

    async def delete_import_members(self, import_id: UUID) -> None: ...

    async def get_main_stock_for_update(
        self, product_ids: Collection[UUID]
    ) -> Mapping[UUID, Stock]:
        """Return the stock rows of the main warehouse, by product id.

        Lock the stock rows of all warehouses, in the order of product ids and warehouse ids.
        """
