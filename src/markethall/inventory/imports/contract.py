"""What inventory's own router serves: catalogues that come and go as files."""

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
    """What the file is. A CSV turns out to be Shopify's by its header."""

    CSV = "csv"
    NDJSON = "ndjson"
    SHOPIFY = "shopify"


class ImportRowCounts(Dto):
    """How many rows were read, and what became of those that stand for a product.

    A row that comes twice is counted twice; the later one wins. In a dry run it is what would
    become of them.
    """

    read: int
    created: int
    updated: int
    unchanged: int
    failed: int


class ImportFailure(Dto):
    """Why the file as a whole could not be read on."""

    code: str
    message: str


class ImportView(Dto):
    """A file on its way into the catalogue. Sizes in bytes; `percent` of the file is read."""

    import_id: UUID
    status: ImportStatus
    dry_run: bool
    format: ImportFormat
    size: int
    rows: ImportRowCounts
    percent: int
    rows_per_second: int
    rows_left: Annotated[int | None, Field(description="Estimated from what is read so far")]
    failure: ImportFailure | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class RowErrorView(Dto):
    """One thing that is wrong with a row. `field` is a column, or in NDJSON a JSON pointer."""

    line: int
    field: str
    code: str
    message: str


class NewImport(RequestModel):
    """What is to become of an upload. `sha256` is the file's: it tells a retry from another."""

    sha256: str
    format: ImportFormat
    dry_run: Bool = False
    currency: Annotated[Currency, Field(description="Of prices that name none")] = "EUR"


class ImportedProduct(NewProduct):
    """A line of NDJSON, and what a row of CSV comes to: a product, and what was counted of it in
    the main warehouse. Of a product that is there already, `sku` and what is to change is enough.
    """

    on_hand: Annotated[Int, Field(ge=0, le=MAX_UNITS)] | None = None


class Upload(Dto):
    """A file that has arrived, and that nothing has been done with yet."""

    upload_id: UUID
    size: int
    sha256: str


class ImportNotFound(DomainError):
    """Details: import_id."""

    code = "inventory.import_not_found"
    status = 404
    title = "There is no such import"


class ImportNotFailed(DomainError):
    """Only a failed import is retried: one that waits or runs goes on by itself, whoever dies,
    and failed rows are mended in the file, which may be imported again. Details: status.
    """

    code = "inventory.import_not_failed"
    status = 409
    title = "This import has not failed"


class ImportFileExpired(DomainError):
    """The file of an import that has failed is kept for a week. Details: import_id."""

    code = "inventory.import_forgotten"
    status = 409
    title = "The file of this import is not kept any more"


class Imports(Protocol):
    """Files into the catalogue, and the catalogue into a file."""

    async def upload(self, ctx: CallContext, chunks: AsyncIterable[bytes]) -> Upload:
        """Kept, in parts, before anything is done with it. What is not started within an hour
        is forgotten.
        """

    async def discard_upload(self, ctx: CallContext, upload: Upload) -> None:
        """Forget an upload, unless an import was started from it."""

    async def start_import(
        self, ctx: CallContext, upload: Upload, command: NewImport, attempt: IdempotentCommand
    ) -> ImportView:
        """A new import whose id is the attempt's; once per id. The work is done in background.

        Rows are upserted by sku. What a file does not name stays as it is; a bad row is an error
        of its own and stops nothing. `on_hand` is a stock-take in the main warehouse.
        """

    async def get_import(self, ctx: CallContext, import_id: UUID) -> ImportView:
        """Raises ImportNotFound."""

    async def watch_import(
        self, ctx: CallContext, import_id: UUID
    ) -> AsyncIterator[ImportView | None]:
        """It, each time it has changed, until its end; None where that takes long. Raises
        ImportNotFound, Overloaded.
        """

    async def list_row_errors(
        self, ctx: CallContext, import_id: UUID, query: PageQuery
    ) -> Page[RowErrorView]:
        """In the order of the file; the first 10,000 are kept. Raises ImportNotFound,
        CursorInvalid.
        """

    async def retry_import(
        self, ctx: CallContext, import_id: UUID, attempt: IdempotentCommand
    ) -> ImportView:
        """It goes on at the row where it stopped. Raises ImportNotFound, ImportNotFailed,
        ImportForgotten.
        """

    def export_products(self, ctx: CallContext) -> AsyncIterator[bytes]:
        """All products as CSV, in the order of their ids: what an import of ours reads back. In
        pieces of whole rows.
        """
