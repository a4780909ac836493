"""Stock and reservations, for staff."""

from typing import Annotated, Final

from fastapi import APIRouter, Query, Request, Response

from markethall.inventory.contract import (
    Adjustment,
    Movement,
    MovementNotFound,
    NewStocktake,
    NewTransfer,
    ProductNotFound,
    ProductStock,
    ProductStockThen,
    Reservation,
    ReservationQuery,
    StockQuery,
    Stocktake,
    StocktakeNotFound,
    Transfer,
    TransferNotFound,
    WarehouseClosed,
    WarehouseNotFound,
    WouldGoNegative,
)
from markethall.inventory.router.deps import BODY, GUARDED, KEYED, Keeper, KeysDep, StockroomDep
from markethall.shared.http import (
    MONEY,
    created,
    once,
    problems,
    ready,
    whole,
)
from markethall.shared.idempotency import (
    Attempt,
    KeyMissing,
)
from markethall.shared.model import Id
from markethall.shared.pages import CursorInvalid, Page, PageQuery

router = APIRouter(tags=["inventory"])

MOVED: Final = (
    *GUARDED,
    *BODY,
    *KEYED,
    KeyMissing,
    ProductNotFound,
    WarehouseNotFound,
    WarehouseClosed,
    WouldGoNegative,
)


@router.get(
    "/products/{product_id}/stock",
    response_model=ProductStock | ProductStockThen,
    summary="Stock of a product",
    responses=problems(*GUARDED, ProductNotFound),
)
async def stock(
    call: Keeper,
    product_id: Id,
    stockroom: StockroomDep,
    query: Annotated[StockQuery, Query()],
) -> Response:
    """Per warehouse. `available` counts what expired holds still have reserved. With `at`: what
    was on hand at that time, and no more than that.
    """
    if query.at is None:
        return ready(await stockroom.stock(call, product_id))
    return ready(await stockroom.stock_at(call, product_id, query.at))


@router.post(
    "/products/{product_id}/stock-adjustments",
    status_code=201,
    response_model=Movement,
    summary="Adjust stock",
    responses=problems(*MOVED),
)
async def adjust(
    request: Request,
    *,
    call: Keeper,
    product_id: Id,
    body: Adjustment,
    stockroom: StockroomDep,
    keys: KeysDep,
) -> Response:
    """Goods came or went (`delta`), or were counted (`counted`): exactly one of the two."""

    async def effect(attempt: Attempt) -> Movement:
        return await stockroom.adjust(call, product_id, body, attempt)

    present = created(
        lambda made: f"/products/{made.product_id}/stock-movements/{made.movement_id}"
    )
    return await once(request, call, body, keys, effect, present, required=True, kept_for=MONEY)


@router.get(
    "/products/{product_id}/stock-movements",
    response_model=Page[Movement],
    summary="Stock movements of a product",
    responses=problems(*GUARDED, CursorInvalid, ProductNotFound),
)
async def movements(
    call: Keeper, product_id: Id, query: Annotated[PageQuery, Query()], stockroom: StockroomDep
) -> Response:
    """The ledger of what is on hand, the newest first. It is only added to."""
    return ready(await stockroom.movements(call, product_id, query))


@router.get(
    "/products/{product_id}/stock-movements/{movement_id}",
    response_model=Movement,
    summary="A stock movement",
    responses=problems(*GUARDED, MovementNotFound),
)
async def movement(
    request: Request, call: Keeper, product_id: Id, movement_id: Id, stockroom: StockroomDep
) -> Response:
    return whole(request, await stockroom.movement(call, product_id, movement_id))


@router.post(
    "/stock-transfers",
    status_code=201,
    response_model=Transfer,
    summary="Move goods to another warehouse",
    responses=problems(*MOVED),
)
async def transfer(
    request: Request, call: Keeper, body: NewTransfer, stockroom: StockroomDep, keys: KeysDep
) -> Response:
    """Two movements in the ledger, all or none. Goods that are reserved stay where they are."""

    async def effect(attempt: Attempt) -> Transfer:
        return await stockroom.transfer(call, body, attempt)

    present = created(lambda made: f"/stock-transfers/{made.transfer_id}")
    return await once(request, call, body, keys, effect, present, required=True, kept_for=MONEY)


@router.get(
    "/stock-transfers/{transfer_id}",
    response_model=Transfer,
    summary="A stock transfer",
    responses=problems(*GUARDED, TransferNotFound),
)
async def transfer_made(
    request: Request, call: Keeper, transfer_id: Id, stockroom: StockroomDep
) -> Response:
    return whole(request, await stockroom.transfer_made(call, transfer_id))


@router.post(
    "/stocktakes",
    status_code=201,
    response_model=Stocktake,
    summary="Count stock",
    responses=problems(*MOVED),
)
async def count(
    request: Request, call: Keeper, body: NewStocktake, stockroom: StockroomDep, keys: KeysDep
) -> Response:
    """What lies on the shelves of one warehouse. All lines are taken over, or none: a line may not
    say less than is reserved.
    """

    async def effect(attempt: Attempt) -> Stocktake:
        return await stockroom.count(call, body, attempt)

    present = created(lambda made: f"/stocktakes/{made.stocktake_id}")
    return await once(request, call, body, keys, effect, present, required=True, kept_for=MONEY)


@router.get(
    "/stocktakes/{stocktake_id}",
    response_model=Stocktake,
    summary="A stocktake",
    responses=problems(*GUARDED, StocktakeNotFound),
)
async def stocktake(
    request: Request, call: Keeper, stocktake_id: Id, stockroom: StockroomDep
) -> Response:
    return whole(request, await stockroom.stocktake(call, stocktake_id))


@router.get(
    "/reservations",
    response_model=Page[Reservation],
    summary="Reservations of an order",
    responses=problems(*GUARDED, CursorInvalid),
)
async def reservations(
    call: Keeper, query: Annotated[ReservationQuery, Query()], stockroom: StockroomDep
) -> Response:
    return ready(await stockroom.reservations(call, query))
