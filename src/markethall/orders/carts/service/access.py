"""The checks of owners and versions of carts, and the limits of carts."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from markethall.orders.carts.contract import CartNotFound, CartPrecondition
from markethall.orders.carts.domain import Cart
from markethall.orders.carts.ports import ReadStore
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.errors import PreconditionRequired
from markethall.shared.kernel.etags import check_expected_version
from markethall.shared.kernel.scopes import ORDERS_MANAGE


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
