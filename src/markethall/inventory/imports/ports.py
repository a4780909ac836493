"""What imports and exports need from the outside."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

from markethall.inventory.catalogue.domain.products import Product
from markethall.inventory.imports.domain.file_records import RowError
from markethall.inventory.imports.domain.jobs import ImportJob
from markethall.inventory.stock.domain.stock import Stock, StockChange
from markethall.shared.idempotency.records import IdempotentCommand


class ReadStore(Protocol):
    """Reads. Each is one statement that takes no lock."""

    async def get_import_job(self, import_id: UUID) -> ImportJob | None: ...

    async def list_row_errors(
        self, import_id: UUID, after: int, limit: int
    ) -> Sequence[tuple[int, RowError]]:
        """With their numbers, in that order, later than `after`."""

    async def get_upload_part(self, upload_id: UUID, number: int) -> bytes | None: ...

    async def list_products_with_stock(
        self, after: UUID | None, limit: int
    ) -> Sequence[tuple[Product, int]]:
        """With what is on hand in the main warehouse, in the order of their ids."""


class Store(ReadStore, Protocol):
    """Reads and writes of one transaction."""

    async def create_upload(self, upload_id: UUID, now: datetime) -> None: ...

    async def add_upload_part(self, upload_id: UUID, number: int, data: bytes) -> None: ...

    async def delete_upload_if_unused(self, upload_id: UUID) -> None:
        """With its parts; not while an import is to read it."""

    async def delete_stale_uploads(self, before: datetime, failed_before: datetime) -> None:
        """Those that no import is to read; one that failed before that time is not."""

    async def delete_old_import_jobs(self, before: datetime) -> None:
        """Those that had ended by then, with their errors."""

    async def add_import_job(self, job: ImportJob) -> bool:
        """False when its id is taken."""

    async def get_import_job_for_update(self, import_id: UUID) -> ImportJob | None:
        """Locked until the end of the transaction."""

    async def save_import_job(self, job: ImportJob) -> None: ...

    async def lease_import_job(
        self, token: UUID, now: datetime, lease_until: datetime, import_id: UUID | None
    ) -> ImportJob | None:
        """The oldest that nobody works on is ours until then; or this one."""

    async def advance_import_job(self, job: ImportJob, token: UUID, expected_offset: int) -> bool:
        """Save it; False when somebody else has taken it meanwhile, or it stands elsewhere than
        at this offset.
        """

    async def release_import_lease(self, import_id: UUID, token: UUID) -> None:
        """Whoever takes the next one may take this at once."""

    async def add_row_errors(self, import_id: UUID, first: int, errors: Sequence[RowError]) -> None:
        """Numbered from `first` on."""

    async def get_products_by_sku_for_update(self, skus: Collection[str]) -> Sequence[Product]:
        """By their skus in small letters; locked, in the order of their ids."""

    async def get_main_stock_for_update(
        self, product_ids: Collection[UUID]
    ) -> Mapping[UUID, Stock]:
        """In the main warehouse; locked with all their others, in the order of product ids and
        then of warehouse ids.
        """

    async def write_products(
        self, new_products: Sequence[Product], changed_products: Sequence[Product]
    ) -> bool:
        """False when a sku of the fresh ones is taken meanwhile: nothing may be kept then."""

    async def apply_movements(self, changes: Sequence[StockChange]) -> None:
        """Movements on shelves of locked products, each of which leaves enough on hand."""

    async def get_warehouse_stock(
        self, product_ids: Collection[UUID], warehouse_id: UUID, now: datetime
    ) -> Sequence[Stock]:
        """Return the rows of these products in this warehouse, in product id order."""

    async def store_response(self, attempt: IdempotentCommand, result: Any) -> None:
        """Keep the response under the command's key. Raises LeaseLost."""
