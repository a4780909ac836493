from typing import Annotated, Final, Protocol

from fastapi import APIRouter, Depends, Request, Response
from typing_extensions import TypeAliasType

from markethall.inventory.catalogue.router.dependencies import (
    CHANGE_ERRORS,
    CREATE_ERRORS,
    DELETE_ERRORS,
    ExpectedVersionsDep,
    IdempotencyDep,
    PageQueryDep,
)
from markethall.inventory.contract import ProductNotFound
from markethall.inventory.stock.contract import (
    Adjustment,
    HistoricalProductStock,
    Movement,
    MovementNotFound,
    NewStocktake,
    NewTransfer,
    NewWarehouse,
    ProductStock,
    StockQuery,
    Stockroom,
    Stocktake,
    StocktakeNotFound,
    Transfer,
    TransferNotFound,
    WarehouseChange,
    WarehouseClosed,
    WarehouseInUse,
    WarehouseNotFound,
    Warehouses,
    WarehouseView,
    WouldGoNegative,
)
from markethall.shared.http.common_errors import (
    AUTHENTICATED_ERRORS,
    BODY_ERRORS,
    REQUIRED_IDEMPOTENCY_ERRORS,
)
from markethall.shared.http.conditional_requests import (
    NOT_MODIFIED_RESPONSE,
    apply_if_none_match,
    json_with_etag,
)
from markethall.shared.http.dependencies import FromContext
from markethall.shared.http.idempotent_routes import created_response
from markethall.shared.http.problem_details import problems
from markethall.shared.http.query_parameters import from_query
from markethall.shared.http.responses import json_response, versioned_response
from markethall.shared.http.route_policies import BULK_BODY_LIMITS, require_scope
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.model import Id
from markethall.shared.kernel.pagination import CursorInvalid, Page
from markethall.shared.kernel.scopes import STOCK_WRITE


class Services(Protocol):
    """The services that these routes call."""

    def stockroom(self) -> Stockroom: ...

    def warehouses(self) -> Warehouses: ...


_from_inventory: Final[FromContext[Services]] = FromContext("inventory")
StockroomDep = Annotated[
    Stockroom, Depends(_from_inventory(lambda container: container.stockroom()))
]
WarehousesDep = Annotated[
    Warehouses, Depends(_from_inventory(lambda container: container.warehouses()))
]
StockWriter = Annotated[CallContext, require_scope(STOCK_WRITE)]
StocktakeWriter = Annotated[CallContext, require_scope(STOCK_WRITE, body_limits=BULK_BODY_LIMITS)]


router = APIRouter(tags=["inventory"])

AnyProductStock = TypeAliasType("AnyProductStock", ProductStock | HistoricalProductStock)

STOCK_CHANGE_ERRORS: Final = (
    *AUTHENTICATED_ERRORS,
    *BODY_ERRORS,
    *REQUIRED_IDEMPOTENCY_ERRORS,
    ProductNotFound,
    WarehouseNotFound,
    WarehouseClosed,
    WouldGoNegative,
)


@router.get(
    "/products/{product_id}/stock",
    response_model=AnyProductStock,
    summary="Stock of a product",
    responses=problems(*AUTHENTICATED_ERRORS, ProductNotFound),
)
async def get_stock(
    ctx: StockWriter,
    product_id: Id,
    stockroom: StockroomDep,
    query: Annotated[StockQuery, from_query(StockQuery)],
) -> Response:
    """Return the stock by warehouse.

    `available` includes the units of reservations that are past `expires_at`, even before they are
    released. With `at`, return only the units on hand at that time.
    """
    if query.at is None:
        return json_response(await stockroom.get_stock(ctx, product_id))
    return json_response(await stockroom.get_stock_at(ctx, product_id, query.at))


@router.post(
    "/products/{product_id}/stock-adjustments",
    status_code=201,
    response_model=Movement,
    summary="Adjust stock",
    responses=problems(*STOCK_CHANGE_ERRORS),
)
async def adjust_stock(
    ctx: StockWriter,
    product_id: Id,
    body: Adjustment,
    stockroom: StockroomDep,
    idempotency: IdempotencyDep,
) -> Response:
    """Change the units on hand by `delta`, or set them to `counted`. Send exactly one field."""
    return await idempotency.run_with_key(
        ctx,
        body,
        lambda attempt: stockroom.adjust(ctx, product_id, body, attempt),
        created_response(
            lambda made: f"/products/{made.product_id}/stock-movements/{made.movement_id}"
        ),
    )


