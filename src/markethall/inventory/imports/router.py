import re
from collections.abc import AsyncIterator
from typing import Annotated, Any, Final, Protocol

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import StreamingResponse
from fastapi.sse import format_sse_event

from markethall.inventory.catalogue.router.dependencies import (
    CREATE_ERRORS,
    CatalogueWriter,
    IdempotencyDep,
    PageQueryDep,
)
from markethall.inventory.imports.contract import (
    ImportFileExpired,
    ImportFormat,
    ImportNotFailed,
    ImportNotFound,
    ImportQuery,
    Imports,
    ImportView,
    NewImport,
    NoteKind,
    RowNoteView,
)
from markethall.shared.http.common_errors import AUTHENTICATED_ERRORS, IDEMPOTENCY_ERRORS
from markethall.shared.http.conditional_requests import NOT_MODIFIED_RESPONSE, json_with_etag
from markethall.shared.http.csv_responses import CSV_MEDIA_TYPE, csv_response, documented_csv
from markethall.shared.http.dependencies import FromContext
from markethall.shared.http.idempotent_routes import accepted_response
from markethall.shared.http.problem_details import problems
from markethall.shared.http.query_parameters import from_query
from markethall.shared.http.responses import json_response
from markethall.shared.http.route_policies import require_scope
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.errors import (
    BodyTooLarge,
    Overloaded,
    RequestTimeout,
    UnsupportedMediaType,
)
from markethall.shared.kernel.model import Id
from markethall.shared.kernel.pagination import CursorInvalid, Page
from markethall.shared.kernel.scopes import CATALOGUE_WRITE, STOCK_WRITE

router = APIRouter(tags=["inventory"])


class ProvidesImports(Protocol):
    def imports(self) -> Imports: ...


_from_inventory: Final[FromContext[ProvidesImports]] = FromContext("inventory")
ImportsDep = Annotated[Imports, Depends(_from_inventory(lambda container: container.imports()))]

# Sent while there is no change, because proxies close idle connections. It is a comment of the
# event stream, because clients ignore comments.
HEARTBEAT: Final = format_sse_event(comment="heartbeat")

_FORMAT_BY_MEDIA_TYPE: Final = {
    CSV_MEDIA_TYPE: ImportFormat.CSV,
    "application/x-ndjson": ImportFormat.NDJSON,
}
_UTF_8_PARAMETER: Final = re.compile(r"\s*(?:charset=\"?utf-?8\"?|header=\w+)?\s*", re.IGNORECASE)
_CSV_EXAMPLE: Final = "sku,name,price,currency,on_hand\r\nTEA-SENCHA-100,Sencha,12.50,EUR,20\r\n"
_NDJSON_EXAMPLE: Final = (
    '{"sku":"TEA-SENCHA-100","name":"Sencha","price":{"amount":1250,"currency":"EUR"}}'
)


# an import changes products and stock, so it needs both scopes
CatalogueAndStockWriter = Annotated[
    CallContext, require_scope(CATALOGUE_WRITE, also_requires=STOCK_WRITE)
]


def _file_body_schema(example: str) -> dict[str, Any]:
    schema = {
        "type": "string",
        "description": "The file, UTF-8; 64 MiB at most, unless set otherwise",
    }
    return {"schema": schema | {"examples": [example]}}


@router.post(
    "/imports",
    status_code=202,
    response_model=ImportView,
    summary="Import products",
    responses=problems(*CREATE_ERRORS, BodyTooLarge, RequestTimeout),
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                CSV_MEDIA_TYPE: _file_body_schema(_CSV_EXAMPLE),
                "application/x-ndjson": _file_body_schema(_NDJSON_EXAMPLE),
            },
        }
    },
)
async def start_import(
    request: Request,
    ctx: CatalogueAndStockWriter,
    query: Annotated[ImportQuery, from_query(ImportQuery)],
    imports: ImportsDep,
    idempotency: IdempotencyDep,
) -> Response:
    """Import products from a file, in the background.

    The file is NDJSON, CSV with the columns of the export, or a CSV of Shopify or WooCommerce. A
    row changes the existing product with the same `sku`, or in a Shopify file the one with the same
    handle and options. If there is none, the row creates a product. Fields that the file does not
    have stay unchanged. An invalid row does not stop the import. With `fetch_images`, an image that
    cannot be fetched is a warning, and the product keeps its URL. The scopes `catalogue:write` and
    `stock:write` are required.
    """
    format_ = _import_format(request)
    upload = await imports.upload(ctx, request.stream())
    body = NewImport(sha256=upload.sha256, format=format_, **query.model_dump())

    try:
        return await idempotency.run(
            ctx,
            body,
            lambda attempt: imports.start_import(ctx, upload, body, attempt),
            accepted_response(lambda made: f"/imports/{made.import_id}"),
        )
    finally:
        await imports.discard_upload(ctx, upload)


@router.get(
    "/imports/{import_id}",
    response_model=ImportView,
    summary="An import",
    responses=problems(*AUTHENTICATED_ERRORS, ImportNotFound) | NOT_MODIFIED_RESPONSE,
)
async def get_import(
    request: Request, ctx: CatalogueWriter, import_id: Id, imports: ImportsDep
) -> Response:
    """Return the progress of an import and the outcomes of its rows."""
    return json_with_etag(request, await imports.get_import(ctx, import_id))


