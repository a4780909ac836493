"""The contract of media: images that staff upload, stored as WebP in several sizes."""

from collections.abc import AsyncIterable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Final, Protocol
from uuid import UUID

from pydantic import Field

from markethall.shared.idempotency.records import IdempotentCommand
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.errors import DomainError
from markethall.shared.kernel.etags import ExpectedVersions
from markethall.shared.kernel.model import Dto, RequestModel
from markethall.shared.kernel.pagination import Page, PageQuery

# an image is stored in its own width, and in each of these widths that is smaller
STANDARD_WIDTHS: Final = (160, 320, 640, 960, 1280, 1920)
# the largest side that the WebP format allows
MAX_SIDE_PIXELS: Final = 16_383


class ImageSizeView(Dto):
    """One size of an image, in pixels. `url` is a path of this API."""

    width: int
    height: int
    url: str


class MediaView(Dto):
    """An image. `url`, `width` and `height` are those of its largest size.

    An image never changes, so its version is always 1.
    """

    media_id: UUID
    url: Annotated[str, Field(description="The largest size, as a path of this API")]
    width: Annotated[int, Field(description="Pixels")]
    height: Annotated[int, Field(description="Pixels")]
    sizes: Annotated[
        tuple[ImageSizeView, ...], Field(description="All sizes, the smallest first; all are WebP")
    ]
    version: int
    created_at: datetime


class NewMedia(RequestModel):
    """The payload of an upload for its idempotency record: the SHA-256 digest of the file."""

    sha256: str


@dataclass(frozen=True)
class UploadedFile:
    """A file in memory, and its SHA-256 digest in hexadecimal digits."""

    data: bytes
    sha256: str


@dataclass(frozen=True)
class ImageFile:
    """Names the WebP file of one size of an image. `tag` is the content of its entity tag."""

    media_id: UUID
    storage_key: UUID
    width: int
    tag: str


class ImageProblem(StrEnum):
    """The reason why an uploaded file is refused."""

    EMPTY = "empty"
    UNSUPPORTED_FORMAT = "unsupported_format"
    UNSUPPORTED_COLOURS = "unsupported_colours"
    DAMAGED = "damaged"
    TRAILING_DATA = "trailing_data"
    CONTAINS_MARKUP = "contains_markup"
    TOO_MANY_FRAMES = "too_many_frames"
    TOO_MANY_PIXELS = "too_many_pixels"
    SIDE_TOO_LONG = "side_too_long"


class ImageRefused(DomainError):
    """The file is not an image that can be stored. Details: reason.

    Reasons: empty; unsupported_format, neither JPEG, PNG, WebP nor GIF; unsupported_colours, such
    as 16 bits of grey; damaged, incomplete or not decodable; trailing_data, bytes after the end of
    the image; contains_markup, a script in the file; too_many_frames of an animation;
    too_many_pixels; side_too_long, more than 16,383 pixels.
    """

    code = "inventory.image_refused"
    status = 422
    title = "The file is not an image that can be stored"


class MediaNotFound(DomainError):
    """No image has this id. Details: media_id."""

    code = "inventory.media_not_found"
    status = 404
    title = "There is no such image"


class ImageSizeNotFound(DomainError):
    """The image does not have this width. Details: media_id, widths."""

    code = "inventory.image_size_not_found"
    status = 404
    title = "The image does not have this width"


class MediaLibrary(Protocol):
    """The API of images."""

    def upload(
        self, ctx: CallContext, chunks: AsyncIterable[bytes]
    ) -> AbstractAsyncContextManager[UploadedFile]:
        """Read a file into memory; the block may then create an image from it.

        At most four uploads are in this block in one process at a time. Raises Overloaded if there
        are more.
        """

    async def create(
        self, ctx: CallContext, file: UploadedFile, attempt: IdempotentCommand
    ) -> MediaView:
        """Decode the file, and store the image in each size. `attempt.id` becomes its id.

        All metadata of the file is dropped, such as the GPS position of a photo. Raises
        ImageRefused, Overloaded, Unavailable.
        """

    async def get_media(self, ctx: CallContext, media_id: UUID) -> MediaView:
        """Raises MediaNotFound."""

    async def list_media(self, ctx: CallContext, query: PageQuery) -> Page[MediaView]:
        """Return images, the newest first. Raises CursorInvalid."""

    async def find_file(self, ctx: CallContext, media_id: UUID, width: int) -> ImageFile:
        """Raises MediaNotFound, ImageSizeNotFound."""

    async def read_file(self, ctx: CallContext, file: ImageFile) -> bytes:
        """Return the content of the file. Raises MediaNotFound, Overloaded, Unavailable."""

    async def delete(
        self, ctx: CallContext, media_id: UUID, expected_versions: ExpectedVersions
    ) -> None:
        """Delete an image in all sizes. Products keep its URL. Raises MediaNotFound."""
