"""The in-memory store of media, and the in-memory storage of its files."""

from collections.abc import AsyncIterator, Collection, Sequence
from datetime import datetime
from uuid import UUID

from markethall.inventory.media.domain import Media
from markethall.shared.composition.memory import ContextTables, MemoryUnitOfWork
from markethall.shared.kernel.clock import Clock
from markethall.shared.persistence.memory import Table


class MediaTables(ContextTables):
    def __init__(self) -> None:
        super().__init__()
        self.media: Table[UUID, Media] = Table()


class MemoryMediaStore(MemoryUnitOfWork):
    _tables: MediaTables

    async def get_media(self, media_id: UUID) -> Media | None:
        return self._tables.media.get(media_id)

    async def list_media(self, before: UUID | None, limit: int) -> Sequence[Media]:
        found = self._tables.media.where(lambda media: before is None or media.media_id < before)
        return sorted(found, key=lambda media: media.media_id, reverse=True)[:limit]

    async def list_storage_keys(self, keys: Collection[UUID]) -> Collection[UUID]:
        found = self._tables.media.where(lambda media: media.storage_key in keys)
        return [media.storage_key for media in found]

    async def insert_media(self, media: Media) -> bool:
        return self._tables.media.add(media.media_id, media)

    async def delete_media(self, media_id: UUID) -> bool:
        return self._tables.media.remove(media_id)


class MemoryMediaStorage:
    """Implements `MediaStorage`. The files are lost at the end of the process."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._files: dict[UUID, dict[int, tuple[bytes, datetime]]] = {}

    async def open(self) -> None:
        """Do nothing: memory needs no configuration."""

    async def put(self, key: UUID, width: int, data: bytes) -> None:
        self._files.setdefault(key, {})[width] = data, self._clock()

    async def get(self, key: UUID, width: int) -> bytes | None:
        data, _ = self._files.get(key, {}).get(width, (None, None))
        return data

    async def delete(self, key: UUID) -> None:
        self._files.pop(key, None)

    async def list_keys(self, before: datetime) -> AsyncIterator[Collection[UUID]]:
        yield [
            key
            for key, files in self._files.items()
            if any(stored_at < before for _, stored_at in files.values())
        ]

    async def close(self) -> None:
        """Do nothing: the files are lost with this object."""
