"""The contract of imports: import products from files, export them."""

from collections.abc import AsyncIterable, AsyncIterator, Mapping
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Protocol
from uuid import UUID

from pydantic import Field

from markethall.inventory.catalogue.contract.families import FamilyChange, FamilyLabel
from markethall.inventory.catalogue.contract.fields import frozen_as
from markethall.inventory.catalogue.contract.products import NewProduct
from markethall.inventory.contract import MAX_UNITS
from markethall.shared.idempotency.records import IdempotentCommand
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.errors import DomainError
from markethall.shared.kernel.model import Dto, Int, QueryModel
from markethall.shared.kernel.money import Currency
from markethall.shared.kernel.pagination import Page, PageQuery


class ImportStatus(StrEnum):
    """Status of an import.

    Transitions: waiting -> running -> done or failed; failed -> waiting (by a retry).
    """

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


class ImportFormat(StrEnum):
    """Format of the file. The header of a CSV file determines which of the formats it has.

    FAMILIES is a CSV of families, with the columns of their export.
    """

    CSV = "csv"
    NDJSON = "ndjson"
    SHOPIFY = "shopify"
    WOOCOMMERCE = "woocommerce"
    FAMILIES = "families"


class NoteKind(StrEnum):
    """The kind of a note about a row.

    error: the row is not imported. warning: a value was cut or dropped, or an image not fetched.
    change: the row changes a product; only a dry run records changes.
    """

    ERROR = "error"
    WARNING = "warning"
    CHANGE = "change"


class MissingProducts(StrEnum):
    """The treatment of products that are not in the file, but belong to a family that is in it."""

    KEEP = "keep"
    ARCHIVE = "archive"


class ImportRowCounts(Dto):
    """The number of rows that were read, and the outcomes of the rows that describe a product.

    Two rows of the same product are counted twice, and the later row wins. A dry run counts the
    outcomes that a real import would have. If the quantity of a row differs from the stock of an
    existing product, `stock_changed` counts the row with the option `with_stock`, else
    `stock_skipped`. `archived` counts products that were archived because they are not in the
    file. `warnings` counts values that were cut or dropped, and images that were not fetched.
    `families_created` and `families_updated` count families; one that a file changes in several
    places may be counted several times.
    """

    read: int
    created: int
    updated: int
    unchanged: int
    failed: int
    stock_changed: int
    stock_skipped: int
    archived: int
    warnings: int
    families_created: int
    families_updated: int


FrozenCounts = Annotated[Mapping[str, int], *frozen_as(dict[str, int])]


class ImportFailure(Dto):
    """The reason why the rest of the file could not be imported."""

    code: str
    message: str


class ImportView(Dto):
    """The progress of an import.

    `size` is the size of the file in bytes, `percent` the part of it that is read so far.
    """

    import_id: UUID
    status: ImportStatus
    dry_run: bool
    with_stock: bool
    missing: MissingProducts
    fetch_images: bool
    format: ImportFormat
    size: int
    rows: ImportRowCounts
    changed_fields: Annotated[
        FrozenCounts, Field(description="Number of existing products that change, by field")
    ]
    percent: int
    rows_per_second: int
    rows_left: Annotated[int | None, Field(description="Estimated from the rows read so far")]
    failure: ImportFailure | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class RowNoteView(Dto):
    """An error in a row, a warning about it, or a change that the row makes.

    `field` of an error or a warning is a column name of the file, or a JSON pointer (RFC 6901) in
    NDJSON. `field` of a change is a field of the product.
    """

    line: int
    field: str
    code: str
    message: str


class ImportQuery(QueryModel):
    dry_run: Annotated[bool, Field(description="Validate every row without changing anything")] = (
        False
    )
    with_stock: Annotated[
        bool, Field(description="Also set the stock of existing products, as counted")
    ] = False
    missing: Annotated[
        MissingProducts,
        Field(description="archive: products that the file does not have, of families that it has"),
    ] = MissingProducts.KEEP
    currency: Annotated[Currency, Field(description="Currency of prices without one")] = "EUR"
    fetch_images: Annotated[
        bool, Field(description="Fetch images that rows name by URL, and store them as media")
    ] = False


