from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Self
from uuid import UUID

from markethall.inventory.media.contract import (
    STANDARD_WIDTHS,
    ImageFile,
    ImageSizeNotFound,
    ImageSizeView,
    MediaView,
)

# an image never changes
VERSION: Final = 1


@dataclass(frozen=True)
class ProcessedImage:
    """A decoded image: its size in pixels, and its WebP files by width."""

    width: int
    height: int
    files: Mapping[int, bytes]


@dataclass(frozen=True)
class Media:
    """The record of an image. `storage_key` names its files; each upload gets a new key."""

    media_id: UUID
    storage_key: UUID
    width: int
    height: int
    widths: Sequence[int]
    created_by: str
    created_at: datetime

    @classmethod
    def new(
        cls, media_id: UUID, storage_key: UUID, image: ProcessedImage, actor: str, now: datetime
    ) -> Self:
        return cls(
            media_id, storage_key, image.width, image.height, sorted(image.files), actor, now
        )

    def file_of(self, width: int) -> ImageFile:
        """Raises ImageSizeNotFound."""
        if width not in self.widths:
            raise ImageSizeNotFound(media_id=str(self.media_id), widths=list(self.widths))
        return ImageFile(self.media_id, self.storage_key, width, f"{self.storage_key}-{width}")

    def to_view(self) -> MediaView:
        sizes = tuple(self._size_view(width) for width in self.widths)
        return MediaView(
            media_id=self.media_id,
            url=sizes[-1].url,
            width=self.width,
            height=self.height,
            sizes=sizes,
            version=VERSION,
            created_at=self.created_at,
        )

    def _size_view(self, width: int) -> ImageSizeView:
        height = scaled_height(self.width, self.height, width)
        return ImageSizeView(width=width, height=height, url=f"/media/{self.media_id}/{width}.webp")


def widths_for(width: int) -> Sequence[int]:
    """Return the widths of an image of this width, the smallest first."""
    return [*(standard for standard in STANDARD_WIDTHS if standard < width), width]


def scaled_height(width: int, height: int, new_width: int) -> int:
    """Return the height in pixels after scaling to `new_width`; at least 1."""
    return max(1, round(height * new_width / width))
