"""Import of products from files, and their export."""

from collections.abc import AsyncIterable, AsyncIterator
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Protocol
from uuid import UUID

from pydantic import Field

from markethall.inventory.catalogue.contract.products import NewProduct
from markethall.inventory.contract import MAX_UNITS
from markethall.shared.idempotency.records import IdempotentCommand
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.errors import DomainError
from markethall.shared.kernel.model import Bool, Dto, Int, RequestModel
from markethall.shared.kernel.money import Currency
from markethall.shared.kernel.pagination import Page, PageQuery


class ImportStatus(StrEnum):
    """waiting -> running -> done | failed; failed -> waiting by a retry."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


class ImportFormat(StrEnum):
    """Format of the file. A CSV file is recognised as Shopify's by its header."""

    CSV = "csv"
    NDJSON = "ndjson"
    SHOPIFY = "shopify"


class ImportRowCounts(Dto):
    """Number of rows that were read, and the outcomes of those that describe a product.

    A row that occurs twice is counted twice; the later one wins. A dry run counts the outcomes
    that an import would have.
    """

    read: int
    created: int
    updated: int
    unchanged: int
    failed: int


class ImportFailure(Dto):
    """Reason why the rest of the file could not be read."""

    code: str
    message: str


class ImportView(Dto):
    """Progress of an import. `size` is in bytes; `percent` is the part of the file
    that was read.
    """

    import_id: UUID
    status: ImportStatus
    dry_run: bool
    format: ImportFormat
    size: int
    rows: ImportRowCounts
    percent: int
    rows_per_second: int
    rows_left: Annotated[int | None, Field(description="Estimated from the rows read so far")]
    failure: ImportFailure | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class RowErrorView(Dto):
    """Error of a row. `field` is a column, or in NDJSON a JSON pointer (RFC 6901)."""

    line: int
    field: str
    code: str
    message: str


class NewImport(RequestModel):
    """Options of an import. `sha256` of the file tells a retry from another request."""

    sha256: str
    format: ImportFormat
    dry_run: Bool = False
    currency: Annotated[Currency, Field(description="Currency of prices without one")] = "EUR"


class ImportedProduct(NewProduct):
    """Product of one row, and its counted quantity in the main warehouse.

    A product that exists needs only `sku` and the fields to change.
    """

    on_hand: Annotated[Int, Field(ge=0, le=MAX_UNITS)] | None = None


class Upload(Dto):
    """Stored file that no import uses yet."""

    upload_id: UUID
    size: int
    sha256: str


class ImportNotFound(DomainError):
    """Details: import_id."""

    code = "inventory.import_not_found"
    status = 404
    title = "There is no such import"


class ImportNotFailed(DomainError):
    """Only a failed import can be retried. Details: status.

    A waiting or running import continues by itself, also after the death of a process. Failed rows
    are corrected in the file, which can be imported again.
    """

    code = "inventory.import_not_failed"
    status = 409
    title = "This import has not failed"


class ImportFileExpired(DomainError):
    """The file of a failed import is kept for a week. Details: import_id."""

    code = "inventory.import_forgotten"
    status = 409
    title = "The file of this import is not kept any more"


class Imports(Protocol):
    """Import and export of the catalogue."""

    async def upload(self, ctx: CallContext, chunks: AsyncIterable[bytes]) -> Upload:
        """Store a file in parts. It is deleted if no import starts within an hour."""

    async def discard_upload(self, ctx: CallContext, upload: Upload) -> None:
        """Delete an upload unless an import uses it."""

    async def start_import(
        self, ctx: CallContext, upload: Upload, command: NewImport, attempt: IdempotentCommand
    ) -> ImportView:
        """Start an import with the id of the attempt, once per id; it runs in the background.

        Rows are upserted by SKU. Fields that a row does not name keep their values. An invalid row
        is recorded as an error and does not stop the import. `on_hand` is a stock count in the main
        warehouse.
        """

    async def get_import(self, ctx: CallContext, import_id: UUID) -> ImportView:
        """Raises ImportNotFound."""

    async def watch_import(
        self, ctx: CallContext, import_id: UUID
    ) -> AsyncIterator[ImportView | None]:
        """Yield the import at each change until it has finished, and None as a heartbeat.

        Raises ImportNotFound, Overloaded.
        """

    async def list_row_errors(
        self, ctx: CallContext, import_id: UUID, query: PageQuery
    ) -> Page[RowErrorView]:
        """List the first 10,000 errors in file order. Raises ImportNotFound, CursorInvalid."""

    async def retry_import(
        self, ctx: CallContext, import_id: UUID, attempt: IdempotentCommand
    ) -> ImportView:
        """Continue a failed import at the row where it stopped.

        Raises ImportNotFound, ImportNotFailed, ImportFileExpired.
        """

    def export_products(self, ctx: CallContext) -> AsyncIterator[bytes]:
        """Yield all products as CSV that can be imported again, ordered by id.

        Each chunk has whole rows.
        """
