"""JSON responses that Pydantic has serialised. FastAPI sends a Response object unchanged."""

from typing import Final

from fastapi import Response
from pydantic import BaseModel

JSON_MEDIA_TYPE: Final = "application/json"


def json_response(
    dto: BaseModel, status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    return Response(dto.model_dump_json().encode(), status, headers, JSON_MEDIA_TYPE)


class RawJsonResponse(Response):
    """A 200 with JSON that is already serialised. Bypasses Starlette's encoding, to save time."""

    def __init__(self, body: bytes, tag: str, cache_control: bytes) -> None:
        self.status_code = 200
        self.background = None
        self.body = body
        self.raw_headers = [
            (b"content-type", JSON_MEDIA_TYPE.encode()),
            (b"content-length", str(len(body)).encode()),
            (b"etag", tag.encode()),
            (b"cache-control", cache_control),
        ]
