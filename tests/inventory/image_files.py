"""Image files for tests: valid ones, and hostile ones."""

import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from typing import Any, Final

from PIL import Image, ImageCms

from markethall.inventory.media.domain import ProcessedImage
from markethall.inventory.media.gateway.image_worker import process_image

MAX_PIXELS: Final = 1_000_000


class InProcessImages:
    """Implements `ImageProcessor` without a process, which takes a second to start."""

    async def process(self, data: bytes) -> ProcessedImage:
        return process_image(data, MAX_PIXELS)

    async def close(self) -> None:
        """Do nothing: there is no process."""


def picture(width: int = 64, height: int = 48, mode: str = "RGB") -> Image.Image:
    """Return an image whose left half is black and whose right half is white."""
    image = Image.new("L", (width, height), 0)
    image.paste(255, (width // 2, 0, width, height))
    return image.convert(mode)


def encoded(image: Image.Image, format_: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format_, **options)
    return file.getvalue()


def jpeg(**options: Any) -> bytes:
    return encoded(picture(), "JPEG", **options)


def png(width: int = 64, height: int = 48) -> bytes:
    return encoded(picture(width, height), "PNG")


def webp() -> bytes:
    return encoded(picture(), "WEBP")


def gif() -> bytes:
    return encoded(picture(mode="P"), "GIF")


def photo_with_place() -> bytes:
    """Return a JPEG with metadata: an orientation of 90 degrees, a GPS position, a comment."""
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010F] = "Camera maker"
    exif.get_ifd(0x8825)[1] = "N"
    exif.get_ifd(0x8825)[2] = (52.0, 31.0, 12.0)
    return encoded(picture(), "JPEG", exif=exif, comment=b"a comment", icc_profile=srgb_profile())


def srgb_profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


# PNG


def chunk(kind: bytes, content: bytes, *, crc: int | None = None) -> bytes:
    checksum = zlib.crc32(kind + content) if crc is None else crc
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def png_of(
    width: int, height: int, *chunks: bytes, depth: int = 8, colours: int = 0, end: bytes = b""
) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colours, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        [chunk(b"IHDR", header), *chunks, end or chunk(b"IEND", b"")]
    )


def png_bomb(side: int) -> bytes:
    """Return a small PNG file of side * side grey pixels."""
    compressor = zlib.compressobj(9)
    rows = b"".join(compressor.compress(bytes(side + 1)) for _ in range(side))
    return png_of(side, side, chunk(b"IDAT", rows + compressor.flush()))


def insert_after_header(file: bytes, *chunks: bytes) -> bytes:
    """Insert chunks into a PNG file, after IHDR."""
    return file[:33] + b"".join(chunks) + file[33:]


# GIF


def gif_of(width: int, height: int, frames: int) -> bytes:
    """Return a GIF with this logical screen and frames of one pixel."""
    screen = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff"
    frame = b"\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\x00"
    return screen + frame * frames + b";"


def gif_with_frame(width: int, height: int) -> bytes:
    """Return a GIF with a screen of one pixel and a larger frame."""
    screen = b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff"
    frame = b"\x2c" + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\x02\x02\x44\x01\x00"
    return screen + frame + b";"


# WebP


def webp_of(*chunks: bytes) -> bytes:
    content = b"WEBP" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(content)) + content


def webp_chunk(kind: bytes, content: bytes) -> bytes:
    return kind + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)


def webp_canvas(width: int, height: int, flags: int = 0) -> bytes:
    size = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return webp_chunk(b"VP8X", bytes([flags, 0, 0, 0]) + size)


def webp_frames(count: int) -> bytes:
    frame = webp_chunk(b"ANMF", bytes(16) + webp()[12:])
    return webp_of(webp_canvas(64, 48, 2), webp_chunk(b"ANIM", bytes(6)), frame * count)


# Other formats


