"""Catalogues that come and go as files, for staff."""

import re
from collections.abc import AsyncIterator
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import StreamingResponse
from fastapi.sse import format_sse_event
from pydantic import BaseModel, ConfigDict, Field

from markethall.inventory.contract import (
    Import,
    ImportForgotten,
    ImportFormat,
    ImportNotFailed,
    ImportNotFound,
    Imports,
    NewImport,
    RowError,
)
from markethall.inventory.router.deps import BODY, GUARDED, KEYED, KeysDep, Merchant
from markethall.shared.auth import CATALOGUE_WRITE, STOCK_WRITE, allow
from markethall.shared.call import Call
from markethall.shared.errors import (
    Busy,
    RequestTimeout,
    TooLarge,
    UnsupportedMediaType,
)
from markethall.shared.http import accepted, from_container, once, problems, ready, whole
from markethall.shared.idempotency import Attempt
from markethall.shared.model import Id
from markethall.shared.money import Currency
from markethall.shared.pages import CursorInvalid, Page, PageQuery

router = APIRouter(tags=["inventory"])

ImportsDep = Annotated[Imports, Depends(from_container("imports"))]

# a comment: it shows whether the client is still there
# a comment line: proxies close a connection on which nothing is sent
HEARTBEAT: Final = format_sse_event(comment="heartbeat")

_CSV: Final = "text/csv"
_TYPES: Final = {_CSV: ImportFormat.CSV, "application/x-ndjson": ImportFormat.NDJSON}
_UTF_8: Final = re.compile(r"\s*(?:charset=\"?utf-?8\"?|header=\w+)?\s*", re.IGNORECASE)
_EXAMPLE: Final = "sku,name,price,currency,on_hand\r\nTEA-SENCHA-100,Sencha,12.50,EUR,20\r\n"
_LINE: Final = '{"sku":"TEA-SENCHA-100","name":"Sencha","price":{"amount":1250,"currency":"EUR"}}'


class ImportQuery(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    dry_run: Annotated[bool, Field(description="Look at every row, and change nothing")] = False
    currency: Annotated[Currency, Field(description="Of prices that name none")] = "EUR"


# a file changes products and stock
Carrier = Annotated[Call, allow(CATALOGUE_WRITE, beside=STOCK_WRITE)]


def _body(example: str) -> dict[str, Any]:
    schema = {
        "type": "string",
        "description": "The file, UTF-8; 64 MiB at most, unless set otherwise",
    }
    return {"schema": schema | {"examples": [example]}}


@router.post(
    "/imports",
    status_code=202,
    response_model=Import,
    summary="Import products",
    responses=problems(*GUARDED, *BODY, *KEYED, TooLarge, RequestTimeout),
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {_CSV: _body(_EXAMPLE), "application/x-ndjson": _body(_LINE)},
        }
    },
)
async def start(
    request: Request,
    call: Carrier,
    query: Annotated[ImportQuery, Query()],
    imports: ImportsDep,
    keys: KeysDep,
) -> Response:
    """CSV with our columns (see the export) or as Shopify exports it, or a product per line as
    JSON. Rows are upserted by `sku`; a bad row stops no other. Needs `catalogue:write` and
    `stock:write`.
    """
    format_ = _format_of(request)
    upload = await imports.upload(call, request.stream())
    body = NewImport(sha256=upload.sha256, format=format_, **query.model_dump())

    async def effect(attempt: Attempt) -> Import:
        return await imports.start(call, upload, body, attempt)

    present = accepted(lambda made: f"/imports/{made.import_id}")
    try:
        return await once(request, call, body, keys, effect, present)
    finally:
        await imports.discard(call, upload)


@router.get(
    "/imports/{import_id}",
    response_model=Import,
    summary="An import",
    responses=problems(*GUARDED, ImportNotFound),
)
async def imported(
    request: Request, call: Merchant, import_id: Id, imports: ImportsDep
) -> Response:
    """How far it is, and what became of its rows."""
    return whole(request, await imports.imported(call, import_id))


@router.get(
    "/imports/{import_id}/events",
    response_class=StreamingResponse,
    summary="An import, as it goes on",
    responses=problems(*GUARDED, ImportNotFound, Busy)
    | {
        200: {
            "description": "`progress` events until the end",
            "content": {"text/event-stream": {}},
        }
    },
)
async def events(request: Request, call: Merchant, import_id: Id, imports: ImportsDep) -> Response:
    """Server-sent events: `data` is the import. Poll `GET /imports/{import_id}` where the stream
    is refused.
    """
    seen = await imports.follow(call, import_id)
    return StreamingResponse(_told(request, seen), media_type="text/event-stream")


@router.get(
    "/imports/{import_id}/errors",
    response_model=Page[RowError],
    summary="Errors of an import",
    responses=problems(*GUARDED, ImportNotFound, CursorInvalid),
)
async def errors(
    call: Merchant, import_id: Id, query: Annotated[PageQuery, Query()], imports: ImportsDep
) -> Response:
    """In the order of the file, the first 10,000."""
    return ready(await imports.errors(call, import_id, query))


@router.post(
    "/imports/{import_id}/retry",
    status_code=202,
    response_model=Import,
    summary="Try a failed import again",
    responses=problems(*GUARDED, *KEYED, ImportNotFound, ImportNotFailed, ImportForgotten),
)
async def retry(
    request: Request, call: Carrier, import_id: Id, imports: ImportsDep, keys: KeysDep
) -> Response:
    """It goes on at the row where it stopped. One that waits or runs needs no retry. Needs
    `catalogue:write` and `stock:write`.
    """

    async def effect(attempt: Attempt) -> Import:
        return await imports.retry(call, import_id, attempt)

    present = accepted(lambda made: f"/imports/{made.import_id}")
    return await once(request, call, None, keys, effect, present)


@router.get(
    "/exports/products.csv",
    response_class=StreamingResponse,
    summary="Export products",
    responses=problems(*GUARDED)
    | {200: {"description": "All products, by id", "content": {_CSV: {}}}},
)
async def export(call: Merchant, imports: ImportsDep) -> Response:
    """An import reads it back. A cell that a spreadsheet would run begins with an apostrophe."""
    pieces = imports.export(call)
    # before the answer begins, since a refusal is an answer of its own
    first = await anext(pieces)
    headers = {"content-disposition": 'attachment; filename="products.csv"'}
    return StreamingResponse(_chained(first, pieces), media_type=_CSV, headers=headers)


def _format_of(request: Request) -> ImportFormat:
    """Raises UnsupportedMediaType."""
    kind, _, parameters = request.headers.get("content-type", "").partition(";")
    found = _TYPES.get(kind.strip().lower())
    if found is None or not all(_UTF_8.fullmatch(one) for one in parameters.split(";")):
        raise UnsupportedMediaType(supported=sorted(_TYPES))
    return found


async def _told(request: Request, seen: AsyncIterator[Import | None]) -> AsyncIterator[bytes]:
    async for one in seen:
        # clients ask again, and find another process
        if request.app.state.readiness.draining:
            return
        if one is None:
            yield HEARTBEAT
        else:
            yield format_sse_event(event="progress", data_str=one.model_dump_json())


async def _chained(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for piece in rest:
        yield piece
