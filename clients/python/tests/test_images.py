"""Upload and download of an image, against a real shop."""

import base64
from io import BytesIO

from markethall_client import File, new_key
from markethall_client.models import UploadMediaBody
from markethall_client.operations import get_image, upload_media
from tests.conftest import Shop

# a PNG of one pixel
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="
)


def test_uploaded_image_is_downloaded_as_webp(shop: Shop) -> None:
    body = UploadMediaBody(File(BytesIO(PIXEL), "pixel.png", "image/png"))

    with shop.admin() as admin:
        media = admin.call(upload_media(body=body, idempotency_key=new_key()))
        image = admin.call(get_image(media.media_id, str(media.width)))

    assert (media.width, media.height) == (1, 1)
    assert image.payload.read()[8:12] == b"WEBP"
