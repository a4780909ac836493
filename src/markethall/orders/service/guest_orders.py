"""Change the owner of a guest's orders and carts to the user who has claimed the guest."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from markethall.orders.configuration.ports import retry_on_conflict
from markethall.orders.contract import OrderFilters
from markethall.orders.domain import AuditInfo, Order
from markethall.orders.ports import ReadStore, Store
from markethall.shared.kernel.clock import Clock
from markethall.shared.messaging.events import Delivery
from markethall.shared.persistence.database import Database
from markethall.users.contract import GuestClaimed

_BATCH_SIZE: Final = 50


class GuestOrders:
    def __init__(self, database: Database[ReadStore, Store], clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def claim(self, delivery: Delivery, event: GuestClaimed) -> None:
        """Store the claim, then change the owner of each order and cart.

        From the first commit on, the orders and carts that the guest makes belong to the user, see
        `Checkout._follow_claim`. After a crash the handler runs again and continues with the
        remaining orders.
        """
        async with self._database.transaction() as store:
            await store.set_guest_owner(event.guest_id, event.user_id)
        await self._claim_orders(event)
        async with self._database.transaction() as store:
            await store.claim_carts(event.guest_id, event.user_id)
            await store.mark_processed(delivery)

    async def _claim_orders(self, event: GuestClaimed) -> None:
        # an order that has changed its owner is no longer in the list
        while orders := await self._list_orders(event.guest_id):
            for order in orders:
                await self._claim_order(order.order_id, event)

    async def _list_orders(self, guest_id: UUID) -> Sequence[Order]:
        async with self._database.read_session() as store:
            return await store.list_orders(OrderFilters(), guest_id, None, _BATCH_SIZE)

    @retry_on_conflict
    async def _claim_order(self, order_id: UUID, event: GuestClaimed) -> None:
        async with self._database.transaction() as store:
            order = await store.get_order(order_id)
            if order and order.user_id == event.guest_id:
                audit = claim_audit(event.guest_id, event.user_id, self._clock())
                order.change_owner(event.user_id, audit)
                await store.save_order(order)


def claim_audit(guest_id: UUID, user_id: UUID, at: datetime) -> AuditInfo:
    return AuditInfo(f"user:{user_id}", at, f"guest {guest_id}")