@router.get(
    "/imports/{import_id}/events",
    response_class=StreamingResponse,
    summary="Progress of an import",
    responses=problems(*AUTHENTICATED_ERRORS, ImportNotFound, Overloaded)
    | {
        200: {
            "description": "`progress` events until the end",
            "content": {"text/event-stream": {}},
        }
    },
)
async def stream_import_events(
    request: Request, ctx: CatalogueWriter, import_id: Id, imports: ImportsDep
) -> Response:
    """Stream the progress as server-sent events with the import as `data`.

    If the response is 503, poll `GET /imports/{import_id}` instead.
    """
    updates = await imports.watch_import(ctx, import_id)
    return StreamingResponse(_progress_events(request, updates), media_type="text/event-stream")


@router.get(
    "/imports/{import_id}/errors",
    response_model=Page[RowNoteView],
    summary="Errors of an import",
    responses=problems(*AUTHENTICATED_ERRORS, ImportNotFound, CursorInvalid),
)
async def list_import_errors(
    ctx: CatalogueWriter, import_id: Id, query: PageQueryDep, imports: ImportsDep
) -> Response:
    """Return row errors in the order of the file. Only the first 10,000 are stored."""
    return json_response(await imports.list_row_notes(ctx, import_id, NoteKind.ERROR, query))


@router.get(
    "/imports/{import_id}/warnings",
    response_model=Page[RowNoteView],
    summary="Warnings of an import",
    responses=problems(*AUTHENTICATED_ERRORS, ImportNotFound, CursorInvalid),
)
async def list_import_warnings(
    ctx: CatalogueWriter, import_id: Id, query: PageQueryDep, imports: ImportsDep
) -> Response:
    """Return the values that were cut or dropped, in the order of the file.

    Their rows are imported. Only the first 10,000 warnings are stored.
    """
    return json_response(await imports.list_row_notes(ctx, import_id, NoteKind.WARNING, query))


@router.get(
    "/imports/{import_id}/changes",
    response_model=Page[RowNoteView],
    summary="Changes that a dry run would make",
    responses=problems(*AUTHENTICATED_ERRORS, ImportNotFound, CursorInvalid),
)
async def list_import_changes(
    ctx: CatalogueWriter, import_id: Id, query: PageQueryDep, imports: ImportsDep
) -> Response:
    """Return the changes that a dry run has found, in the order of the file.

    They are changes of existing products. Only the first 10,000 are stored.
    """
    return json_response(await imports.list_row_notes(ctx, import_id, NoteKind.CHANGE, query))


@router.post(
    "/imports/{import_id}/retry",
    status_code=202,
    response_model=ImportView,
    summary="Try a failed import again",
    responses=problems(
        *AUTHENTICATED_ERRORS,
        *IDEMPOTENCY_ERRORS,
        ImportNotFound,
        ImportNotFailed,
        ImportFileExpired,
    ),
)
async def retry_import(
    ctx: CatalogueAndStockWriter, import_id: Id, imports: ImportsDep, idempotency: IdempotencyDep
) -> Response:
    """Continue a failed import at the row where it stopped.

    The scopes `catalogue:write` and `stock:write` are required.
    """
    return await idempotency.run(
        ctx,
        None,
        lambda attempt: imports.retry_import(ctx, import_id, attempt),
        accepted_response(lambda made: f"/imports/{made.import_id}"),
    )


@router.get(
    "/exports/products.csv",
    response_class=StreamingResponse,
    summary="Export products",
    responses=problems(*AUTHENTICATED_ERRORS) | documented_csv("All products, ordered by id"),
)
async def export_products(ctx: CatalogueWriter, imports: ImportsDep) -> Response:
    """Return all products as CSV, which can be imported again.

    An apostrophe is put before each text that a spreadsheet would run as a formula.
    """
    return await csv_response(imports.export_products(ctx), "products.csv")


@router.get(
    "/exports/families.csv",
    response_class=StreamingResponse,
    summary="Export families",
    responses=problems(*AUTHENTICATED_ERRORS)
    | {200: {"description": "All families, ordered by label", "content": {CSV_MEDIA_TYPE: {}}}},
)
async def export_families(ctx: CatalogueWriter, imports: ImportsDep) -> Response:
    """Return all families as CSV, which can be imported again.

    To copy a catalogue, import this file before the file of the products. An apostrophe is put
    before each text that a spreadsheet would run as a formula.
    """
    return await csv_response(imports.export_families(ctx), "families.csv")


def _import_format(request: Request) -> ImportFormat:
    """Raises UnsupportedMediaType."""
    kind, _, parameters = request.headers.get("content-type", "").partition(";")
    import_format = _FORMAT_BY_MEDIA_TYPE.get(kind.strip().lower())
    if import_format is None or not all(
        _UTF_8_PARAMETER.fullmatch(parameter) for parameter in parameters.split(";")
    ):
        raise UnsupportedMediaType(supported=sorted(_FORMAT_BY_MEDIA_TYPE))
    return import_format


async def _progress_events(
    request: Request, updates: AsyncIterator[ImportView | None]
) -> AsyncIterator[bytes]:
    async for view in updates:
        # the process is shutting down; the client reconnects to another process
        if request.app.state.readiness.draining:
            return
        if view is None:
            yield HEARTBEAT
        else:
            yield format_sse_event(event="progress", data_str=view.model_dump_json())
