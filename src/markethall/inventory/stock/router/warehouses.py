from typing import Annotated

from fastapi import APIRouter, Request, Response

from markethall.inventory.catalogue.router.dependencies import ExpectedVersionsDep, IdempotencyDep
from markethall.inventory.stock.contract import (
    NewWarehouse,
    WarehouseChange,
    WarehouseInUse,
    WarehouseNotFound,
    WarehouseView,
)
from markethall.inventory.stock.router.dependencies import StockWriter, WarehousesDep
from markethall.shared.http.common_errors import (
    AUTHENTICATED_ERRORS,
    BODY_ERRORS,
    IDEMPOTENCY_ERRORS,
    VERSION_ERRORS,
)
from markethall.shared.http.conditional_requests import NOT_MODIFIED_RESPONSE, apply_if_none_match
from markethall.shared.http.idempotent_routes import created_response
from markethall.shared.http.problem_details import problems
from markethall.shared.http.query_parameters import from_query
from markethall.shared.http.responses import json_response, versioned_response
from markethall.shared.kernel.model import Id
from markethall.shared.kernel.pagination import CursorInvalid, Page, PageQuery

router = APIRouter(prefix="/warehouses", tags=["inventory"])


@router.get(
    "",
    response_model=Page[WarehouseView],
    summary="Warehouses",
    responses=problems(*AUTHENTICATED_ERRORS, CursorInvalid),
)
async def list_warehouses(
    ctx: StockWriter, query: Annotated[PageQuery, from_query(PageQuery)], warehouses: WarehousesDep
) -> Response:
    """Return warehouses, sorted by priority.

    If several warehouses have the stock, an order is sent from the one with the lowest `priority`.
    """
    return json_response(await warehouses.list_warehouses(ctx, query))


@router.get(
    "/{warehouse_id}",
    response_model=WarehouseView,
    summary="A warehouse",
    responses=problems(*AUTHENTICATED_ERRORS, WarehouseNotFound) | NOT_MODIFIED_RESPONSE,
)
async def get_warehouse(
    request: Request, ctx: StockWriter, warehouse_id: Id, warehouses: WarehousesDep
) -> Response:
    """Return a warehouse."""
    return apply_if_none_match(
        request, versioned_response(await warehouses.get_warehouse(ctx, warehouse_id))
    )


@router.post(
    "",
    status_code=201,
    response_model=WarehouseView,
    summary="Add a warehouse",
    responses=problems(*AUTHENTICATED_ERRORS, *BODY_ERRORS, *IDEMPOTENCY_ERRORS),
)
async def create_warehouse(
    ctx: StockWriter, body: NewWarehouse, warehouses: WarehousesDep, idempotency: IdempotencyDep
) -> Response:
    """Create a warehouse without stock."""
    return await idempotency.run(
        ctx,
        body,
        lambda attempt: warehouses.create(ctx, body, attempt),
        created_response(lambda made: f"/warehouses/{made.warehouse_id}"),
    )


@router.patch(
    "/{warehouse_id}",
    response_model=WarehouseView,
    summary="Change a warehouse",
    responses=problems(
        *AUTHENTICATED_ERRORS, *BODY_ERRORS, *VERSION_ERRORS, WarehouseNotFound, WarehouseInUse
    ),
)
async def change_warehouse(
    ctx: StockWriter,
    warehouse_id: Id,
    expected_versions: ExpectedVersionsDep,
    body: WarehouseChange,
    warehouses: WarehousesDep,
) -> Response:
    """Change a warehouse by a JSON merge patch (RFC 7396).

    Only a warehouse without stock can be closed (`"active": false`).
    """
    return versioned_response(await warehouses.change(ctx, warehouse_id, body, expected_versions))


@router.delete(
    "/{warehouse_id}",
    status_code=204,
    response_class=Response,
    summary="Delete a warehouse",
    responses=problems(*AUTHENTICATED_ERRORS, *VERSION_ERRORS, WarehouseNotFound, WarehouseInUse),
)
async def delete_warehouse(
    ctx: StockWriter,
    warehouse_id: Id,
    expected_versions: ExpectedVersionsDep,
    warehouses: WarehousesDep,
) -> Response:
    """Delete a warehouse that never had stock. A warehouse that had stock can only be closed."""
    await warehouses.delete(ctx, warehouse_id, expected_versions)
    return Response(status_code=204)
