"""Change a cart with optimistic concurrency, and show it with current prices."""

from collections.abc import Callable, Coroutine, Sequence
from functools import wraps
from typing import Any, ParamSpec, TypeVar
from uuid import UUID

from markethall.orders.carts.contract import CartPrecondition, CartStatus, CartView
from markethall.orders.carts.domain import Cart, LineChange
from markethall.orders.carts.ports import ConcurrentCartUpdate, ReadStore, Store
from markethall.orders.carts.service.access import (
    CartPolicy,
    check_precondition,
    get_visible_cart,
)
from markethall.orders.carts.service.previews import Preview
from markethall.orders.carts.service.views import to_cart_view
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.persistence.database import Database

P = ParamSpec("P")
T = TypeVar("T")


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
        """Save the cart if it has changed. Raises ConcurrentCartUpdate."""
        looked, changes = changed.look(preview.offers)
        await self.store(cart, looked)
        return self.view(looked, preview, changes)

    async def store(self, cart: Cart, changed: Cart) -> None:
        """Raises ConcurrentCartUpdate."""
        if changed.version == cart.version and changed == cart:
            return
        # a single statement, so no transaction is needed
        async with self._database.autocommit() as store:
            if changed.version == cart.version:
                await store.record_look(changed)
            else:
                await store.save_cart(changed)

    def view(self, cart: Cart, preview: Preview, changes: Sequence[LineChange] = ()) -> CartView:
        shown = changes if cart.status is CartStatus.OPEN else ()
        return to_cart_view(cart, preview, shown, self._policy.expires_at(cart))


def retry_on_conflict(
    change: Callable[P, Coroutine[Any, Any, T]],
) -> Callable[P, Coroutine[Any, Any, T]]:
    """Let the function repeat until it does not raise ConcurrentCartUpdate. It must read the cart.

    There is no limit, because each conflict means that another change of the cart succeeded.
    """

    @wraps(change)
    async def repeat(*args: P.args, **kwargs: P.kwargs) -> T:
        while True:
            try:
                return await change(*args, **kwargs)
            except ConcurrentCartUpdate:
                continue

    return repeat
