"""Warehouses, for staff."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from markethall.inventory.contract import (
    NewWarehouse,
    Warehouse,
    WarehouseChange,
    WarehouseInUse,
    WarehouseNotFound,
)
from markethall.inventory.router.deps import (
    BODY,
    GUARDED,
    KEYED,
    VERSIONED,
    Keeper,
    KeysDep,
    Seen,
    WarehousesDep,
)
from markethall.shared.http import conditional, created, once, problems, ready
from markethall.shared.idempotency import Attempt
from markethall.shared.model import Id
from markethall.shared.pages import CursorInvalid, Page, PageQuery
from markethall.shared.versions import etag

router = APIRouter(prefix="/warehouses", tags=["inventory"])


@router.get(
    "",
    response_model=Page[Warehouse],
    summary="Warehouses",
    responses=problems(*GUARDED, CursorInvalid),
)
async def warehouses(
    call: Keeper, query: Annotated[PageQuery, Query()], warehouses: WarehousesDep
) -> Response:
    """By priority, the lowest first: of those that would do equally well, goods come from it."""
    return ready(await warehouses.warehouses(call, query))


@router.get(
    "/{warehouse_id}",
    response_model=Warehouse,
    summary="A warehouse",
    responses=problems(*GUARDED, WarehouseNotFound),
)
async def warehouse(
    request: Request, call: Keeper, warehouse_id: Id, warehouses: WarehousesDep
) -> Response:
    return conditional(request, _tagged(await warehouses.warehouse(call, warehouse_id)))


@router.post(
    "",
    status_code=201,
    response_model=Warehouse,
    summary="Add a warehouse",
    responses=problems(*GUARDED, *BODY, *KEYED),
)
async def create(
    request: Request, call: Keeper, body: NewWarehouse, warehouses: WarehousesDep, keys: KeysDep
) -> Response:
    async def effect(attempt: Attempt) -> Warehouse:
        return await warehouses.create(call, body, attempt)

    present = created(lambda made: f"/warehouses/{made.warehouse_id}")
    return await once(request, call, body, keys, effect, present)


@router.patch(
    "/{warehouse_id}",
    response_model=Warehouse,
    summary="Change a warehouse",
    responses=problems(*GUARDED, *BODY, *VERSIONED, WarehouseNotFound, WarehouseInUse),
)
async def change(
    call: Keeper, warehouse_id: Id, seen: Seen, body: WarehouseChange, warehouses: WarehousesDep
) -> Response:
    """JSON merge patch (RFC 7396). One is closed (`active`: false) when nothing is in it."""
    return _tagged(await warehouses.change(call, warehouse_id, body, seen))


@router.delete(
    "/{warehouse_id}",
    status_code=204,
    response_class=Response,
    summary="Delete a warehouse",
    responses=problems(*GUARDED, *VERSIONED, WarehouseNotFound, WarehouseInUse),
)
async def delete(call: Keeper, warehouse_id: Id, seen: Seen, warehouses: WarehousesDep) -> Response:
    """One that ever had goods stays, for the ledger speaks of it: close it instead."""
    await warehouses.delete(call, warehouse_id, seen)
    return Response(status_code=204)


def _tagged(warehouse: Warehouse) -> Response:
    return ready(warehouse, headers={"etag": etag(warehouse.version)})
