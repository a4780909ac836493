"""Test which files are accepted as images, and the content of the stored files."""

import io
import struct
from typing import Any

import pytest
from PIL import Image, ImageCms, ImageOps

from markethall.inventory.media.contract import ImageRefused
from markethall.inventory.media.gateway.image_worker import process_image
from tests.inventory.image_files import (
    HOSTILE_FILES,
    MAX_PIXELS,
    ODD_FILES,
    encoded,
    jpeg,
    photo_with_place,
    picture,
    png,
)

# grey values, from 0 to 255
DARK, LIGHT = 30, 225


def grey_of(image: Image.Image, x: int, y: int) -> int:
    value = image.convert("L").getpixel((x, y))
    assert isinstance(value, int)
    return value


def decoded(file: bytes) -> Image.Image:
    return Image.open(io.BytesIO(file))


@pytest.mark.parametrize("name", HOSTILE_FILES)
def test_hostile_file_is_refused(name: str) -> None:
    reason, build = HOSTILE_FILES[name]

    with pytest.raises(ImageRefused) as error:
        process_image(build(), MAX_PIXELS)

    assert error.value.details["reason"] == reason


@pytest.mark.parametrize("name", ODD_FILES)
def test_odd_file_is_accepted(name: str) -> None:
    width, build = ODD_FILES[name]

    image = process_image(build(), MAX_PIXELS)

    assert image.width == width
    stored = decoded(image.files[width])
    assert (stored.format, stored.width) == ("WEBP", width)
    if width > 1:
        assert grey_of(stored, 5, 20) < DARK
        assert grey_of(stored, 60, 20) > LIGHT


@pytest.mark.parametrize("cut", range(0, 600, 7))
def test_file_cut_anywhere_is_refused(cut: int) -> None:
    for whole in (jpeg(), png(), encoded(picture(mode="P"), "GIF"), encoded(picture(), "WEBP")):
        if cut < len(whole) - 1:
            with pytest.raises(ImageRefused):
                process_image(whole[:cut], MAX_PIXELS)


def test_changed_byte_never_raises_another_error() -> None:
    for whole in (jpeg(), png(), encoded(picture(mode="P"), "GIF"), encoded(picture(), "WEBP")):
        for position in range(0, len(whole), max(1, len(whole) // 60)):
            file = bytearray(whole)
            file[position] ^= 0xFF
            try:
                process_image(bytes(file), MAX_PIXELS)
            except ImageRefused:
                continue


def test_metadata_is_dropped_and_image_is_turned_upright() -> None:
    photo = photo_with_place()
    assert decoded(photo).getexif().get_ifd(0x8825)

    image = process_image(photo, MAX_PIXELS)

    # the camera was turned: width and height are exchanged, and the left half becomes the upper one
    assert (image.width, image.height) == (48, 64)
    for file in image.files.values():
        stored = decoded(file)
        assert not stored.getexif()
        assert not {"exif", "icc_profile", "xmp", "comment"} & stored.info.keys()
        for text in (b"EXIF", b"ICCP", b"XMP ", b"Camera maker", b"a comment"):
            assert text not in file
        assert grey_of(stored, 24, 5) < DARK
        assert grey_of(stored, 24, 60) > LIGHT


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_turned_upright(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = encoded(picture(), "JPEG", exif=exif)
    expected = ImageOps.exif_transpose(decoded(file))

    image = process_image(file, MAX_PIXELS)

    stored = decoded(image.files[image.width])
    assert stored.size == expected.size
    for point in ((3, 3), (stored.width - 4, 3), (3, stored.height - 4)):
        assert abs(grey_of(stored, *point) - grey_of(expected, *point)) < 20


def test_image_has_standard_widths_below_its_own() -> None:
    image = process_image(png(700, 350), MAX_PIXELS)

    sizes = {width: decoded(file).size for width, file in image.files.items()}
    assert sizes == {160: (160, 80), 320: (320, 160), 640: (640, 320), 700: (700, 350)}


def test_flat_image_keeps_a_height_of_one_pixel() -> None:
    image = process_image(png(2000, 1), MAX_PIXELS)

    assert decoded(image.files[160]).size == (160, 1)


def test_transparency_is_kept() -> None:
    image = Image.new("RGBA", (200, 10), (255, 0, 0, 0))

    processed = process_image(encoded(image, "PNG"), MAX_PIXELS)

    assert decoded(processed.files[160]).getchannel("A").getextrema() == (0, 0)


def profile_with_exchanged_primaries() -> bytes:
    """Return a colour profile that exchanges red and blue."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    (count,) = struct.unpack_from(">I", profile, 128)
    tags = (struct.unpack_from(">4sII", profile, 132 + 12 * number) for number in range(count))
    places = {name: slice(start, start + size) for name, start, size in tags}
    red, blue = places[b"rXYZ"], places[b"bXYZ"]
    profile[red], profile[blue] = profile[blue], profile[red]
    # another name, because a profile with the name sRGB is not converted
    return bytes(profile).replace("sRGB".encode("utf-16-be"), "test".encode("utf-16-be"))


@pytest.mark.parametrize("form", ["RGB", "RGBA", "P", "P with alpha", "tRNS"])
def test_colours_are_converted_to_srgb(form: str) -> None:
    alpha = 255 if form in {"RGB", "P"} else 0
    image = Image.new("RGBA", (200, 10), (255, 0, 0, 255))
    image.paste((255, 0, 0, alpha), (100, 0, 200, 10))
    options: dict[str, Any] = {"icc_profile": profile_with_exchanged_primaries()}
    match form:
        case "RGB":
            image = image.convert("RGB")
        case "P" | "P with alpha":
            image = image.quantize(4)
        case "tRNS":
            image = Image.new("RGB", (200, 10), (255, 0, 0))
            image.paste((0, 255, 0), (100, 0, 200, 10))
            options["transparency"] = (0, 255, 0)

    processed = process_image(encoded(image, "PNG", **options), MAX_PIXELS)

    stored = decoded(processed.files[200]).convert("RGBA")
    red, _, blue, left_alpha = pixel(stored, 50)
    assert (red < DARK, blue > LIGHT, left_alpha) == (True, True, 255)
    assert pixel(stored, 150)[3] == alpha


@pytest.mark.parametrize("mode", ["L", "LA", "1"])
def test_grey_image_with_a_profile_of_colours_is_accepted(mode: str) -> None:
    profile = profile_with_exchanged_primaries()

    image = process_image(encoded(picture(mode=mode), "PNG", icc_profile=profile), MAX_PIXELS)

    stored = decoded(image.files[64])
    assert grey_of(stored, 5, 20) < DARK
    assert grey_of(stored, 60, 20) > LIGHT


def pixel(image: Image.Image, x: int) -> tuple[int, ...]:
    value = image.getpixel((x, 5))
    assert isinstance(value, tuple)
    return value


def test_markup_between_search_windows_is_found() -> None:
    for distance in range(-8, 1):
        comment = b"<script>"
        segment = b"".join(
            b"\xff\xfe" + struct.pack(">H", 2 + 65_000) + b"." * 65_000 for _ in range(5)
        )
        file = bytearray(jpeg()[:2] + segment + jpeg()[2:])
        position = 256 * 1024 + distance
        file[position : position + len(comment)] = comment

        with pytest.raises(ImageRefused) as error:
            process_image(bytes(file), MAX_PIXELS)

        assert error.value.details["reason"] == "contains_markup"
