"""The checks of owners and versions of carts, and changes with optimistic concurrency."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from markethall.orders.carts.contract import (
    CartNotFound,
    CartPrecondition,
    CartStatus,
    CartSummaryView,
    CartView,
    LineChangeView,
    TooManyCarts,
)
from markethall.orders.carts.domain import Cart
from markethall.orders.carts.ports import ReadStore, Store
from markethall.orders.carts.service.previews import Preview
from markethall.orders.carts.service.views import to_cart_summary_view, to_cart_view
from markethall.shared.idempotency.records import IdempotentCommand
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.errors import PreconditionRequired
from markethall.shared.kernel.etags import check_expected_version
from markethall.shared.kernel.scopes import ORDERS_MANAGE
from markethall.shared.persistence.database import Database


@dataclass(frozen=True)
class CartPolicy:
    """The largest number of open carts per owner, and how long unchanged carts are kept."""

    max_open_carts: int
    guest_retention: timedelta
    customer_retention: timedelta

    def expires_at(self, cart: Cart) -> datetime:
        retention = self.guest_retention if cart.is_guest else self.customer_retention
        return cart.updated_at + retention


def is_owner(ctx: CallContext, cart: Cart) -> bool:
    return ctx.actor.user_id == cart.user_id


async def get_visible_cart(store: ReadStore, ctx: CallContext, cart_id: UUID) -> Cart:
    """Raises CartNotFound when the cart does not exist or the caller may not see it."""
    cart = await store.get_cart(cart_id)
    if cart is None or not ctx.can_view(cart.user_id, ORDERS_MANAGE):
        raise CartNotFound(cart_id=str(cart_id))
    return cart


async def get_own_cart(store: ReadStore, ctx: CallContext, cart_id: UUID) -> Cart:
    """Raises CartNotFound when the cart does not exist or belongs to another owner."""
    cart = await store.get_cart(cart_id)
    if cart is None or not is_owner(ctx, cart):
        raise CartNotFound(cart_id=str(cart_id))
    return cart


def check_precondition(ctx: CallContext, cart: Cart, precondition: CartPrecondition) -> None:
    """Raises PreconditionFailed; PreconditionRequired if staff change the cart of others."""
    if not (precondition.is_given or is_owner(ctx, cart)):
        raise PreconditionRequired
    check_expected_version(precondition.expected_versions, cart.version)


class CartEditor:
    def __init__(self, database: Database[ReadStore, Store], policy: CartPolicy) -> None:
        self._database = database
        self._policy = policy

    async def read(self, ctx: CallContext, cart_id: UUID) -> Cart:
        """Raises CartNotFound."""
        async with self._database.read_session() as store:
            return await get_visible_cart(store, ctx, cart_id)

    async def add(self, cart: Cart, preview: Preview, attempt: IdempotentCommand) -> CartView:
        """Add a new cart, and store the response. Raises TooManyCarts."""
        async with self._database.transaction() as store:
            cart = await _follow_claim(store, cart)
            await store.lock_cart_owner(cart.user_id)
            existing = await store.get_cart(cart.cart_id)
            if existing is None:
                if await store.count_open_carts(cart.user_id) >= self._policy.max_open_carts:
                    raise TooManyCarts(limit=self._policy.max_open_carts)
                await store.add_cart(cart)
            view = self.view(existing or cart, preview)
            await store.store_response(attempt, view)
        return view

    async def list_own(
        self, ctx: CallContext, status: CartStatus | None, after: UUID | None, limit: int
    ) -> list[CartSummaryView]:
        async with self._database.read_session() as store:
            carts = await store.list_carts(ctx.user_id, status, after, limit)
        return [to_cart_summary_view(cart, self._policy.expires_at(cart)) for cart in carts]

    async def read_for_change(
        self, ctx: CallContext, cart_id: UUID, precondition: CartPrecondition
    ) -> Cart:
        """Raises CartNotFound, CartClosed, PreconditionFailed, PreconditionRequired."""
        cart = await self.read(ctx, cart_id)
        check_precondition(ctx, cart, precondition)
        cart.require_open()
        return cart

    async def save(self, cart: Cart, changed: Cart, preview: Preview) -> CartView:
        """Save the cart if it has changed. Raises ConcurrentUpdate."""
        looked, changes = changed.look(preview.offers)
        await self.store(cart, looked)
        return self.view(looked, preview, changes)

    async def store(self, cart: Cart, changed: Cart) -> None:
        """Raises ConcurrentUpdate."""
        if changed.version == cart.version and changed == cart:
            return
        # a single statement, so no transaction is needed
        async with self._database.autocommit() as store:
            if changed.version == cart.version:
                await store.record_look(changed)
            else:
                await store.save_cart(changed)

    def view(
        self, cart: Cart, preview: Preview, changes: Sequence[LineChangeView] = ()
    ) -> CartView:
        shown = changes if cart.status is CartStatus.OPEN else ()
        return to_cart_view(cart, preview, shown, self._policy.expires_at(cart))


async def _follow_claim(store: Store, cart: Cart) -> Cart:
    """Return the cart. If a user has claimed the guest who owned it, set this user as the owner.

    The row lock serializes this transaction and the handler of the claim. Either the handler waits
    for this commit and then finds the cart, or this transaction finds the claim.
    """
    if not cart.is_guest:
        return cart
    user_id = await store.get_guest_owner_for_update(cart.user_id)
    return cart.claimed_by(user_id) if user_id else cart
