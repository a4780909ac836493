"""The worker that processes imports. A process can continue the import of another process."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Final
from uuid import UUID

import structlog

from markethall.inventory.catalogue.ports import ProductCache, ProductIndex
from markethall.inventory.imports.contract import ImportView, MissingProducts, NoteKind
from markethall.inventory.imports.domain.file_records import FilePosition, RowNote, UnreadableFile
from markethall.inventory.imports.domain.jobs import MAX_STORED_NOTES, ImportJob
from markethall.inventory.imports.domain.row_validation import ReadStep, StepReader
from markethall.inventory.imports.ports import ReadStore, Store
from markethall.inventory.imports.service.import_batch import (
    BatchChanges,
    BlockedByExpiredReservations,
    SkuConflict,
    archive_missing_products,
    build_batch_changes,
    check_expired_reservations,
    persist,
)
from markethall.inventory.imports.service.import_reader import ImportReader, Prefetcher
from markethall.inventory.imports.service.row_images import RowImages
from markethall.inventory.stock.ports import ReservationExpiry
from markethall.shared.kernel.clock import Clock
from markethall.shared.kernel.errors import Unavailable
from markethall.shared.kernel.ids import new_id
from markethall.shared.persistence.database import Database


class ReadModels:
    def __init__(self, cache: ProductCache, search_index: ProductIndex) -> None:
        self._cache = cache
        self._search_index = search_index

    def invalidate(self, changes: BatchChanges) -> None:
        """Invalidate the products of the batch, which may have been applied, and all pages."""
        self._cache.invalidate(changes.touched_product_ids, pages=True)

    async def update(self, changes: BatchChanges) -> None:
        """Invalidate and index the products of the batch, which has been applied."""
        product_ids = changes.touched_product_ids
        has_changes = bool(product_ids or changes.families.changed)
        self._cache.invalidate(product_ids, pages=has_changes)
        if products := changes.written_products:
            await self._search_index.index(products)


log = structlog.get_logger("markethall.imports")

MAX_BATCH_ROWS: Final = 1000
# a batch that fails, for example by the statement timeout, is halved until it has this size
_MIN_BATCH_ROWS: Final = 50
# the batch size if images are fetched: after a crash, the next worker fetches the images of a batch
# again
_MAX_BATCH_ROWS_WITH_IMAGES: Final = 50
# if a lease is not renewed for this time, another worker takes over the import
LEASE_DURATION: Final = timedelta(seconds=30)
_LEASE_RENEWAL_SECONDS: Final = 10.0
_UNUSED_UPLOAD_RETENTION: Final = timedelta(hours=1)
# a failed import can be retried for this time; then its file, up to 64 MiB, is deleted
_FAILED_UPLOAD_RETENTION: Final = timedelta(days=7)
_FINISHED_IMPORT_RETENTION: Final = timedelta(days=90)
_CLEANUP_INTERVAL: Final = timedelta(minutes=5)
_POLL_SECONDS: Final = 5.0
_RETRY_PAUSE_SECONDS: Final = 0.5
_MAX_ATTEMPTS: Final = 20


class ImportLeaseLost(Exception):
    """The lease has expired, and another worker has taken over the import."""


class PositionConflict(Exception):
    """The stored position or lease is not the expected one.

    Either another worker has taken over, or an earlier commit succeeded, but its response was
    lost.
    """


class ImportWorker:
    """Process imports, one after the other.

    One transaction writes a batch of rows, their errors and the new position in the file. So a
    crash loses no row, and no row is applied twice.
    """

    def __init__(
        self,
        database: Database[ReadStore, Store],
        read_models: ReadModels,
        reservation_expiry: ReservationExpiry,
        row_images: RowImages,
        clock: Clock,
    ) -> None:
        self._database = database
        self._row_images = row_images
        self._read_models = read_models
        self._reservation_expiry = reservation_expiry
        self._clock = clock
        self._work_available = asyncio.Event()
        self._next_cleanup_at = clock()

    def notify(self) -> None:
        """Make the worker of this process look for imports now, instead of at its next poll."""
        self._work_available.set()

    async def run(self) -> None:
        """Process imports until this task is cancelled."""
        while True:
            self._work_available.clear()
            try:
                if await self.process_next() is not None:
                    continue
            except Unavailable:
                log.warning("import.database_unavailable")
            with suppress(TimeoutError):
                async with asyncio.timeout(_POLL_SECONDS):
                    await self._work_available.wait()

    async def process_next(self, import_id: UUID | None = None) -> ImportView | None:
        """Lease and process the oldest unfinished import, or only the one with this id.

        Return None if there is none, or if another worker has its lease.
        """
        token, now = new_id(), self._clock()
        async with self._database.autocommit() as store:
            job = await store.lease_import_job(token, now, now + LEASE_DURATION, import_id)
        if job is None:
            return None
        try:
            job = await self._process(job, token)
        except ImportLeaseLost:
            log.warning("import.lease_lost", import_id=str(job.import_id))
        finally:
            await self._release_lease(job, token)
        return job.to_view()

    async def run_once(self) -> None:
        """Delete unused uploads and old imports, at most every five minutes."""
        now = self._clock()
        # also clean up if the next cleanup is more than an interval away: the clock was set back
        if not now < self._next_cleanup_at <= now + _CLEANUP_INTERVAL:
            self._next_cleanup_at = now + _CLEANUP_INTERVAL
            async with self._database.transaction() as store:
                await store.delete_stale_uploads(
                    now - _UNUSED_UPLOAD_RETENTION, now - _FAILED_UPLOAD_RETENTION
                )
                await store.delete_old_import_jobs(now - _FINISHED_IMPORT_RETENTION)

    async def _process(self, job: ImportJob, token: UUID) -> ImportJob:
        """Raises ImportLeaseLost, Unavailable."""
        import_reader = ImportReader(self._database, job)
        try:
            row_reader, first_row = await import_reader.open()
            job = replace(job, format=row_reader.format)
            if row_reader.file_index:
                await self._index_file(job, token, import_reader, row_reader.file_index, first_row)
            return await self._process_batches(
                job, token, Prefetcher(import_reader, row_reader), first_row
            )
        except UnreadableFile as reason:
            return await self._mark_failed(job, token, reason)
        except (Unavailable, ImportLeaseLost):
            raise
        except Exception:
            log.exception("import.failed", import_id=str(job.import_id))
            failure = UnreadableFile(
                "internal", "Internal error. A retry continues where the import stopped."
            )
            return await self._mark_failed(job, token, failure)

    async def _index_file(
        self,
        job: ImportJob,
        token: UUID,
        import_reader: ImportReader,
        file_index: StepReader,
        position: FilePosition,
    ) -> None:
        """Read the whole file into the index. Renew the lease after each part of the file.

        Raises UnreadableFile, ImportLeaseLost, Unavailable.
        """
        while position.offset < job.size:
            position = (await import_reader.read_batch(file_index, position, 1)).next_position
            await self._renew_lease(job, token)

    async def _process_batches(
        self, job: ImportJob, token: UUID, prefetcher: Prefetcher, first_row: FilePosition
    ) -> ImportJob:
        """Process batches until the import has finished. Raises ImportLeaseLost, Unavailable."""
        batch_size = MAX_BATCH_ROWS
        try:
            while not job.finished_at:
                position = max(job.position, first_row, key=lambda position: position.offset)
                if job.fetches_images:
                    batch_size = min(batch_size, _MAX_BATCH_ROWS_WITH_IMAGES)
                batch = await prefetcher.get_batch(position, batch_size)
                prefetcher.start(batch.next_position, batch_size)
                if job.fetches_images:
                    batch = await self._fetch_images(job, token, batch)
                job, batch_size = await self._apply_with_retries(job, token, batch, batch_size)
        finally:
            await prefetcher.cancel()
        return job

    async def _fetch_images(self, job: ImportJob, token: UUID, batch: ReadStep) -> ReadStep:
        """Replace the URLs of images in the rows. Renew the lease meanwhile.

        Raises ImportLeaseLost, Unavailable.
        """
        fetching = asyncio.ensure_future(self._row_images.fetch(batch.rows))
        renewal = asyncio.create_task(self._keep_lease(job, token))
        try:
            await asyncio.wait({fetching, renewal}, return_when=asyncio.FIRST_COMPLETED)
            if not fetching.done():
                # raises the error that ended the renewal
                renewal.result()
            return batch._replace(rows=await fetching)
        finally:
            fetching.cancel()
            renewal.cancel()
            await asyncio.gather(fetching, renewal, return_exceptions=True)

    async def _keep_lease(self, job: ImportJob, token: UUID) -> None:
        """Renew the lease until cancelled. Raises ImportLeaseLost, Unavailable."""
        while True:
            await asyncio.sleep(_LEASE_RENEWAL_SECONDS)
            await self._renew_lease(job, token)

    async def _renew_lease(self, job: ImportJob, token: UUID) -> None:
        renewed = replace(job, lease_until=self._clock() + LEASE_DURATION)
        async with self._database.transaction() as store:
            if not await store.advance_import_job(renewed, token, job.position.offset):
                raise ImportLeaseLost

    async def _apply_with_retries(
        self, job: ImportJob, token: UUID, batch: ReadStep, batch_size: int
    ) -> tuple[ImportJob, int]:
        """Apply the batch. Return the new state of the job, and the size of the next batch.

        If the state is unchanged, the caller must try the same rows again in smaller batches.
        Raises ImportLeaseLost, Unavailable.
        """
        for _ in range(_MAX_ATTEMPTS):
            try:
                return await self._apply_batch(job, token, batch), min(
                    MAX_BATCH_ROWS, 2 * batch_size
                )
            except SkuConflict:
                continue
            except Unavailable:
                await asyncio.sleep(_RETRY_PAUSE_SECONDS)
            except PositionConflict:
                pass
            with suppress(Unavailable):
                stored = await self._reload_job(job, token)
                if stored.position != job.position:
                    # the commit succeeded, but its response was lost
                    return stored, batch_size
                if batch_size > _MIN_BATCH_ROWS:
                    # the caller tries the same rows in smaller batches
                    return job, batch_size // 2
        raise Unavailable(dependency="postgres")

    async def _reload_job(self, job: ImportJob, token: UUID) -> ImportJob:
        """Read the state of the import. Raises ImportLeaseLost, Unavailable."""
        async with self._database.read_session() as reads:
            stored = await reads.get_import_job(job.import_id)
        if stored is None or (stored.token != token and not stored.finished_at):
            raise ImportLeaseLost
        return replace(stored, format=job.format)

    async def _apply_batch(self, job: ImportJob, token: UUID, batch: ReadStep) -> ImportJob:
        """Apply a batch. If overdue reservations block it, expire them and apply it once more.

        Raises SkuConflict, PositionConflict, Unavailable.
        """
        try:
            return await self._apply_in_transaction(job, token, batch)
        except BlockedByExpiredReservations as blocked:
            await self._reservation_expiry.expire_reservations(blocked.product_ids)
        return await self._apply_in_transaction(job, token, batch, is_last_attempt=True)

    async def _apply_in_transaction(
        self, job: ImportJob, token: UUID, batch: ReadStep, *, is_last_attempt: bool = False
    ) -> ImportJob:
        """Apply a batch in one transaction.

        Raises SkuConflict, PositionConflict, Unavailable. Raises BlockedByExpiredReservations if
        rows set fewer units on hand than are reserved and some reservations are overdue. If
        `is_last_attempt` is true, store errors of these rows instead.
        """
        changes: BatchChanges | None = None
        try:
            async with self._database.transaction() as store:
                changes = await build_batch_changes(store, job, batch.rows, self._clock())
                if job.missing == MissingProducts.ARCHIVE:
                    is_last = batch.next_position.offset >= job.size
                    await archive_missing_products(
                        store, changes, batch.next_position, is_last=is_last
                    )
                if not is_last_attempt:
                    await check_expired_reservations(store, changes)
                job = await self._persist_batch(store, job, token, batch, changes)
        except Unavailable:
            # the transaction may have committed, so the cached products may be outdated
            if changes and not job.dry_run:
                self._read_models.invalidate(changes)
            raise
        if not job.dry_run:
            await self._read_models.update(changes)
        return job

    async def _persist_batch(
        self, store: Store, job: ImportJob, token: UUID, batch: ReadStep, changes: BatchChanges
    ) -> ImportJob:
        """Write the changes, the errors and the progress. Return the new state of the job.

        Raises SkuConflict, PositionConflict.
        """
        if not job.dry_run:
            await persist(store, changes)
        advanced = replace(job, lease_until=changes.now + LEASE_DURATION)
        advanced.advance(
            batch.next_position,
            batch.record_count,
            changes.outcomes,
            changes.changed_fields,
            changes.now,
        )
        await _store_notes(store, advanced, NoteKind.ERROR, changes.errors)
        await _store_notes(store, advanced, NoteKind.WARNING, changes.warnings)
        await _store_notes(store, advanced, NoteKind.CHANGE, changes.noted_changes)
        if not await store.advance_import_job(advanced, token, job.position.offset):
            raise PositionConflict
        if advanced.finished_at:
            await store.delete_upload_if_unused(job.upload_id)
        return advanced

    async def _mark_failed(self, job: ImportJob, token: UUID, reason: UnreadableFile) -> ImportJob:
        failed = replace(job)
        failed.mark_failed(reason, self._clock())
        async with self._database.transaction() as store:
            if not await store.advance_import_job(failed, token, job.position.offset):
                raise ImportLeaseLost
        return failed

    async def _release_lease(self, job: ImportJob, token: UUID) -> None:
        """End the lease of an unfinished import, so that another worker can continue at once."""
        if job.finished_at:
            return
        with suppress(Unavailable):
            async with self._database.transaction() as store:
                await store.release_import_lease(job.import_id, token)


async def _store_notes(
    store: Store, job: ImportJob, kind: NoteKind, notes: Sequence[RowNote]
) -> None:
    """Store notes up to the limit, and count them in the job."""
    stored = job.count_note(kind)
    if fitting := notes[: max(0, MAX_STORED_NOTES - stored)]:
        await store.add_row_notes(job.import_id, kind, stored + 1, fitting)
        job.add_stored_notes(kind, len(fitting))
