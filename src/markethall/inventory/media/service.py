import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Collection
from contextlib import asynccontextmanager
from datetime import timedelta
from hashlib import sha256
from typing import Final
from uuid import UUID

import structlog
from pydantic import TypeAdapter

from markethall.inventory.media.contract import ImageFile, MediaNotFound, MediaView, UploadedFile
from markethall.inventory.media.domain import VERSION, Media
from markethall.inventory.media.ports import ImageProcessor, MediaStorage, ReadStore, Store
from markethall.shared.idempotency.records import IdempotentCommand
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.clock import Clock
from markethall.shared.kernel.errors import Overloaded, Unavailable
from markethall.shared.kernel.etags import ExpectedVersions, check_expected_version
from markethall.shared.kernel.held_slots import leave_shared_slots
from markethall.shared.kernel.ids import new_id
from markethall.shared.kernel.pagination import Cursors, Page, PageQuery
from markethall.shared.kernel.wait_budget import MAX_WAIT_SECONDS, wait_within_budget
from markethall.shared.persistence.database import Database

log = structlog.get_logger("markethall.media")


class WorkSlots:
    """A limited number of slots, and at most `max_waiting` tasks that wait for one."""

    def __init__(self, slots: int, max_waiting: int) -> None:
        self._semaphore = asyncio.Semaphore(slots)
        self._max_waiting = max_waiting
        self._waiting = 0

    @asynccontextmanager
    async def hold(self) -> AsyncIterator[None]:
        """Hold a slot during the block.

        Raises Overloaded if too many tasks wait, or after two seconds of waiting.
        """
        await self._acquire()
        try:
            yield
        finally:
            self._semaphore.release()

    async def _acquire(self) -> None:
        if self._semaphore.locked() and self._waiting >= self._max_waiting:
            raise Overloaded(retry_after=1)
        self._waiting += 1
        try:
            await wait_within_budget(self._semaphore.acquire(), MAX_WAIT_SECONDS)
        except TimeoutError:
            raise Overloaded(retry_after=1) from None
        finally:
            self._waiting -= 1


# per process; each upload keeps its file, by default at most 10 MiB, in memory
MAX_UPLOADS: Final = 4
MAX_READS: Final = 32
# The maximum time from the start of the decoding to the insert of the row. It must be less than
# GARBAGE_AGE, the age at which files without a row are deleted.
MAX_STORING_TIME: Final = timedelta(hours=1)
# content of a cursor: the id of the last image of the previous page
_MEDIA_KEYSET: Final = TypeAdapter(UUID)


