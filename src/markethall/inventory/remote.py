"""The promise of inventory over HTTP: the serving half, then the calling half."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Response

from markethall.inventory.contract import (
    Consume,
    Extend,
    Inventory,
    OutOfStock,
    ProductNotFound,
    ReleasePart,
    Reservation,
    ReservationClosed,
    Reserve,
    TooManyHolds,
    TooManyUnits,
)
from markethall.shared.call import Call
from markethall.shared.http import from_container, problems, ready
from markethall.shared.model import Dto
from markethall.shared.serving import STRICT, service
from markethall.shared.wire import Wire

router = APIRouter(prefix="/internal/inventory", tags=["internal"])

InventoryDep = Annotated[Inventory, Depends(from_container("inventory"))]


class Which(Dto):
    reservation_id: UUID


@router.post(
    "/reserve",
    response_model=Reservation,
    responses=problems(ProductNotFound, OutOfStock, TooManyHolds, TooManyUnits),
    # a caller of an older release neither sends this nor knows these
    openapi_extra={"x-refused-only-with": {"limited": [TooManyHolds.code, TooManyUnits.code]}},
)
async def reserve(
    call: Annotated[Call, service("inventory.reserve")],
    command: Annotated[Reserve, STRICT],
    inventory: InventoryDep,
) -> Response:
    return ready(await inventory.reserve(call, command))


@router.post("/extend", response_model=Reservation, responses=problems(ReservationClosed))
async def extend(
    call: Annotated[Call, service("inventory.extend")],
    command: Annotated[Extend, STRICT],
    inventory: InventoryDep,
) -> Response:
    return ready(await inventory.extend(call, command))


@router.post(
    "/commit", response_model=Reservation, responses=problems(OutOfStock, ReservationClosed)
)
async def commit(
    call: Annotated[Call, service("inventory.commit")],
    which: Annotated[Which, STRICT],
    inventory: InventoryDep,
) -> Response:
    return ready(await inventory.commit(call, which.reservation_id))


@router.post(
    "/consume", response_model=Reservation, responses=problems(OutOfStock, ReservationClosed)
)
async def consume(
    call: Annotated[Call, service("inventory.consume")],
    command: Annotated[Consume, STRICT],
    inventory: InventoryDep,
) -> Response:
    return ready(await inventory.consume(call, command))


@router.post("/release_part", response_model=Reservation, responses=problems(ReservationClosed))
async def release_part(
    call: Annotated[Call, service("inventory.release_part")],
    command: Annotated[ReleasePart, STRICT],
    inventory: InventoryDep,
) -> Response:
    return ready(await inventory.release_part(call, command))


@router.post("/release", response_model=Reservation)
async def release(
    call: Annotated[Call, service("inventory.release")],
    which: Annotated[Which, STRICT],
    inventory: InventoryDep,
) -> Response:
    return ready(await inventory.release(call, which.reservation_id))


class RemoteInventory:
    """Inventory, in another deployment."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    async def reserve(self, call: Call, command: Reserve) -> Reservation:
        return await self._wire.ask(call, "reserve", command, Reservation)

    async def extend(self, call: Call, command: Extend) -> Reservation:
        return await self._wire.ask(call, "extend", command, Reservation)

    async def commit(self, call: Call, reservation_id: UUID) -> Reservation:
        which = Which(reservation_id=reservation_id)
        return await self._wire.ask(call, "commit", which, Reservation)

    async def consume(self, call: Call, command: Consume) -> Reservation:
        return await self._wire.ask(call, "consume", command, Reservation)

    async def release_part(self, call: Call, command: ReleasePart) -> Reservation:
        return await self._wire.ask(call, "release_part", command, Reservation)

    async def release(self, call: Call, reservation_id: UUID) -> Reservation:
        which = Which(reservation_id=reservation_id)
        return await self._wire.ask(call, "release", which, Reservation)
