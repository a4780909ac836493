"""Change a cart with optimistic concurrency, and show it with current prices."""

from collections.abc import Sequence
from uuid import UUID

from markethall.orders.carts.contract import CartPrecondition, CartStatus, CartView, LineChangeView
from markethall.orders.carts.domain import Cart
from markethall.orders.carts.ports import ReadStore, Store
from markethall.orders.carts.service.access import CartPolicy, check_precondition, get_visible_cart
from markethall.orders.carts.service.previews import Preview
from markethall.orders.carts.service.views import to_cart_view
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.persistence.database import Database


class CartEditor:
    def __init__(self, database: Database[ReadStore, Store], policy: CartPolicy) -> None:
        self._database = database
        self._policy = policy

    async def read(self, ctx: CallContext, cart_id: UUID) -> Cart:
        """Raises CartNotFound."""
        async with self._database.read_session() as store:
            return await get_visible_cart(store, ctx, cart_id)

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