@router.get(
    "/products/{product_id}/stock-movements",
    response_model=Page[Movement],
    summary="Stock movements of a product",
    responses=problems(*AUTHENTICATED_ERRORS, CursorInvalid, ProductNotFound),
)
async def list_movements(
    ctx: StockWriter, product_id: Id, query: PageQueryDep, stockroom: StockroomDep
) -> Response:
    """Return the movements of a product, the newest first."""
    return json_response(await stockroom.list_movements(ctx, product_id, query))


@router.get(
    "/products/{product_id}/stock-movements/{movement_id}",
    response_model=Movement,
    summary="A stock movement",
    responses=problems(*AUTHENTICATED_ERRORS, MovementNotFound) | NOT_MODIFIED_RESPONSE,
)
async def get_movement(
    request: Request, ctx: StockWriter, product_id: Id, movement_id: Id, stockroom: StockroomDep
) -> Response:
    """Return an entry of the stock ledger of a product."""
    return json_with_etag(request, await stockroom.get_movement(ctx, product_id, movement_id))


@router.post(
    "/stock-transfers",
    status_code=201,
    response_model=Transfer,
    summary="Move goods to another warehouse",
    responses=problems(*STOCK_CHANGE_ERRORS),
)
async def transfer_stock(
    ctx: StockWriter, body: NewTransfer, stockroom: StockroomDep, idempotency: IdempotencyDep
) -> Response:
    """Move units that are not reserved to another warehouse."""
    return await idempotency.run_with_key(
        ctx,
        body,
        lambda attempt: stockroom.transfer(ctx, body, attempt),
        created_response(lambda made: f"/stock-transfers/{made.transfer_id}"),
    )


@router.get(
    "/stock-transfers/{transfer_id}",
    response_model=Transfer,
    summary="A stock transfer",
    responses=problems(*AUTHENTICATED_ERRORS, TransferNotFound) | NOT_MODIFIED_RESPONSE,
)
async def get_transfer(
    request: Request, ctx: StockWriter, transfer_id: Id, stockroom: StockroomDep
) -> Response:
    """Return a transfer between two warehouses."""
    return json_with_etag(request, await stockroom.get_transfer(ctx, transfer_id))


@router.post(
    "/stocktakes",
    status_code=201,
    response_model=Stocktake,
    summary="Count stock",
    responses=problems(*STOCK_CHANGE_ERRORS),
)
async def record_stocktake(
    ctx: StocktakeWriter, body: NewStocktake, stockroom: StockroomDep, idempotency: IdempotencyDep
) -> Response:
    """Set the units on hand in one warehouse to the counted units, for all lines or none.

    A count must not be lower than the reserved units.
    """
    return await idempotency.run_with_key(
        ctx,
        body,
        lambda attempt: stockroom.record_stocktake(ctx, body, attempt),
        created_response(lambda made: f"/stocktakes/{made.stocktake_id}"),
    )


@router.get(
    "/stocktakes/{stocktake_id}",
    response_model=Stocktake,
    summary="A stocktake",
    responses=problems(*AUTHENTICATED_ERRORS, StocktakeNotFound) | NOT_MODIFIED_RESPONSE,
)
async def get_stocktake(
    request: Request, ctx: StockWriter, stocktake_id: Id, stockroom: StockroomDep
) -> Response:
    """Return a stocktake with its lines."""
    return json_with_etag(request, await stockroom.get_stocktake(ctx, stocktake_id))


warehouses_router = APIRouter(prefix="/warehouses", tags=["inventory"])


@warehouses_router.get(
    "",
    response_model=Page[WarehouseView],
    summary="Warehouses",
    responses=problems(*AUTHENTICATED_ERRORS, CursorInvalid),
)
async def list_warehouses(
    ctx: StockWriter, query: PageQueryDep, warehouses: WarehousesDep
) -> Response:
    """Return warehouses, sorted by priority.

    If several warehouses have the stock, an order is sent from the one with the lowest `priority`.
    """
    return json_response(await warehouses.list_warehouses(ctx, query))


@warehouses_router.get(
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


@warehouses_router.post(
    "",
    status_code=201,
    response_model=WarehouseView,
    summary="Add a warehouse",
    responses=problems(*CREATE_ERRORS),
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


@warehouses_router.patch(
    "/{warehouse_id}",
    response_model=WarehouseView,
    summary="Change a warehouse",
    responses=problems(*CHANGE_ERRORS, WarehouseNotFound, WarehouseInUse),
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


@warehouses_router.delete(
    "/{warehouse_id}",
    status_code=204,
    response_class=Response,
    summary="Delete a warehouse",
    responses=problems(*DELETE_ERRORS, WarehouseNotFound, WarehouseInUse),
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