class MediaService:
    """Implementation of `MediaLibrary`.

    The files are stored before the row, and the row is deleted before the files. So a row always
    has its files. MediaGarbageJob deletes files without a row.
    """

    def __init__(
        self,
        database: Database[ReadStore, Store],
        storage: MediaStorage,
        images: ImageProcessor,
        cursors: Cursors,
        clock: Clock,
    ) -> None:
        self._database = database
        self._storage = storage
        self._images = images
        self._cursors = cursors
        self._clock = clock
        self._uploads = WorkSlots(MAX_UPLOADS, max_waiting=0)
        self._reads = WorkSlots(MAX_READS, max_waiting=2 * MAX_READS)

    @asynccontextmanager
    async def upload(
        self, ctx: CallContext, chunks: AsyncIterable[bytes]
    ) -> AsyncIterator[UploadedFile]:
        async with self._uploads.hold():
            data, digest = bytearray(), sha256()
            async for chunk in chunks:
                data += chunk
                digest.update(chunk)
            yield UploadedFile(bytes(data), digest.hexdigest())

    async def create(
        self, ctx: CallContext, file: UploadedFile, attempt: IdempotentCommand
    ) -> MediaView:
        started_at = self._clock()
        image = await self._images.process(file.data)
        media = Media.new(attempt.id, new_id(), image, ctx.actor.audit_name, self._clock())
        for width, data in image.files.items():
            await self._storage.put(media.storage_key, width, data)
        if self._clock() - started_at > MAX_STORING_TIME:
            raise Overloaded(retry_after=1)
        async with self._database.transaction() as store:
            if not await store.insert_media(media):
                # An earlier attempt has inserted the row, and was interrupted before its response.
                # MediaGarbageJob deletes the files of this attempt.
                media = _found_or_404(await store.get_media(attempt.id), attempt.id)
            view = media.to_view()
            await store.store_response(attempt, view)
        return view

    async def get_media(self, ctx: CallContext, media_id: UUID) -> MediaView:
        return (await self._get(media_id)).to_view()

    async def list_media(self, ctx: CallContext, query: PageQuery) -> Page[MediaView]:
        before = self._cursors.decode("media", query.cursor, _MEDIA_KEYSET)
        async with self._database.read_session() as reads:
            found = await reads.list_media(before, query.limit + 1)
        views = [media.to_view() for media in found]
        return self._cursors.build_page("media", views, query.limit, lambda view: view.media_id)

    async def find_file(self, ctx: CallContext, media_id: UUID, width: int) -> ImageFile:
        return (await self._get(media_id)).file_of(width)

    async def read_file(self, ctx: CallContext, file: ImageFile) -> bytes:
        # The remaining work uses no database connection, and `_reads` limits it. So the request
        # releases the slots that limit the database work of all clients.
        leave_shared_slots()
        async with self._reads.hold():
            data = await self._storage.get(file.storage_key, file.width)
        if data is None:
            # the image was deleted after its row was read
            raise MediaNotFound(media_id=str(file.media_id))
        return data

    async def delete(
        self, ctx: CallContext, media_id: UUID, expected_versions: ExpectedVersions
    ) -> None:
        async with self._database.transaction() as store:
            media = _found_or_404(await store.get_media(media_id), media_id)
            check_expected_version(expected_versions, VERSION)
            if not await store.delete_media(media_id):
                # another request has deleted the image after this one read it
                raise MediaNotFound(media_id=str(media_id))
        try:
            await self._storage.delete(media.storage_key)
        except Unavailable as error:
            # the request succeeds, because the row is deleted; MediaGarbageJob deletes the files
            log.warning("media.file_deletion_postponed", error=repr(error.details))

    async def _get(self, media_id: UUID) -> Media:
        async with self._database.read_session() as reads:
            return _found_or_404(await reads.get_media(media_id), media_id)


def _found_or_404(media: Media | None, media_id: UUID) -> Media:
    if media is None:
        raise MediaNotFound(media_id=str(media_id))
    return media


# Much longer than MAX_STORING_TIME, so that the files of a running upload are not deleted before
# its row is inserted.
GARBAGE_AGE: Final = timedelta(days=1)
_INTERVAL_SECONDS: Final = 3600.0


class MediaGarbageJob:
    """Deletes files that are older than a day and have no row.

    Such files remain if a process ends after it stored the files and before it inserted the row, or
    after it deleted the row and before it deleted the files. The job has its own loop and is not
    one of the periodic jobs of the context, because a long list of files would delay those jobs.
    """

    def __init__(
        self, database: Database[ReadStore, Store], storage: MediaStorage, clock: Clock
    ) -> None:
        self._database = database
        self._storage = storage
        self._clock = clock

    async def run(self) -> None:
        """Delete unused files now and every hour, until cancelled."""
        while True:
            try:
                await self.run_once()
            except Unavailable as error:
                log.warning("media.garbage_postponed", error=repr(error.details))
            except Exception:  # a failure must not stop the background work of the context
                log.exception("media.garbage_failed")
            await asyncio.sleep(_INTERVAL_SECONDS)

    async def run_once(self) -> None:
        """Delete all unused files. Raises Unavailable.

        Delete nothing if none of the files has a row. The process was then probably started with a
        new or wrong database, and the files belong to rows of another database.
        """
        unused: set[UUID] = set()
        has_own_files = False
        async for keys in self._storage.list_keys(self._clock() - GARBAGE_AGE):
            async with self._database.read_session() as reads:
                used = set(await reads.list_storage_keys(keys))
            has_own_files = has_own_files or bool(used)
            unused |= set(keys) - used
            if has_own_files:
                await self._delete(unused)
                unused.clear()
        if unused:
            log.warning("media.garbage_kept", count=len(unused))

    async def _delete(self, keys: Collection[UUID]) -> None:
        for key in keys:
            await self._storage.delete(key)
            log.info("media.garbage_deleted", storage_key=str(key))
