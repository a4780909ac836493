"""Stock and reservations, for staff."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from markethall.inventory.contract import (
    Adjustment,
    Movement,
    MovementNotFound,
    ProductNotFound,
    ProductStock,
    Reservation,
    ReservationQuery,
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
)
from markethall.shared.idempotency import (
    Attempt,
    KeyMissing,
)
from markethall.shared.model import Id
from markethall.shared.pages import CursorInvalid, Page, PageQuery

router = APIRouter(tags=["inventory"])


@router.get(
    "/products/{product_id}/stock",
    response_model=ProductStock,
    summary="Stock of a product",
    responses=problems(*GUARDED, ProductNotFound),
)
async def stock(call: Keeper, product_id: Id, stockroom: StockroomDep) -> Response:
    """Per warehouse. `available` counts what expired holds still have reserved."""
    return ready(await stockroom.stock(call, product_id))


@router.post(
    "/products/{product_id}/stock-adjustments",
    status_code=201,
    response_model=Movement,
    summary="Adjust stock",
    responses=problems(
        *GUARDED, *BODY, *KEYED, KeyMissing, ProductNotFound, WarehouseNotFound, WouldGoNegative
    ),
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
    call: Keeper, product_id: Id, movement_id: Id, stockroom: StockroomDep
) -> Response:
    return ready(await stockroom.movement(call, product_id, movement_id))


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
