"""Fetches the images that rows name by URL, and stores them as media."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from typing import Final
from uuid import UUID

from markethall.inventory.imports.domain.file_records import RowWarning, sanitize
from markethall.inventory.imports.domain.row_validation import FamilyRow, RowResult, ValidatedRow
from markethall.inventory.media.contract import (
    ImageRefused,
    MediaLibrary,
    MediaNotFound,
    UploadedFile,
)
from markethall.shared.idempotency.records import IdempotentCommand
from markethall.shared.kernel.call_context import system_context
from markethall.shared.kernel.errors import Overloaded
from markethall.shared.kernel.ids import derive_uuid7
from markethall.shared.outbound.port import OutboundFailed, OutboundHttp, OutboundLimits

MAX_IMAGE_REDIRECTS: Final = 3
_CONCURRENT_REQUESTS: Final = 4
_MAX_SHOWN_URL: Final = 200
_OK: Final = 200
_STORE_ATTEMPTS: Final = 30
_STORE_PAUSE_SECONDS: Final = 1.0
# the origin of the ids of imported images, which depend on the content of the image only
_ID_ORIGIN: Final = UUID(int=0)


class _NotFetched(Exception):
    """The image is not stored. Programs may rely on `code`; users see `message`."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class RowImages:
    """Replaces URLs of images in rows by paths of stored images.

    An image that cannot be fetched or stored is a warning of its rows, which keep the URL. The id
    of an image depends on its content only: a second import of the same file stores nothing.
    """

    def __init__(self, http: OutboundHttp, media: MediaLibrary, limits: OutboundLimits) -> None:
        self._http = http
        self._media = media
        self._limits = limits
        self._requests = asyncio.Semaphore(_CONCURRENT_REQUESTS)
        # images are stored one after another, because the decoder takes one image at a time
        self._storing = asyncio.Lock()

    async def fetch(self, rows: Sequence[RowResult]) -> tuple[RowResult, ...]:
        """Return the rows with paths instead of URLs. Raises Unavailable."""
        urls = list(dict.fromkeys(url for row in rows for url in _image_urls(row)))
        try:
            async with asyncio.TaskGroup() as tasks:
                found = [tasks.create_task(self._fetch_and_store(url)) for url in urls]
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None
        results = dict(zip(urls, (task.result() for task in found), strict=True))
        return tuple(_with_images(row, results) for row in rows)

    async def _fetch_and_store(self, url: str) -> "str | _NotFetched":
        """Return the path of the largest size of the image, or the reason why it is not stored."""
        try:
            async with self._requests:
                data = await self._fetch(url)
                return await self._store(data)
        except _NotFetched as reason:
            return reason

    async def _fetch(self, url: str) -> bytes:
        try:
            response = await self._http.send("GET", url, self._limits)
        except OutboundFailed as failure:
            problem = failure.problem.value
            raise _NotFetched(problem, problem.replace("_", " ")) from None
        if response.status != _OK:
            raise _NotFetched("http_status", f"the response has the status {response.status}")
        return response.content

    async def _store(self, data: bytes) -> str:
        digest = sha256(data).hexdigest()
        media_id = derive_uuid7(_ID_ORIGIN, digest)
        ctx = system_context("import")
        async with self._storing:
            try:
                return (await self._media.get_media(ctx, media_id)).url
            except MediaNotFound:
                pass
            for _ in range(_STORE_ATTEMPTS):
                attempt = IdempotentCommand.without_key(media_id)
                try:
                    return (await self._media.create(ctx, UploadedFile(data, digest), attempt)).url
                except Overloaded:
                    # the decoder is busy with images that staff upload
                    await asyncio.sleep(_STORE_PAUSE_SECONDS)
                except ImageRefused as refused:
                    reason = str((refused.details or {}).get("reason", "")).replace("_", " ")
                    raise _NotFetched("image_refused", f"refused: {reason}") from None
        raise _NotFetched("overloaded", "the server has too many images to process")


def _image_urls(row: RowResult) -> Iterable[str]:
    return (image for image in _images_of(row) if image.startswith(("https://", "http://")))


def _images_of(row: RowResult) -> Sequence[str]:
    match row:
        case ValidatedRow():
            return row.product.images
        case FamilyRow():
            images: Sequence[str] = row.values.get("images", ())
            return images
        case _:
            return ()


def _with_images(row: RowResult, results: Mapping[str, "str | _NotFetched"]) -> RowResult:
    urls = list(_image_urls(row))
    if isinstance(row, tuple) or not urls:
        return row
    paths = {url: path for url in urls if isinstance(path := results[url], str)}
    images = tuple(dict.fromkeys(paths.get(image, image) for image in _images_of(row)))
    line, field = row.locate(("images",))
    warnings = [
        RowWarning(line, field, reason.code, f"not fetched, {reason.message}: {_shown(url)}")
        for url in urls
        if isinstance(reason := results[url], _NotFetched)
    ]
    all_warnings = (*row.warnings, *warnings)
    if isinstance(row, FamilyRow):
        return replace(row, values={**row.values, "images": images}, warnings=all_warnings)
    return replace(row, product=replace(row.product, images=images), warnings=all_warnings)


def _shown(url: str) -> str:
    return sanitize(url)[:_MAX_SHOWN_URL]
