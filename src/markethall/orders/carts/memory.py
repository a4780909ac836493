"""The in-memory store of carts."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from itertools import islice
from uuid import UUID

from markethall.orders.carts.contract import CartStatus
from markethall.orders.carts.domain import Cart, CartRef
from markethall.orders.configuration.memory import ConfigurationTables, MemoryConfigurationStore
from markethall.orders.configuration.ports import ConcurrentUpdate
from markethall.shared.kernel.clock import Clock
from markethall.shared.persistence.memory import Table


class CartTables(ConfigurationTables):
    def __init__(self) -> None:
        super().__init__()
        self.carts: Table[UUID, Cart] = Table()


class MemoryCartStore(MemoryConfigurationStore):
    def __init__(self, tables: CartTables, clock: Clock) -> None:
        super().__init__(tables, clock)
        self._carts = tables.carts

    async def get_cart(self, cart_id: UUID) -> Cart | None:
        return self._carts.get(cart_id)

    async def list_carts(
        self, user_id: UUID, status: CartStatus | None, after: UUID | None, limit: int
    ) -> Sequence[Cart]:
        found = self._carts.where(
            lambda cart: (
                cart.user_id == user_id
                and status in {None, cart.status}
                and (after is None or cart.cart_id < after)
            )
        )
        return sorted(found, key=lambda cart: cart.cart_id, reverse=True)[:limit]

    async def lock_cart_owner(self, user_id: UUID) -> None:
        """Do nothing, because transactions in memory run one at a time."""

    async def count_open_carts(self, user_id: UUID) -> int:
        return len(
            self._carts.where(
                lambda cart: cart.user_id == user_id and cart.status is CartStatus.OPEN
            )
        )

    async def add_cart(self, cart: Cart) -> bool:
        return self._carts.add(cart.cart_id, cart)

    async def save_cart(self, cart: Cart) -> None:
        stored = self._find_open(CartRef(cart.cart_id, cart.version - 1))
        if stored is None:
            raise ConcurrentUpdate
        # the handler of a claim may have changed the owner after the cart was read
        saved = replace(cart, user_id=stored.user_id, is_guest=stored.is_guest)
        self._carts.put(cart.cart_id, saved)

    async def record_look(self, cart: Cart) -> None:
        stored = self._carts.get(cart.cart_id)
        if stored is None:
            return
        looked = {line.product_id: line for line in cart.lines}
        lines = (
            replace(looked.get(line.product_id, line), quantity=line.quantity)
            for line in stored.lines
        )
        self._carts.put(cart.cart_id, replace(stored, lines=tuple(lines)))

    async def check_out_cart(self, cart: CartRef, order_id: UUID, now: datetime) -> bool:
        stored = self._find_open(cart)
        if stored is None:
            return False
        closed = {"status": CartStatus.CHECKED_OUT, "order_id": order_id}
        self._carts.put(cart.cart_id, stored.change(closed, now))
        return True

    async def claim_carts(self, guest_id: UUID, user_id: UUID) -> None:
        for cart in self._carts.where(lambda cart: cart.user_id == guest_id):
            self._carts.put(cart.cart_id, cart.claimed_by(user_id))

    async def delete_expired_carts(
        self, guests_before: datetime, customers_before: datetime, limit: int
    ) -> int:
        expired = self._carts.where(
            lambda cart: cart.updated_at < (guests_before if cart.is_guest else customers_before)
        )
        return sum(self._carts.remove(cart.cart_id) for cart in islice(expired, limit))

    def _find_open(self, ref: CartRef) -> Cart | None:
        stored = self._carts.get(ref.cart_id)
        is_current = stored and stored.version == ref.version and stored.status is CartStatus.OPEN
        return stored if is_current else None
