"""Images and their sizes, and checks of an uploaded file before a decoder reads it.

The checks refuse files that are also valid in another format: an archive, an HTML page or a
program. Such a file has bytes after the end of the image, or a script inside it. Only the pixels of
an accepted file are stored, so hostile content would not be stored without these checks either.
Their purpose is an error for the uploader.
"""

import re
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Self
from uuid import UUID

from markethall.inventory.media.contract import (
    MAX_SIDE_PIXELS,
    STANDARD_WIDTHS,
    ImageFile,
    ImageProblem,
    ImageRefused,
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
        return MediaView(**vars(self), url=sizes[-1].url, sizes=sizes, version=VERSION)

    def _size_view(self, width: int) -> ImageSizeView:
        height = scaled_height(self.width, self.height, width)
        return ImageSizeView(width=width, height=height, url=f"/media/{self.media_id}/{width}.webp")


def widths_for(width: int) -> Sequence[int]:
    """Return the widths of an image of this width, the smallest first."""
    return [*(standard for standard in STANDARD_WIDTHS if standard < width), width]


def scaled_height(width: int, height: int, new_width: int) -> int:
    """Return the height in pixels after scaling to `new_width`; at least 1."""
    return max(1, round(height * new_width / width))


MAX_FRAMES: Final = 300

# A search holds the interpreter lock. A large file is searched in parts, so that other threads can
# run between two parts.
_WINDOW_BYTES: Final = 256 * 1024
_LONGEST_MARKUP_BYTES: Final = 16
# each pattern is so long that 10 MiB of random bytes are very unlikely to match
_MARKUP: Final = re.compile(
    rb"<script|<\?php[ \r\n]|<!doctype html|<\?xml-stylesheet", re.IGNORECASE
)

_PNG_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_JPEG_START: Final = b"\xff\xd8\xff"
_GIF_SIGNATURES: Final = (b"GIF87a", b"GIF89a")
# inside the compressed data of a JPEG, 0xff is followed by 0 or by a restart marker
_JPEG_MARKER: Final = re.compile(rb"\xff+[^\x00\xd0-\xd7\xff]", re.DOTALL)
_MARKER_PREFIX: Final = 0xFF
_JPEG_END: Final = 0xD9
_JPEG_SCAN: Final = 0xDA
_JPEG_WITHOUT_LENGTH: Final = frozenset({0x01, *range(0xD0, 0xD9)})
_GIF_EXTENSION, _GIF_IMAGE, _GIF_TRAILER = 0x21, 0x2C, 0x3B


def check_file(data: bytes, max_pixels: int) -> str:
    """Return the format of the file: JPEG, PNG, WEBP or GIF. Raises ImageRefused."""
    if not data:
        raise refused(ImageProblem.EMPTY)
    format_, find_end = _format_of(data)
    try:
        if format_ == "WEBP":
            # WebP is checked here, because its decoder allocates the memory of all pixels on
            # opening
            check_size(*_webp_size(data), max_pixels)
        end = find_end(data)
    except (IndexError, struct.error):
        raise refused(ImageProblem.DAMAGED, "The file ends within the image.") from None
    # some programs pad files with zeros
    if data[end:].strip(b"\x00"):
        raise refused(
            ImageProblem.TRAILING_DATA,
            "There are bytes after the end of the image. Export the image again.",
        )
    _check_markup(data)
    return format_


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Raises ImageRefused if a side is too long or the image has more than `max_pixels`."""
    if max(width, height) > MAX_SIDE_PIXELS:
        raise refused(
            ImageProblem.SIDE_TOO_LONG, f"A side is longer than {MAX_SIDE_PIXELS} pixels."
        )
    if width * height > max_pixels:
        raise refused(ImageProblem.TOO_MANY_PIXELS, f"The image has more than {max_pixels} pixels.")


def refused(reason: ImageProblem, message: str = "") -> ImageRefused:
    return ImageRefused(message, reason=reason.value)


def _format_of(data: bytes) -> tuple[str, Callable[[bytes], int]]:
    """Return the format and the function that finds the end of such an image."""
    if data.startswith(_JPEG_START):
        return "JPEG", _jpeg_end
    if data.startswith(_PNG_SIGNATURE):
        return "PNG", _png_end
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "WEBP", _webp_end
    if data.startswith(_GIF_SIGNATURES):
        return "GIF", _gif_end
    raise refused(
        ImageProblem.UNSUPPORTED_FORMAT, "The file must be a JPEG, PNG, WebP or GIF image."
    )


def _check_markup(data: bytes) -> None:
    for start in range(0, len(data), _WINDOW_BYTES):
        if _MARKUP.search(data, start, start + _WINDOW_BYTES + _LONGEST_MARKUP_BYTES):
            raise refused(ImageProblem.CONTAINS_MARKUP, "The file contains a script.")


def _check_frames(count: int) -> None:
    if count > MAX_FRAMES:
        raise refused(
            ImageProblem.TOO_MANY_FRAMES, f"The animation has more than {MAX_FRAMES} frames."
        )


def _png_end(data: bytes) -> int:
    position, frames = len(_PNG_SIGNATURE), 0
    while True:
        size, kind = _uint32(data, position, ">I"), data[position + 4 : position + 8]
        position += 12 + size
        if position > len(data):
            raise IndexError
        frames += kind == b"fcTL"
        _check_frames(frames)
        if kind == b"IEND":
            return position


def _webp_end(data: bytes) -> int:
    end = 8 + _uint32(data, 4)
    if end > len(data):
        raise IndexError
    position, frames = 12, 0
    while position + 8 <= end:
        kind, size = data[position : position + 4], _uint32(data, position + 4)
        frames += kind == b"ANMF"
        _check_frames(frames)
        # chunks begin at even positions
        position += 8 + size + size % 2
    # some encoders omit the last padding byte
    if position > end + 1:
        raise IndexError
    return end


def _webp_size(data: bytes) -> tuple[int, int]:
    """Return the width and height in the first chunk of a WebP file."""
    kind, content = data[12:16], data[20:30]
    match kind:
        case b"VP8X":
            return _int24(content, 4) + 1, _int24(content, 7) + 1
        case b"VP8 ":
            width, height = struct.unpack_from("<HH", content, 6)
            return width & 0x3FFF, height & 0x3FFF
        case b"VP8L":
            bits = _uint32(content, 1)
            return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    raise refused(ImageProblem.DAMAGED, "The file has no image.")


def _uint32(data: bytes, position: int, format_: str = "<I") -> int:
    value: int = struct.unpack_from(format_, data, position)[0]
    return value


def _int24(data: bytes, position: int) -> int:
    return data[position] | data[position + 1] << 8 | data[position + 2] << 16


def _gif_end(data: bytes) -> int:
    position = 13 + _colour_table_bytes(data[10])
    frames = 0
    while (kind := data[position]) != _GIF_TRAILER:
        if kind == _GIF_EXTENSION:
            position += 2
        elif kind == _GIF_IMAGE:
            frames += 1
            _check_frames(frames)
            position += 11 + _colour_table_bytes(data[position + 9])
        else:
            raise refused(ImageProblem.DAMAGED, "The file has an unknown block.")
        while size := data[position]:
            position += size + 1
        position += 1
    return position + 1


def _colour_table_bytes(flags: int) -> int:
    """Return the size of the table that follows if the highest bit is set."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _jpeg_end(data: bytes) -> int:
    """Return the end of the image, and of the images that a multi-picture file appends to it."""
    end = _end_of_one_jpeg(data, 0)
    while data.startswith(_JPEG_START, end):
        end = _end_of_one_jpeg(data, end)
    return end


def _end_of_one_jpeg(data: bytes, start: int) -> int:
    for marker, position in _jpeg_markers(data, start + 2):
        if marker == _JPEG_END:
            return position
    raise IndexError


def _jpeg_markers(data: bytes, position: int) -> Iterator[tuple[int, int]]:
    """Yield the markers, each with the position after its two bytes."""
    while True:
        if data[position] != _MARKER_PREFIX:
            raise refused(ImageProblem.DAMAGED, "The file has bytes between its segments.")
        while data[position] == _MARKER_PREFIX:
            position += 1
        marker = data[position]
        position += 1
        yield marker, position
        if marker in _JPEG_WITHOUT_LENGTH:
            continue
        (size,) = struct.unpack_from(">H", data, position)
        position += size
        if marker == _JPEG_SCAN:
            position = _end_of_scan(data, position)


def _end_of_scan(data: bytes, position: int) -> int:
    """Return the position of the marker that follows the compressed data."""
    while position < len(data):
        # one byte more, because a marker may begin with the last byte of the window
        match = _JPEG_MARKER.search(data, position, position + _WINDOW_BYTES + 1)
        if match:
            return match.start()
        position += _WINDOW_BYTES
    raise IndexError
