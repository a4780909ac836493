import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Final
from uuid import UUID

from pydantic import TypeAdapter

from markethall.inventory.catalogue.domain.categories import paths_by_category
from markethall.inventory.catalogue.domain.families import Family
from markethall.inventory.catalogue.domain.products import Product
from markethall.inventory.imports.contract import (
    ImportFileExpired,
    ImportNotFound,
    ImportView,
    NewImport,
    NoteKind,
    RowNoteView,
    Upload,
)
from markethall.inventory.imports.domain.csv_columns import (
    CSV_HEADER,
    FAMILY_HEADER,
    family_to_cells,
    product_to_cells,
)
from markethall.inventory.imports.domain.jobs import ImportJob
from markethall.inventory.imports.ports import ReadStore, Store
from markethall.inventory.imports.service.import_reader import PART_BYTES
from markethall.shared.idempotency.records import IdempotentCommand
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.clock import Clock
from markethall.shared.kernel.csv_format import format_csv_row
from markethall.shared.kernel.errors import Overloaded, Unavailable
from markethall.shared.kernel.ids import new_id
from markethall.shared.kernel.pagination import Cursors, Page, PageQuery
from markethall.shared.persistence.database import Database

_NOTE_NUMBER: Final = TypeAdapter(int)
_EXPORT_PAGE_ROWS: Final = 500
# the limit of concurrent progress streams per process
_MAX_WATCHERS: Final = 32
_POLL_SECONDS: Final = 0.5
_HEARTBEAT_SECONDS: Final = 10.0


