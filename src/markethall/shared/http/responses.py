"""JSON responses that Pydantic has serialised. FastAPI sends a Response object unchanged."""

from typing import Final, Protocol

from fastapi import Response
from pydantic import BaseModel

from markethall.shared.kernel.etags import content_digest, etag

JSON_MEDIA_TYPE: Final = "application/json"
# The gateway adds `no-store` to responses without a Cache-Control.
PUBLIC_CACHE_CONTROL: Final = "public, max-age=5, stale-while-revalidate=30"
_JSON_HEADER: Final = (b"content-type", JSON_MEDIA_TYPE.encode())


class Versioned(Protocol):
    """A DTO with a version."""

    @property
    def version(self) -> int: ...

    def model_dump_json(self) -> str: ...


def json_response(
    dto: BaseModel, status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    return Response(dto.model_dump_json().encode(), status, headers, JSON_MEDIA_TYPE)


def public_response(dto: BaseModel) -> Response:
    """Return a 200 that caches may store, because it is the same for every client."""
    return json_response(dto, headers={"cache-control": PUBLIC_CACHE_CONTROL})


def versioned_response(dto: Versioned, *, is_public: bool = False) -> Response:
    """Return a 200 with the entity tag of the version. Caches may store a public response."""
    headers = {"etag": etag(dto.version)}
    if is_public:
        headers["cache-control"] = PUBLIC_CACHE_CONTROL
    return Response(dto.model_dump_json().encode(), 200, headers, JSON_MEDIA_TYPE)


def current_response(dto: Versioned) -> Response:
    """Return a 200 with an entity tag of the version and the content.

    For content that changes without a new version, such as current prices.
    """
    body = dto.model_dump_json().encode()
    headers = {"etag": etag(dto.version, content_digest(body))}
    return Response(body, 200, headers, JSON_MEDIA_TYPE)


class RawJsonResponse(Response):
    """A 200 with JSON that is already serialised. Bypasses Starlette's encoding, to save time."""

    def __init__(self, body: bytes, tag: str, cache_control: bytes) -> None:
        self.status_code = 200
        self.background = None
        self.body = body
        self.raw_headers = [
            _JSON_HEADER,
            (b"content-length", str(len(body)).encode()),
            (b"etag", tag.encode()),
            (b"cache-control", cache_control),
        ]
