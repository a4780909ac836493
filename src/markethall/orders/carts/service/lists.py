"""List the carts of an owner."""

from typing import Final
from uuid import UUID

from pydantic import TypeAdapter

from markethall.orders.carts.contract import CartQuery, CartSummaryView
from markethall.orders.carts.ports import ReadStore
from markethall.orders.carts.service.access import CartPolicy
from markethall.orders.carts.service.views import to_cart_summary_view
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.pagination import Cursors, Page
from markethall.shared.persistence.database import ReadDatabase

_CART_ID: Final = TypeAdapter(UUID)


class CartListService:
    """Implementation of `CartLists`."""

    def __init__(
        self, database: ReadDatabase[ReadStore], policy: CartPolicy, cursors: Cursors
    ) -> None:
        self._database = database
        self._policy = policy
        self._cursors = cursors

    async def list_page(self, ctx: CallContext, query: CartQuery) -> Page[CartSummaryView]:
        listing = f"carts {ctx.user_id} {query.status}"
        after = self._cursors.decode(listing, query.cursor, _CART_ID)
        async with self._database.read_session() as store:
            carts = await store.list_carts(ctx.user_id, query.status, after, query.limit + 1)
        views = [to_cart_summary_view(cart, self._policy.expires_at(cart)) for cart in carts]
        return self._cursors.build_page(listing, views, query.limit, lambda view: view.cart_id)