class ImportService:
    """Implementation of `Imports`."""

    def __init__(
        self,
        database: Database[ReadStore, Store],
        notify_worker: Callable[[], None],
        cursors: Cursors,
        clock: Clock,
    ) -> None:
        self._database = database
        self._notify_worker = notify_worker
        self._cursors = cursors
        self._clock = clock
        self._watchers = 0

    async def upload(self, ctx: CallContext, chunks: AsyncIterable[bytes]) -> Upload:
        upload_id = new_id()
        async with self._database.transaction() as store:
            await store.create_upload(upload_id, self._clock())
        try:
            return await self._store_parts(upload_id, chunks)
        except BaseException:
            with suppress(Unavailable):
                await self._delete_upload(upload_id)
            raise

    async def _store_parts(self, upload_id: UUID, chunks: AsyncIterable[bytes]) -> Upload:
        digest, size, number = hashlib.sha256(), 0, 0
        async for part in _split_into_parts(chunks):
            digest.update(part)
            size += len(part)
            # one transaction per part, so that a slow client does not hold a connection
            async with self._database.transaction() as store:
                await store.add_upload_part(upload_id, number, part)
            number += 1
        return Upload(upload_id=upload_id, size=size, sha256=digest.hexdigest())

    async def discard_upload(self, ctx: CallContext, upload: Upload) -> None:
        # if this fails, the periodic job deletes the upload later
        with suppress(Unavailable):
            await self._delete_upload(upload.upload_id)

    async def _delete_upload(self, upload_id: UUID) -> None:
        async with self._database.transaction() as store:
            await store.delete_upload_if_unused(upload_id)

    async def start_import(
        self, ctx: CallContext, upload: Upload, command: NewImport, attempt: IdempotentCommand
    ) -> ImportView:
        job = ImportJob.new(attempt.id, upload, command, ctx.actor.audit_name, self._clock())
        async with self._database.transaction() as store:
            if not await store.add_import_job(job):
                # an earlier request with the same key created the import; the router then
                # discards this upload
                job = await store.get_import_job(attempt.id) or job
            view = job.to_view()
            await store.store_response(attempt, view)
        self._notify_worker()
        return view

    async def get_import(self, ctx: CallContext, import_id: UUID) -> ImportView:
        async with self._database.read_session() as reads:
            return _job_or_404(await reads.get_import_job(import_id), import_id).to_view()

    async def watch_import(
        self, ctx: CallContext, import_id: UUID
    ) -> AsyncIterator[ImportView | None]:
        updates = self._watch(ctx, import_id)
        # Run the generator to its first `yield`. If the caller closes the generator without reading
        # it, its `finally` block, which frees the slot, runs only if the generator has started.
        await anext(updates)
        return updates

    async def _watch(
        self, ctx: CallContext, import_id: UUID
    ) -> AsyncGenerator[ImportView | None, None]:
        """Yield None for `watch_import`, then the import and its changes.

        Raises ImportNotFound, Overloaded.
        """
        if self._watchers >= _MAX_WATCHERS:
            raise Overloaded(retry_after=10)
        self._watchers += 1
        try:
            last_view = await self.get_import(ctx, import_id)
            yield None
            yield last_view
            idle_seconds = 0.0
            while last_view.finished_at is None:
                await asyncio.sleep(_POLL_SECONDS)
                idle_seconds += _POLL_SECONDS
                view = await self.get_import(ctx, import_id)
                if view != last_view:
                    last_view, idle_seconds = view, 0.0
                    yield last_view
                elif idle_seconds >= _HEARTBEAT_SECONDS:
                    idle_seconds = 0.0
                    yield None
        finally:
            self._watchers -= 1

    async def list_row_notes(
        self, ctx: CallContext, import_id: UUID, kind: NoteKind, query: PageQuery
    ) -> Page[RowNoteView]:
        name = f"imports:{import_id}:{kind}"
        after = self._cursors.decode(name, query.cursor, _NOTE_NUMBER) or 0
        async with self._database.read_session() as reads:
            rows = await reads.list_row_notes(import_id, kind, after, query.limit + 1)
            if not rows:
                _job_or_404(await reads.get_import_job(import_id), import_id)
        page = self._cursors.build_page(name, rows, query.limit, lambda row: row[0])
        items = tuple(RowNoteView(**vars(note)) for _, note in page.items)
        return Page(items=items, next_cursor=page.next_cursor)

    async def retry_import(
        self, ctx: CallContext, import_id: UUID, attempt: IdempotentCommand
    ) -> ImportView:
        async with self._database.transaction() as store:
            job = _job_or_404(await store.get_import_job_for_update(import_id), import_id)
            job.retry()
            if job.size and await store.get_upload_part(job.upload_id, 0) is None:
                raise ImportFileExpired(import_id=str(import_id))
            await store.save_import_job(job)
            view = job.to_view()
            await store.store_response(attempt, view)
        self._notify_worker()
        return view

    async def export_families(self, ctx: CallContext) -> AsyncIterator[bytes]:
        header = format_csv_row(FAMILY_HEADER)
        after = ""
        paths: Mapping[str, str] = {}
        while True:
            async with self._database.read_session() as reads:
                families = await reads.list_families(after, _EXPORT_PAGE_ROWS)
                if not paths.keys() >= {f.category for f in families if f.category is not None}:
                    paths = paths_by_category(await reads.list_all_category_nodes())
            yield "".join([header, *(_format_family(f, paths) for f in families)]).encode()
            header = ""
            if len(families) < _EXPORT_PAGE_ROWS:
                return
            after = families[-1].key

    async def export_products(self, ctx: CallContext) -> AsyncIterator[bytes]:
        header = format_csv_row(CSV_HEADER)
        after: UUID | None = None
        paths: Mapping[str, str] = {}
        while True:
            # one session per page, so that a slow client does not hold a connection
            async with self._database.read_session() as reads:
                rows = await reads.list_products_with_stock(after, _EXPORT_PAGE_ROWS)
                if not paths.keys() >= {p.category for p, _ in rows if p.category is not None}:
                    paths = paths_by_category(await reads.list_all_category_nodes())
            yield "".join([header, *(_format_product(*row, paths) for row in rows)]).encode()
            header = ""
            if len(rows) < _EXPORT_PAGE_ROWS:
                return
            after = rows[-1][0].product_id


def _format_product(product: Product, on_hand: int, paths: Mapping[str, str]) -> str:
    category = product.category and paths.get(product.category, product.category)
    return format_csv_row(product_to_cells(replace(product, category=category), on_hand))


def _format_family(family: Family, paths: Mapping[str, str]) -> str:
    category = family.category and paths.get(family.category, family.category)
    return format_csv_row(family_to_cells(replace(family, category=category)))


async def _split_into_parts(chunks: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """Split into parts of equal size, so that a position in the file determines its part."""
    buffer = bytearray()
    async for chunk in chunks:
        buffer += chunk
        while len(buffer) >= PART_BYTES:
            yield bytes(buffer[:PART_BYTES])
            del buffer[:PART_BYTES]
    if buffer:
        yield bytes(buffer)


def _job_or_404(job: ImportJob | None, import_id: UUID) -> ImportJob:
    if job is None:
        raise ImportNotFound(import_id=str(import_id))
    return job
