"""Stores the files of images in a bucket of S3, or of a compatible service, with obstore."""

import re
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final
from uuid import UUID

from markethall.inventory.media.ports import StorageMisconfigured
from markethall.inventory.settings import S3Bucket
from markethall.shared.kernel.errors import Unavailable

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig, S3Config, S3Store

_CONNECT_TIMEOUT: Final = timedelta(seconds=2)
_TIMEOUT: Final = timedelta(seconds=10)
_RETRIES: Final = 2
_RETRY_TIMEOUT: Final = timedelta(seconds=10)
_OBJECTS_PER_PART: Final = 500
_PATH: Final = re.compile(r"([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})/[0-9]+\.webp")


class S3Storage:
    """Implements `MediaStorage`. The name of an object is `<prefix>/<storage key>/<width>.webp`.

    obstore sends requests in its own threads, so no method blocks the event loop. obstore is
    installed by the extra `s3` of this package, and is imported when the storage is opened.
    """

    def __init__(self, bucket: S3Bucket) -> None:
        self._bucket = bucket
        self._store: S3Store | None = None

    async def open(self) -> None:
        """Build the client. Send no request, so that the start does not depend on the bucket."""
        self._client()

    async def put(self, key: UUID, width: int, data: bytes) -> None:
        from obstore import put_async

        with _unavailable_on_error():
            await put_async(self._client(), f"{key}/{width}.webp", data)

    async def get(self, key: UUID, width: int) -> bytes | None:
        from obstore import get_async

        with _unavailable_on_error():
            try:
                found = await get_async(self._client(), f"{key}/{width}.webp")
                return bytes(await found.bytes_async())
            except FileNotFoundError:
                return None

    async def delete(self, key: UUID) -> None:
        from obstore import delete_async
        from obstore import list as list_objects

        with _unavailable_on_error():
            async for part in list_objects(self._client(), f"{key}/"):
                await delete_async(self._client(), [entry["path"] for entry in part])

    async def list_keys(self, before: datetime) -> AsyncIterator[Collection[UUID]]:
        from obstore import list as list_objects

        with _unavailable_on_error():
            parts = list_objects(self._client(), chunk_size=_OBJECTS_PER_PART)
            async for part in parts:
                old = (entry["path"] for entry in part if entry["last_modified"] < before)
                if keys := {key for path in old if (key := _key_of(path))}:
                    yield keys

    async def close(self) -> None:
        self._store = None

    def _client(self) -> "S3Store":
        """Return the client. Raises StorageMisconfigured."""
        if self._store is None:
            self._store = _open_store(self._bucket)
        return self._store


def _open_store(bucket: S3Bucket) -> "S3Store":
    try:
        from obstore.exceptions import BaseError
        from obstore.store import S3Store
    except ImportError:
        raise StorageMisconfigured(
            "MARKETHALL_MEDIA_STORAGE: s3 needs the package obstore: install markethall[s3]"
        ) from None
    config: S3Config = {
        "bucket": bucket.name,
        "region": bucket.region,
        # not all compatible services can delete several objects by one request
        "disable_bulk_delete": True,
    }
    if bucket.endpoint:
        config["endpoint"] = bucket.endpoint
        config["virtual_hosted_style_request"] = False
    if bucket.access_key_id:
        config["access_key_id"] = bucket.access_key_id
        config["secret_access_key"] = bucket.secret_access_key
    client: ClientConfig = {
        "connect_timeout": _CONNECT_TIMEOUT,
        "timeout": _TIMEOUT,
        "allow_http": bucket.endpoint.startswith("http://"),
    }
    retries: RetryConfig = {"max_retries": _RETRIES, "retry_timeout": _RETRY_TIMEOUT}
    try:
        return S3Store(
            prefix=bucket.prefix or None,
            config=config,
            client_options=client,
            retry_config=retries,
        )
    except BaseError as error:
        raise StorageMisconfigured(
            f"MARKETHALL_MEDIA_S3_BUCKET: the settings are not valid: {type(error).__name__}"
        ) from None


@contextmanager
def _unavailable_on_error() -> Iterator[None]:
    """Raise Unavailable for the errors of the service and of the network."""
    from obstore.exceptions import BaseError

    try:
        yield
    except (BaseError, OSError) as error:
        raise Unavailable(
            dependency="media storage", reason=type(error).__name__, retry_after=1
        ) from error


def _key_of(path: str) -> UUID | None:
    """Return the storage key. Return None for an object that this class has not stored."""
    match = _PATH.fullmatch(path)
    return UUID(match[1]) if match else None
