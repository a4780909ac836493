"""Store of imports and exports."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

from markethall.inventory.catalogue.domain.products import Product
from markethall.inventory.imports.domain.file_records import RowError
from markethall.inventory.imports.domain.jobs import ImportJob
from markethall.inventory.stock.domain import Stock, StockChange
from markethall.shared.idempotency.records import IdempotentCommand


class ReadStore(Protocol):
    """Reads. Each is one statement that takes no lock."""

    async def get_import_job(self, import_id: UUID) -> ImportJob | None: ...

    async def list_row_errors(
        self, import_id: UUID, after: int, limit: int
    ) -> Sequence[tuple[int, RowError]]:
        """List errors with their numbers, in that order, from the one after `after`."""

    async def get_upload_part(self, upload_id: UUID, number: int) -> bytes | None: ...

    async def list_products_with_stock(
        self, after: UUID | None, limit: int
    ) -> Sequence[tuple[Product, int]]:
        """List products with their quantity on hand in the main warehouse, ordered by id."""


class Store(ReadStore, Protocol):
    """Reads and writes of one transaction."""

    async def create_upload(self, upload_id: UUID, now: datetime) -> None: ...

    async def add_upload_part(self, upload_id: UUID, number: int, data: bytes) -> None: ...

    async def delete_upload_if_unused(self, upload_id: UUID) -> None:
        """Delete an upload and its parts unless an import still has to read it."""

    async def delete_stale_uploads(self, before: datetime, failed_before: datetime) -> None:
        """Delete uploads created before `before` that no import has to read.

        An import that failed before `failed_before` no longer needs its upload.
        """

    async def delete_old_import_jobs(self, before: datetime) -> None:
        """Delete the imports that finished before, with their errors."""

    async def add_import_job(self, job: ImportJob) -> bool:
        """Return False if the id is taken."""

    async def get_import_job_for_update(self, import_id: UUID) -> ImportJob | None:
        """Lock the import until the end of the transaction."""

    async def save_import_job(self, job: ImportJob) -> None: ...

    async def lease_import_job(
        self, token: UUID, now: datetime, lease_until: datetime, import_id: UUID | None
    ) -> ImportJob | None:
        """Lease the oldest import without a valid lease, or the one with this id."""

    async def advance_import_job(self, job: ImportJob, token: UUID, expected_offset: int) -> bool:
        """Save the import. Return False if its lease has another token or its offset differs."""

    async def release_import_lease(self, import_id: UUID, token: UUID) -> None:
        """End the lease, so that another worker can take the import at once."""

    async def add_row_errors(self, import_id: UUID, first: int, errors: Sequence[RowError]) -> None:
        """Add errors numbered from `first`."""

    async def get_products_by_sku_for_update(self, skus: Collection[str]) -> Sequence[Product]:
        """Lock the products with these lower-case SKUs, in the order of their ids."""

    async def get_main_stock_for_update(
        self, product_ids: Collection[UUID]
    ) -> Mapping[UUID, Stock]:
        """Return the stock rows of the main warehouse by product id.

        All stock rows of the products are locked, in the order of product and warehouse id.
        """

    async def write_products(
        self, new_products: Sequence[Product], changed_products: Sequence[Product]
    ) -> bool:
        """Return False if the SKU of a new product is taken: then roll back."""

    async def apply_movements(self, changes: Sequence[StockChange]) -> None:
        """Add movements of locked stock rows. The caller has checked that each leaves enough."""

    async def get_warehouse_stock(
        self, product_ids: Collection[UUID], warehouse_id: UUID, now: datetime
    ) -> Sequence[Stock]:
        """Return the rows of these products in this warehouse, in product id order."""

    async def store_response(self, attempt: IdempotentCommand, result: Any) -> None:
        """Keep the response under the command's key. Raises LeaseLost."""
