from collections.abc import AsyncIterator
from typing import Any, Final

from fastapi.responses import StreamingResponse

CSV_MEDIA_TYPE: Final = "text/csv"


def documented_csv(description: str) -> dict[int | str, dict[str, Any]]:
    """Return the entry of a route's `responses` that documents a CSV file."""
    content = {CSV_MEDIA_TYPE: {"schema": {"type": "string"}}}
    return {200: {"description": description, "content": content}}


async def csv_response(chunks: AsyncIterator[bytes], filename: str) -> StreamingResponse:
    """Return a file to download.

    The first chunk is read before the response begins, so that an error becomes an error response.
    """
    first = await anext(chunks)
    headers = {"content-disposition": f'attachment; filename="{filename}"'}
    return StreamingResponse(_prepend(first, chunks), media_type=CSV_MEDIA_TYPE, headers=headers)


async def _prepend(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for chunk in rest:
        yield chunk
