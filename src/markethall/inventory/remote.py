"""The contract `Inventory` over HTTP: server routes, then the client."""

from typing import Annotated, Final, Protocol
from uuid import UUID

from fastapi import APIRouter, Depends, Response

from markethall.inventory.contract import (
    Consume,
    Extend,
    Inventory,
    ListOffers,
    ListReservationStates,
    MergeReservations,
    OutOfStock,
    ProductNotFound,
    ProductOffers,
    ReleasePart,
    ReservationClosed,
    ReservationStates,
    ReservationView,
    Reserve,
    Restock,
    TooManyUnits,
    TooManyUnpaidOrders,
)
from markethall.shared.http.dependencies import FromContext
from markethall.shared.http.problem_details import problems
from markethall.shared.http.responses import json_response
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.model import Dto
from markethall.shared.rpc.client import RpcClient
from markethall.shared.rpc.client_interceptor import CallGuard
from markethall.shared.rpc.server import FORBID_UNKNOWN_FIELDS, require_service_token

router = APIRouter(prefix="/internal/inventory", tags=["internal"])


class ProvidesInventory(Protocol):
    def inventory(self) -> Inventory: ...


_from_inventory: Final[FromContext[ProvidesInventory]] = FromContext("inventory")
InventoryDep = Annotated[
    Inventory, Depends(_from_inventory(lambda container: container.inventory()))
]


class ReservationRef(Dto):
    reservation_id: UUID


@router.post(
    "/reserve",
    response_model=ReservationView,
    responses=problems(ProductNotFound, OutOfStock, TooManyUnpaidOrders, TooManyUnits),
    # Callers of an older release do not know these two errors. They never get them, because they
    # do not send `limited`. scripts/rpc_compatibility.py reads this extension of the schema.
    openapi_extra={
        "x-refused-only-with": {"limited": [TooManyUnpaidOrders.code, TooManyUnits.code]}
    },
)
async def reserve(
    ctx: Annotated[CallContext, require_service_token("inventory.reserve")],
    command: Annotated[Reserve, FORBID_UNKNOWN_FIELDS],
    inventory: InventoryDep,
) -> Response:
    return json_response(await inventory.reserve(ctx, command))


@router.post("/extend", response_model=ReservationView, responses=problems(ReservationClosed))
async def extend(
    ctx: Annotated[CallContext, require_service_token("inventory.extend")],
    command: Annotated[Extend, FORBID_UNKNOWN_FIELDS],
    inventory: InventoryDep,
) -> Response:
    return json_response(await inventory.extend(ctx, command))


@router.post(
    "/commit", response_model=ReservationView, responses=problems(OutOfStock, ReservationClosed)
)
async def commit(
    ctx: Annotated[CallContext, require_service_token("inventory.commit")],
    reservation_ref: Annotated[ReservationRef, FORBID_UNKNOWN_FIELDS],
    inventory: InventoryDep,
) -> Response:
    return json_response(await inventory.commit(ctx, reservation_ref.reservation_id))


@router.post(
    "/consume", response_model=ReservationView, responses=problems(OutOfStock, ReservationClosed)
)
async def consume(
    ctx: Annotated[CallContext, require_service_token("inventory.consume")],
    command: Annotated[Consume, FORBID_UNKNOWN_FIELDS],
    inventory: InventoryDep,
) -> Response:
    return json_response(await inventory.consume(ctx, command))


@router.post("/release_part", response_model=ReservationView, responses=problems(ReservationClosed))
async def release_part(
    ctx: Annotated[CallContext, require_service_token("inventory.release_part")],
    command: Annotated[ReleasePart, FORBID_UNKNOWN_FIELDS],
    inventory: InventoryDep,
) -> Response:
    return json_response(await inventory.release_part(ctx, command))


@router.post("/release", response_model=ReservationView)
async def release(
    ctx: Annotated[CallContext, require_service_token("inventory.release")],
    reservation_ref: Annotated[ReservationRef, FORBID_UNKNOWN_FIELDS],
    inventory: InventoryDep,
) -> Response:
    return json_response(await inventory.release(ctx, reservation_ref.reservation_id))


@router.post("/merge", response_model=ReservationView, responses=problems(ReservationClosed))
async def merge(
    ctx: Annotated[CallContext, require_service_token("inventory.merge")],
    command: Annotated[MergeReservations, FORBID_UNKNOWN_FIELDS],
    inventory: InventoryDep,
) -> Response:
    return json_response(await inventory.merge(ctx, command))


@router.post(
    "/restock", status_code=204, response_class=Response, responses=problems(ProductNotFound)
)
async def restock(
    ctx: Annotated[CallContext, require_service_token("inventory.restock")],
    command: Annotated[Restock, FORBID_UNKNOWN_FIELDS],
    inventory: InventoryDep,
) -> None:
    await inventory.restock(ctx, command)