class NewImport(ImportQuery):
    """The options of an import.

    `sha256` is the digest of the file. A retry with the same idempotency key must send the same
    file.
    """

    sha256: str
    format: ImportFormat


class ImportedFamily(FamilyChange):
    """The family of one row. Unlike in a merge patch, metadata and translations are replaced.

    `label` is the label or a slug of the family. A row with a new label creates a family.
    """

    label: FamilyLabel


class ImportedProduct(NewProduct):
    """The product of one row. `on_hand` is its counted quantity in the main warehouse.

    For a product that exists, the row needs only `sku` and the fields to change.
    """

    on_hand: Annotated[Int, Field(ge=0, le=MAX_UNITS)] | None = None


class Upload(Dto):
    """A stored file that no import uses yet."""

    upload_id: UUID
    size: int
    sha256: str


class ImportNotFound(DomainError):
    """No import has this id. Details: import_id."""

    code = "inventory.import_not_found"
    status = 404
    title = "There is no such import"


class ImportNotFailed(DomainError):
    """The import cannot be retried, because it has not failed. Details: status.

    A waiting or running import continues by itself, even after its process has crashed. To correct
    failed rows, change the file and import it again.
    """

    code = "inventory.import_not_failed"
    status = 409
    title = "This import has not failed"


class ImportFileExpired(DomainError):
    """The file of the failed import was deleted a week after the failure. Details: import_id."""

    code = "inventory.import_forgotten"
    status = 409
    title = "The file of this import is not kept any more"


class Imports(Protocol):
    """The API of imports and exports of products."""

    async def upload(self, ctx: CallContext, chunks: AsyncIterable[bytes]) -> Upload:
        """Store a file. It is deleted if no import uses it within an hour."""

    async def discard_upload(self, ctx: CallContext, upload: Upload) -> None:
        """Delete the upload, unless an import uses it."""

    async def start_import(
        self, ctx: CallContext, upload: Upload, command: NewImport, attempt: IdempotentCommand
    ) -> ImportView:
        """Start an import, which runs in the background. `attempt.id` becomes the import id.

        A row changes the existing product with the same SKU, or in a Shopify file the one with the
        same handle and options. If there is none, the row creates a product. Fields that a row does
        not have keep their values. An invalid row is recorded as an error and does not stop the
        import. `on_hand` is the stock of a new product in the main warehouse. The stock of an
        existing product is set only with the option `with_stock`.
        """

    async def get_import(self, ctx: CallContext, import_id: UUID) -> ImportView:
        """Raises ImportNotFound."""

    async def watch_import(
        self, ctx: CallContext, import_id: UUID
    ) -> AsyncIterator[ImportView | None]:
        """Yield the import at once, and after each change until it has finished.

        Yield None after every ten seconds without a change.

        Raises ImportNotFound, Overloaded (too many progress streams in this process).
        """

    async def list_row_notes(
        self, ctx: CallContext, import_id: UUID, kind: NoteKind, query: PageQuery
    ) -> Page[RowNoteView]:
        """Return notes of a kind in the order of the file. Raises ImportNotFound, CursorInvalid.

        Only the first 10,000 notes of each kind are stored.
        """

    async def retry_import(
        self, ctx: CallContext, import_id: UUID, attempt: IdempotentCommand
    ) -> ImportView:
        """Continue a failed import at the row where it stopped.

        Raises ImportNotFound, ImportNotFailed, ImportFileExpired.
        """

    def export_families(self, ctx: CallContext) -> AsyncIterator[bytes]:
        """Yield all families, sorted by label, as CSV that can be imported again.

        No row is split between two chunks.
        """

    def export_products(self, ctx: CallContext) -> AsyncIterator[bytes]:
        """Yield all products, sorted by id, as CSV that can be imported again.

        No row is split between two chunks.
        """
