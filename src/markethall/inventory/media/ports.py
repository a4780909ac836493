from collections.abc import AsyncIterator, Collection, Sequence
from datetime import datetime
from typing import Protocol
from uuid import UUID

from markethall.inventory.media.domain import Media, ProcessedImage
from markethall.shared.idempotency.records import ResponseStore


class ReadStore(Protocol):
    """Reads without locks. In Postgres, each method executes one statement."""

    async def get_media(self, media_id: UUID) -> Media | None: ...

    async def list_media(self, before: UUID | None, limit: int) -> Sequence[Media]:
        """Return images with ids below `before`, the greatest id first."""

    async def list_storage_keys(self, keys: Collection[UUID]) -> Collection[UUID]:
        """Return the keys among these that belong to an image."""


class Store(ReadStore, ResponseStore, Protocol):
    """Reads and writes of one transaction."""

    async def insert_media(self, media: Media) -> bool:
        """Insert the image. Return False when its id exists."""

    async def delete_media(self, media_id: UUID) -> bool:
        """Delete the image. Return False if there is none."""


class MediaStorage(Protocol):
    """The storage of image files: one file for each storage key and width.

    All methods raise Unavailable if the storage does not respond or responds with an error.
    """

    async def open(self) -> None:
        """Check the configuration before the first request.

        Raises StorageMisconfigured if files can never be stored.
        """

    async def put(self, key: UUID, width: int, data: bytes) -> None:
        """Store a file completely or not at all. Replace an existing file."""

    async def get(self, key: UUID, width: int) -> bytes | None:
        """Return the file, or None if there is none."""

    async def delete(self, key: UUID) -> None:
        """Delete all files of the key. Does nothing if there are none."""

    def list_keys(self, before: datetime) -> AsyncIterator[Collection[UUID]]:
        """Yield the keys with a file that was stored before this time, in parts.

        A key may occur in several parts. Files that `put` has not stored are ignored.
        """

    async def close(self) -> None:
        """Release threads and connections."""


class StorageMisconfigured(Exception):
    """The storage cannot be used with these settings; the text names the setting and the reason."""


class ImageProcessor(Protocol):
    """Decodes an image and encodes it in its sizes."""

    async def process(self, data: bytes) -> ProcessedImage:
        """Return the image in all its sizes, turned upright and without metadata.

        Images are processed one at a time. Raises ImageRefused, Overloaded.
        """

    async def close(self) -> None:
        """Stop the running work and drop the waiting work. The pending calls raise Overloaded."""