def tiff_bomb() -> bytes:
    """Return a TIFF file that claims 60,000 * 60,000 pixels."""
    tags = [(256, 60_000), (257, 60_000), (258, 8), (259, 1), (262, 1), (273, 8), (279, 8)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)


def archive() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as opened:
        opened.writestr("Main.class", "payload")
    return file.getvalue()


def jpeg_with_size(width: int, height: int) -> bytes:
    """Return a JPEG whose header claims this size."""
    file = bytearray(jpeg())
    frame = file.index(b"\xff\xc0")
    file[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    return bytes(file)


def jpeg_with_segment(marker: int, content: bytes) -> bytes:
    segment = bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content
    return jpeg()[:2] + segment + jpeg()[2:]


def script_in_jpeg_header() -> bytes:
    """Return a JPEG that a browser would also run as JavaScript: its header begins a comment."""
    content = b"\0" * 0x2F28
    header = b"\xff\xd8\xff\xe0\x2f\x2a" + content
    return header + b"\xff\xfe\x00\x1c*/=alert('markethall')/*...\xff\xd9"


def damaged(file: bytes, position: int, new: bytes) -> bytes:
    return file[:position] + new + file[position + len(new) :]


# each with the expected `details.reason`
HOSTILE_FILES: Final[dict[str, tuple[str, Callable[[], bytes]]]] = {
    # pixels that take much more memory than the file
    "png_bomb": ("too_many_pixels", lambda: png_bomb(4_000)),
    "png_bomb_of_16_bits": ("too_many_pixels", lambda: png_of(9_000, 9_000, depth=16)),
    "png_of_huge_size": ("too_many_pixels", lambda: png_of(2**31 - 1, 2**31 - 1)),
    "png_of_long_side": ("side_too_long", lambda: png_of(1_000_000, 1)),
    "gif_bomb": ("too_many_pixels", lambda: gif_of(65_535, 65_535, 1)),
    "gif_bomb_of_frame": ("too_many_pixels", lambda: gif_with_frame(16_000, 16_000)),
    "webp_bomb": ("too_many_pixels", lambda: webp_of(webp_canvas(16_000, 16_000))),
    "webp_bomb_of_animation": (
        "too_many_pixels",
        lambda: webp_of(webp_canvas(16_383, 16_383, 2), webp_chunk(b"ANIM", bytes(6))),
    ),
    "webp_of_huge_canvas": ("side_too_long", lambda: webp_of(webp_canvas(2**24, 2**24))),
    "webp_lossless_bomb": (
        "too_many_pixels",
        lambda: webp_of(webp_chunk(b"VP8L", b"\x2f\x7f\xfe\x9f\x0f" + bytes(8))),
    ),
    "tiff_bomb": ("unsupported_format", tiff_bomb),
    "jpeg_of_huge_size": ("too_many_pixels", lambda: jpeg_with_size(65_535, 65_535)),
    "jpeg_bomb": ("too_many_pixels", lambda: jpeg_with_size(16_000, 16_000)),
    "png_of_compressed_text": (
        "damaged",
        lambda: insert_after_header(
            png(), *[chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(10_000_000)))] * 10
        ),
    ),
    "png_of_compressed_profile": (
        "damaged",
        lambda: insert_after_header(
            png(), chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(100_000_000)))
        ),
    ),
    # other formats
    "svg": (
        "unsupported_format",
        lambda: b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
    ),
    "svg_with_declaration": ("unsupported_format", lambda: b'<?xml version="1.0"?><svg/>'),
    "html": ("unsupported_format", lambda: b"<!doctype html><script>alert(1)</script>"),
    "javascript": ("unsupported_format", lambda: b"alert(1)"),
    "pdf": ("unsupported_format", lambda: b"%PDF-1.7\n%%EOF"),
    "postscript": ("unsupported_format", lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n"),
    "bmp": ("unsupported_format", lambda: encoded(picture(), "BMP")),
    "icon": ("unsupported_format", lambda: encoded(picture(), "ICO")),
    "jpeg_2000": ("unsupported_format", lambda: b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(100)),
    "avif": ("unsupported_format", lambda: b"\0\0\0\x1cftypavif" + bytes(100)),
    "archive": ("unsupported_format", archive),
    "program": ("unsupported_format", lambda: b"\x7fELF" + bytes(100)),
    "zeros": ("unsupported_format", lambda: bytes(1_000)),
    "spaces_before_png": ("unsupported_format", lambda: b"  " + png()),
    "empty": ("empty", lambda: b""),
    # files that are valid in another format too
    "jpeg_and_archive": ("trailing_data", lambda: jpeg() + archive()),
    "gif_and_archive": ("trailing_data", lambda: gif() + archive()),
    "png_and_archive": ("trailing_data", lambda: png() + archive()),
    "webp_and_archive": ("trailing_data", lambda: webp() + archive()),
    "jpeg_and_script": ("trailing_data", lambda: jpeg() + b"*/alert(1)"),
    "gif_and_html": ("trailing_data", lambda: gif() + b"<html>"),
    "two_pngs": ("trailing_data", lambda: png() + png()),
    "script_in_jpeg_header": ("damaged", script_in_jpeg_header),
    "html_in_jpeg_comment": (
        "contains_markup",
        lambda: jpeg(comment=b"<script>alert(1)</script>"),
    ),
    "php_in_jpeg_comment": ("contains_markup", lambda: jpeg(comment=b"<?php system('id'); ?>")),
    "html_in_png_text": (
        "contains_markup",
        lambda: insert_after_header(png(), chunk(b"tEXt", b"a\0<SCRIPT>alert(1)</SCRIPT>")),
    ),
    "html_in_gif_comment": (
        "contains_markup",
        lambda: gif()[:-1] + b"\x21\xfe\x16<!doctype html><title>\x00;",
    ),
    # animations
    "gif_of_5000_frames": ("too_many_frames", lambda: gif_of(1, 1, 5_000)),
    "webp_of_5000_frames": ("too_many_frames", lambda: webp_frames(5_000)),
    "png_of_5000_frames": (
        "too_many_frames",
        lambda: insert_after_header(png(), *[chunk(b"fcTL", bytes(26))] * 5_000),
    ),
    # incomplete and damaged files
    "jpeg_start": ("damaged", lambda: b"\xff\xd8\xff"),
    "half_a_jpeg": ("damaged", lambda: jpeg()[: len(jpeg()) // 2]),
    "jpeg_without_end": ("damaged", lambda: jpeg()[:-2]),
    "jpeg_without_scan": ("damaged", lambda: jpeg_with_size(64, 48)[:300] + b"\xff\xd9"),
    "jpeg_with_segment_of_zero_bytes": ("damaged", lambda: b"\xff\xd8\xff\xe0\0\0\xff\xd9"),
    "jpeg_of_width_zero": ("damaged", lambda: jpeg_with_size(0, 48)),
    "jpeg_of_height_zero": ("damaged", lambda: jpeg_with_size(64, 0)),
    "half_a_png": ("damaged", lambda: png()[: len(png()) // 2]),
    "png_header_only": ("damaged", lambda: b"\x89PNG\r\n\x1a\n"),
    "png_without_pixels": ("damaged", lambda: png_of(10, 10)),
    "png_of_width_zero": ("damaged", lambda: png_of(0, 10, chunk(b"IDAT", zlib.compress(b"")))),
    "png_with_wrong_checksum": (
        "damaged",
        lambda: insert_after_header(png(), chunk(b"PLTE", bytes(3), crc=1)),
    ),
    "png_with_bad_pixels": ("damaged", lambda: png_of(10, 10, chunk(b"IDAT", b"no zlib data"))),
    "png_with_few_pixels": (
        "damaged",
        lambda: png_of(100, 100, chunk(b"IDAT", zlib.compress(b"\0"))),
    ),
    "png_of_unknown_colours": (
        "damaged",
        lambda: png_of(1, 1, chunk(b"IDAT", zlib.compress(b"\0\0")), colours=7),
    ),
    "png_with_huge_chunk": (
        "damaged",
        lambda: png_of(1, 1, struct.pack(">I", 2**32 - 1) + b"IDAT" + bytes(10)),
    ),
    "png_with_short_header": (
        "damaged",
        lambda: b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", b"") + chunk(b"IEND", b""),
    ),
    "half_a_gif": ("damaged", lambda: gif()[: len(gif()) // 2]),
    "gif_header_only": ("damaged", lambda: b"GIF89a"),
    "gif_without_frame": ("damaged", lambda: gif_of(10, 10, 0)),
    "gif_with_unknown_block": ("damaged", lambda: gif_of(1, 1, 1)[:-1] + b"\x99;"),
    "half_a_webp": ("damaged", lambda: webp()[: len(webp()) // 2]),
    "webp_without_chunk": ("damaged", webp_of),
    "webp_with_bad_pixels": ("damaged", lambda: damaged(webp(), 40, bytes(60))),
    "webp_without_image": ("damaged", lambda: webp_of(webp_canvas(10, 10))),
    # colours
    "png_of_16_bits_of_grey": (
        "unsupported_colours",
        lambda: png_of(1, 1, chunk(b"IDAT", zlib.compress(bytes(3))), depth=16),
    ),
}

# unusual files that are accepted, each with the width of the stored image
ODD_FILES: Final[dict[str, tuple[int, Callable[[], bytes]]]] = {
    "jpeg_cmyk": (64, lambda: encoded(picture(mode="CMYK"), "JPEG")),
    "jpeg_grey": (64, lambda: encoded(picture(mode="L"), "JPEG")),
    "jpeg_progressive": (64, lambda: jpeg(progressive=True)),
    "jpeg_padded_with_zeros": (64, lambda: jpeg() + bytes(100)),
    "jpeg_with_bad_profile": (64, lambda: jpeg(icc_profile=b"no profile")),
    "jpeg_with_huge_profile": (64, lambda: jpeg(icc_profile=bytes(2_000_000))),
    "jpeg_with_profile": (64, lambda: jpeg(icc_profile=srgb_profile())),
    "jpeg_with_bad_metadata": (
        64,
        lambda: jpeg_with_segment(0xE1, b"Exif\0\0II*\0" + b"\xff" * 50),
    ),
    "jpeg_of_two_pictures": (
        64,
        lambda: encoded(picture(), "MPO", save_all=True, append_images=[picture()]),
    ),
    "png_of_one_pixel": (1, lambda: png(1, 1)),
    "png_black_and_white": (64, lambda: encoded(picture(mode="1"), "PNG")),
    "png_palette": (64, lambda: encoded(picture(mode="P"), "PNG", transparency=0)),
    "png_transparent": (64, lambda: encoded(picture(mode="RGBA"), "PNG")),
    "png_16_bits_of_colour": (
        1,
        lambda: png_of(1, 1, chunk(b"IDAT", zlib.compress(bytes(7))), depth=16, colours=2),
    ),
    "png_with_profile": (64, lambda: encoded(picture(), "PNG", icc_profile=srgb_profile())),
    "png_animated": (
        64,
        lambda: encoded(picture(), "PNG", save_all=True, append_images=[picture(mode="RGB")]),
    ),
    "gif_animated": (
        64,
        lambda: encoded(picture(mode="P"), "GIF", save_all=True, append_images=[picture(mode="P")]),
    ),
    "webp_lossless": (64, lambda: encoded(picture(), "WEBP", lossless=True)),
    "webp_transparent": (64, lambda: encoded(picture(mode="RGBA"), "WEBP")),
    "webp_animated": (
        64,
        lambda: encoded(picture(), "WEBP", save_all=True, append_images=[picture(mode="RGB")]),
    ),
}
