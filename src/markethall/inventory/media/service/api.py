from collections.abc import AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from hashlib import sha256
from typing import Final
from uuid import UUID

import structlog
from pydantic import TypeAdapter

from markethall.inventory.media.contract import (
    ImageFile,
    MediaNotFound,
    MediaView,
    UploadedFile,
)
from markethall.inventory.media.domain.media import VERSION, Media
from markethall.inventory.media.ports import ImageProcessor, MediaStorage, ReadStore, Store
from markethall.inventory.media.service.slots import WorkSlots
from markethall.shared.idempotency.records import IdempotentCommand
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.clock import Clock
from markethall.shared.kernel.errors import Overloaded, Unavailable
from markethall.shared.kernel.etags import ExpectedVersions, check_expected_version
from markethall.shared.kernel.held_slots import leave_shared_slots
from markethall.shared.kernel.ids import new_id
from markethall.shared.kernel.pagination import Cursors, Page, PageQuery
from markethall.shared.persistence.database import Database

log = structlog.get_logger("markethall.media")

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
