"""The program of the process that decodes one image: `python -m` this module.

It reads the file from standard input. It writes one line of JSON and then the WebP files to
standard output. The arguments are the maximum number of pixels and the limits of memory in bytes
and of processor time in seconds.
"""

import json
import os
import resource
import sys
import warnings
from collections.abc import Mapping
from io import BytesIO
from typing import Final

from PIL import Image, ImageCms

from markethall.inventory.media.contract import ImageProblem, ImageRefused
from markethall.inventory.media.domain import (
    ProcessedImage,
    check_file,
    check_size,
    refused,
    scaled_height,
    widths_for,
)
from markethall.shared.kernel.errors import DomainError, Overloaded

_QUALITY: Final = 82
# method of the encoder: a higher one takes longer and makes smaller files
_METHOD: Final = 4
_METHOD_OF_LARGE_SIZES: Final = 2
_LARGE_WIDTH: Final = 1920
# without the modes with 16 bits of grey, which Pillow converts to white
_SUPPORTED_MODES: Final = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"})
# the mode to which a profile is applied; RGB for all others
_MODES_WITHOUT_ALPHA: Final = {"1": "L", "L": "L", "LA": "L", "CMYK": "CMYK"}
_MAX_PROFILE_BYTES: Final = 1024 * 1024
_ORIENTATION_TAG: Final = 0x0112
# maps the value of the orientation tag to the operation that turns the image upright
_TRANSPOSITIONS: Final[Mapping[int, Image.Transpose]] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def process_image(data: bytes, max_pixels: int) -> ProcessedImage:
    """Return the image in all its sizes. Raises ImageRefused, Overloaded."""
    format_ = check_file(data, max_pixels)
    image = _decode(data, format_, max_pixels)
    files = {width: _encode(image, width) for width in widths_for(image.width)}
    return ProcessedImage(image.width, image.height, files)


def _decode(data: bytes, format_: str, max_pixels: int) -> Image.Image:
    """Return the upright image in mode RGB or RGBA, without metadata."""
    try:
        # warnings are ignored, because files with invalid metadata are accepted
        with warnings.catch_warnings(action="ignore"):
            image: Image.Image = Image.open(BytesIO(data), formats=[format_])
            _check_header(image, max_pixels)
            image.load()
            return _to_srgb(_turn_upright(image))
    except DomainError:
        raise
    except Image.DecompressionBombError:
        raise refused(ImageProblem.TOO_MANY_PIXELS) from None
    except MemoryError:
        raise Overloaded(retry_after=5) from None
    except Exception as error:  # noqa: BLE001 # damaged files make decoders raise almost any type
        message = f"The file cannot be decoded: {type(error).__name__}."
        raise refused(ImageProblem.DAMAGED, message) from None


def _check_header(image: Image.Image, max_pixels: int) -> None:
    check_size(image.width, image.height, max_pixels)
    if image.mode not in _SUPPORTED_MODES:
        raise refused(
            ImageProblem.UNSUPPORTED_COLOURS,
            f"The mode {image.mode} is not supported; use 8 bits per colour.",
        )


def _turn_upright(image: Image.Image) -> Image.Image:
    transposition = _TRANSPOSITIONS.get(_orientation(image))
    return image if transposition is None else image.transpose(transposition)


def _orientation(image: Image.Image) -> int:
    """Return the value of the tag; 1, which means upright, if it is absent or unreadable."""
    try:
        orientation = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # noqa: BLE001 # unreadable metadata, which is dropped anyway
        return 1
    return orientation if isinstance(orientation, int) else 1


def _to_srgb(image: Image.Image) -> Image.Image:
    mode = "RGBA" if image.has_transparency_data else "RGB"
    converted = _apply_profile(image, image.info.get("icc_profile"))
    if converted is None:
        converted = image if image.mode == mode else image.convert(mode)
    elif mode == "RGBA":
        converted.putalpha(image.convert("RGBA").getchannel("A"))
    # the encoder would write the metadata in `info` to the file
    converted.info = {}
    return converted


def _apply_profile(image: Image.Image, profile: bytes | None) -> Image.Image | None:
    """Return the colours converted to sRGB, without transparency.

    Return None if there is no profile, if it is the sRGB profile, or if it cannot be applied.
    """
    if not profile or len(profile) > _MAX_PROFILE_BYTES:
        return None
    try:
        source = ImageCms.ImageCmsProfile(BytesIO(profile))
        if "srgb" in ImageCms.getProfileDescription(source).lower():
            return None
        # the profile applies to the colours of the palette, not to the indexes of the pixels
        mode = _MODES_WITHOUT_ALPHA.get(image.mode, "RGB")
        opaque = image if image.mode == mode else image.convert(mode)
        return ImageCms.profileToProfile(
            opaque, source, ImageCms.createProfile("sRGB"), outputMode="RGB"
        )
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None


def _encode(image: Image.Image, width: int) -> bytes:
    """Return the image as WebP, scaled to this width."""
    scaled = image
    if width != image.width:
        size = (width, scaled_height(image.width, image.height, width))
        scaled = image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    file = BytesIO()
    method = _METHOD_OF_LARGE_SIZES if width > _LARGE_WIDTH else _METHOD
    scaled.save(file, "WEBP", quality=_QUALITY, method=method)
    return file.getvalue()


# a lower priority than the processes of the server
_NICENESS: Final = 5


def main() -> None:
    max_pixels, max_memory_bytes, max_cpu_seconds = (int(text) for text in sys.argv[1:])
    os.nice(_NICENESS)
    _limit(resource.RLIMIT_AS, max_memory_bytes)
    _limit(resource.RLIMIT_CPU, max_cpu_seconds)
    _limit(resource.RLIMIT_CORE, 0)
    try:
        image = process_image(sys.stdin.buffer.read(), max_pixels)
    except ImageRefused as error:
        _write({"refused": error.details["reason"], "message": error.detail})
    except (Overloaded, MemoryError):
        _write({"overloaded": True})
    else:
        sizes = [(width, len(file)) for width, file in image.files.items()]
        header = {"width": image.width, "height": image.height, "sizes": sizes}
        _write(header, *image.files.values())


def _limit(kind: int, value: int) -> None:
    """Set a limit. Keep a hard limit that is lower, because a process may not raise it."""
    _, maximum = resource.getrlimit(kind)
    if maximum != resource.RLIM_INFINITY:
        value = min(value, maximum)
    resource.setrlimit(kind, (value, value))


def _write(header: dict[str, object], *files: bytes) -> None:
    for part in (json.dumps(header).encode() + b"\n", *files):
        sys.stdout.buffer.write(part)


if __name__ == "__main__":
    main()
