"""Ports of carts: storage, and the verification of guest tokens."""

from collections.abc import Awaitable, Sequence
from datetime import datetime
from typing import Protocol
from uuid import UUID

from markethall.orders.carts.contract import CartStatus
from markethall.orders.carts.domain import Cart, CartRef
from markethall.shared.idempotency.records import ResponseStore
from markethall.shared.kernel.call_context import Actor


class ReadStore(Protocol):
    """Reads without locks."""

    async def get_cart(self, cart_id: UUID) -> Cart | None: ...

    async def list_carts(
        self, user_id: UUID, status: CartStatus | None, after: UUID | None, limit: int
    ) -> Sequence[Cart]:
        """Return the carts of the owner with ids before `after`, sorted by descending id.

        The ids are sorted by the time at which the carts were created.
        """


class Store(ReadStore, ResponseStore, Protocol):
    """Reads and writes of one transaction."""

    async def lock_cart_owner(self, user_id: UUID) -> None:
        """Wait until no other transaction has locked this owner, and lock the owner.

        The lock prevents concurrent transactions from passing the limit of open carts together.
        """

    async def count_open_carts(self, user_id: UUID) -> int: ...

    async def add_cart(self, cart: Cart) -> bool:
        """Insert the cart. Return False if its id exists."""

    async def save_cart(self, cart: Cart) -> None:
        """Update the cart and its lines, if its stored version is the previous one and it is open.

        Raises ConcurrentUpdate.
        """

    async def record_look(self, cart: Cart) -> None:
        """Store the offers that the owner saw last. The version and the quantities stay."""

    async def check_out_cart(self, cart: CartRef, order_id: UUID, now: datetime) -> bool:
        """Close the cart if it is open and has this version. Else return False."""

    async def claim_carts(self, guest_id: UUID, user_id: UUID) -> None:
        """Change the owner of all carts of the guest. The versions stay."""

    async def delete_expired_carts(
        self, guests_before: datetime, customers_before: datetime, limit: int
    ) -> int:
        """Delete carts that were last changed before these times. Return their number.

        Skip carts that another transaction has locked.
        """

    async def get_guest_owner_for_update(self, guest_id: UUID) -> UUID | None:
        """Return the user who has claimed the guest, or None; lock the guest until the commit."""


class VerifyAccessToken(Protocol):
    def __call__(self, token: str, /) -> Awaitable[Actor]:
        """Return the actor of an access token. Raises Unauthenticated, Unavailable."""
