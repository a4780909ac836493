"""The contract `Inventory` over HTTP: server routes, client, and wrapper with the call guard."""

from typing import Final
from uuid import UUID

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
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.model import Dto
from markethall.shared.rpc.client import RpcClient
from markethall.shared.rpc.client_interceptor import CallGuard
from markethall.shared.rpc.server import InternalRoutes


class ReservationRef(Dto):
    reservation_id: UUID


routes = InternalRoutes("inventory", lambda container: container.inventory())
# Callers of an older release do not know these two errors. They never get them, because they do not
# send `limited`. scripts/rpc_compatibility.py reads this extension of the schema.
_LIMIT_ERRORS: Final = (TooManyUnpaidOrders, TooManyUnits)
routes.add(
    Inventory.reserve,
    ProductNotFound,
    OutOfStock,
    *_LIMIT_ERRORS,
    openapi_extra={"x-refused-only-with": {"limited": [error.code for error in _LIMIT_ERRORS]}},
)
routes.add(Inventory.extend, ReservationClosed)
routes.add(Inventory.commit, OutOfStock, ReservationClosed, reference=ReservationRef)
routes.add(Inventory.consume, OutOfStock, ReservationClosed)
routes.add(Inventory.release_part, ReservationClosed)
routes.add(Inventory.release, reference=ReservationRef)
routes.add(Inventory.merge, ReservationClosed)
routes.add(Inventory.restock, ProductNotFound)
routes.add(Inventory.list_reservation_states)
routes.add(Inventory.list_offers)


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
        return await self._guard.invoke(ctx, "reserve", self._inventory.reserve, command)

    async def extend(self, ctx: CallContext, command: Extend) -> ReservationView:
        return await self._guard.invoke(ctx, "extend", self._inventory.extend, command)

    async def commit(self, ctx: CallContext, reservation_id: UUID) -> ReservationView:
        return await self._guard.invoke(ctx, "commit", self._inventory.commit, reservation_id)

    async def consume(self, ctx: CallContext, command: Consume) -> ReservationView:
        return await self._guard.invoke(ctx, "consume", self._inventory.consume, command)

    async def release_part(self, ctx: CallContext, command: ReleasePart) -> ReservationView:
        return await self._guard.invoke(ctx, "release_part", self._inventory.release_part, command)

    async def release(self, ctx: CallContext, reservation_id: UUID) -> ReservationView:
        return await self._guard.invoke(ctx, "release", self._inventory.release, reservation_id)

    async def merge(self, ctx: CallContext, command: MergeReservations) -> ReservationView:
        return await self._guard.invoke(ctx, "merge", self._inventory.merge, command)

    async def restock(self, ctx: CallContext, command: Restock) -> None:
        await self._guard.invoke(ctx, "restock", self._inventory.restock, command)

    async def list_reservation_states(
        self, ctx: CallContext, page: ListReservationStates
    ) -> ReservationStates:
        return await self._guard.invoke(
            ctx, "list_reservation_states", self._inventory.list_reservation_states, page
        )

    async def list_offers(self, ctx: CallContext, query: ListOffers) -> ProductOffers:
        return await self._guard.invoke(ctx, "list_offers", self._inventory.list_offers, query)