@router.post("/list_reservation_states", response_model=ReservationStates)
async def list_reservation_states(
    ctx: Annotated[CallContext, require_service_token("inventory.list_reservation_states")],
    page: Annotated[ListReservationStates, FORBID_UNKNOWN_FIELDS],
    inventory: InventoryDep,
) -> Response:
    return json_response(await inventory.list_reservation_states(ctx, page))


@router.post("/list_offers", response_model=ProductOffers)
async def list_offers(
    ctx: Annotated[CallContext, require_service_token("inventory.list_offers")],
    query: Annotated[ListOffers, FORBID_UNKNOWN_FIELDS],
    inventory: InventoryDep,
) -> Response:
    return json_response(await inventory.list_offers(ctx, query))


class RemoteInventory:
    """Client of inventory in another deployment."""

    def __init__(self, rpc_client: RpcClient) -> None:
        self._rpc_client = rpc_client

    async def reserve(self, ctx: CallContext, command: Reserve) -> ReservationView:
        return await self._rpc_client.call(ctx, "reserve", command, ReservationView)

    async def extend(self, ctx: CallContext, command: Extend) -> ReservationView:
        return await self._rpc_client.call(ctx, "extend", command, ReservationView)

    async def commit(self, ctx: CallContext, reservation_id: UUID) -> ReservationView:
        reservation_ref = ReservationRef(reservation_id=reservation_id)
        return await self._rpc_client.call(ctx, "commit", reservation_ref, ReservationView)

    async def consume(self, ctx: CallContext, command: Consume) -> ReservationView:
        return await self._rpc_client.call(ctx, "consume", command, ReservationView)

    async def release_part(self, ctx: CallContext, command: ReleasePart) -> ReservationView:
        return await self._rpc_client.call(ctx, "release_part", command, ReservationView)

    async def release(self, ctx: CallContext, reservation_id: UUID) -> ReservationView:
        reservation_ref = ReservationRef(reservation_id=reservation_id)
        return await self._rpc_client.call(ctx, "release", reservation_ref, ReservationView)

    async def merge(self, ctx: CallContext, command: MergeReservations) -> ReservationView:
        return await self._rpc_client.call(ctx, "merge", command, ReservationView)

    async def restock(self, ctx: CallContext, command: Restock) -> None:
        await self._rpc_client.call_without_result(ctx, "restock", command)

    async def list_reservation_states(
        self, ctx: CallContext, page: ListReservationStates
    ) -> ReservationStates:
        return await self._rpc_client.call(ctx, "list_reservation_states", page, ReservationStates)

    async def list_offers(self, ctx: CallContext, query: ListOffers) -> ProductOffers:
        return await self._rpc_client.call(ctx, "list_offers", query, ProductOffers)


class GuardedInventory:
    """`Inventory` behind a call guard, which makes the same checks for local and remote calls."""

    def __init__(self, inventory: Inventory, guard: CallGuard) -> None:
        self._inventory = inventory
        self._guard = guard

    async def reserve(self, ctx: CallContext, command: Reserve) -> ReservationView:
        return await self._guard.invoke(
            ctx, "reserve", lambda ctx: self._inventory.reserve(ctx, command)
        )

    async def extend(self, ctx: CallContext, command: Extend) -> ReservationView:
        return await self._guard.invoke(
            ctx, "extend", lambda ctx: self._inventory.extend(ctx, command)
        )

    async def commit(self, ctx: CallContext, reservation_id: UUID) -> ReservationView:
        return await self._guard.invoke(
            ctx, "commit", lambda ctx: self._inventory.commit(ctx, reservation_id)
        )

    async def consume(self, ctx: CallContext, command: Consume) -> ReservationView:
        return await self._guard.invoke(
            ctx, "consume", lambda ctx: self._inventory.consume(ctx, command)
        )

    async def release_part(self, ctx: CallContext, command: ReleasePart) -> ReservationView:
        return await self._guard.invoke(
            ctx, "release_part", lambda ctx: self._inventory.release_part(ctx, command)
        )

    async def release(self, ctx: CallContext, reservation_id: UUID) -> ReservationView:
        return await self._guard.invoke(
            ctx, "release", lambda ctx: self._inventory.release(ctx, reservation_id)
        )

    async def merge(self, ctx: CallContext, command: MergeReservations) -> ReservationView:
        return await self._guard.invoke(
            ctx, "merge", lambda ctx: self._inventory.merge(ctx, command)
        )

    async def restock(self, ctx: CallContext, command: Restock) -> None:
        await self._guard.invoke(ctx, "restock", lambda ctx: self._inventory.restock(ctx, command))

    async def list_reservation_states(
        self, ctx: CallContext, page: ListReservationStates
    ) -> ReservationStates:
        return await self._guard.invoke(
            ctx,
            "list_reservation_states",
            lambda ctx: self._inventory.list_reservation_states(ctx, page),
        )

    async def list_offers(self, ctx: CallContext, query: ListOffers) -> ProductOffers:
        return await self._guard.invoke(
            ctx, "list_offers", lambda ctx: self._inventory.list_offers(ctx, query)
        )
