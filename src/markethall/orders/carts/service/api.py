"""The use cases of carts behind the HTTP API."""

from collections.abc import Callable
from types import MappingProxyType
from typing import Any, Final
from uuid import UUID

from pydantic import TypeAdapter

from markethall.orders.carts.contract import (
    CartChange,
    CartLineChange,
    CartPrecondition,
    CartQuery,
    CartStatus,
    CartSummaryView,
    CartView,
    CartVoucherChange,
    NewCart,
    ShippingOptionsView,
    TooManyCarts,
)
from markethall.orders.carts.domain import Cart, CartLine
from markethall.orders.carts.ports import ReadStore, Store
from markethall.orders.carts.service.editor import CartEditor, CartPolicy, is_owner
from markethall.orders.carts.service.previews import CartPreviews, Preview, require_offers
from markethall.orders.carts.service.views import to_cart_summary_view, to_shipping_options_view
from markethall.orders.configuration.ports import retry_on_conflict
from markethall.shared.idempotency.records import IdempotentCommand
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.clock import Clock
from markethall.shared.kernel.pagination import Cursors, Page
from markethall.shared.persistence.database import Database, ReadDatabase


class CartService:
    """Implementation of `Carts`."""

    def __init__(
        self,
        editor: CartEditor,
        previews: CartPreviews,
        database: Database[ReadStore, Store],
        policy: CartPolicy,
        clock: Clock,
    ) -> None:
        self._editor = editor
        self._previews = previews
        self._database = database
        self._policy = policy
        self._clock = clock

    async def create(
        self, ctx: CallContext, command: NewCart, attempt: IdempotentCommand
    ) -> CartView:
        product_ids = [line.product_id for line in command.lines]
        offers = await self._previews.list_offers(ctx, product_ids, command.currency)
        require_offers(offers, product_ids)
        lines = [
            CartLine.from_offer(offers[line.product_id], line.quantity) for line in command.lines
        ]
        cart = self._new_cart(ctx, command, attempt.id, tuple(lines))
        preview = await self._previews.price_cart(cart, offers)
        preview.require_currency()
        return await self._insert(cart, preview, attempt)

    def _new_cart(
        self, ctx: CallContext, command: NewCart, cart_id: UUID, lines: tuple[CartLine, ...]
    ) -> Cart:
        now = self._clock()
        return Cart(
            cart_id=cart_id,
            user_id=ctx.user_id,
            is_guest=ctx.actor.is_guest,
            created_at=now,
            updated_at=now,
            lines=lines,
            **_given_fields(command),
        )

    async def _insert(self, cart: Cart, preview: Preview, attempt: IdempotentCommand) -> CartView:
        async with self._database.transaction() as store:
            cart = await _follow_claim(store, cart)
            await store.lock_cart_owner(cart.user_id)
            existing = await store.get_cart(cart.cart_id)
            if existing is None:
                if await store.count_open_carts(cart.user_id) >= self._policy.max_open_carts:
                    raise TooManyCarts(limit=self._policy.max_open_carts)
                await store.add_cart(cart)
            view = self._editor.view(existing or cart, preview)
            await store.store_response(attempt, view)
        return view

    async def get(self, ctx: CallContext, cart_id: UUID) -> CartView:
        cart = await self._editor.read(ctx, cart_id)
        preview = await self._previews.preview(ctx, cart)
        looked, changes = cart.look(preview.offers)
        if is_owner(ctx, cart) and cart.status is CartStatus.OPEN:
            await self._editor.store(cart, looked)
        return self._editor.view(cart, preview, changes)

    @retry_on_conflict
    async def change(
        self, ctx: CallContext, cart_id: UUID, change: CartChange, precondition: CartPrecondition
    ) -> CartView:
        cart = await self._editor.read_for_change(ctx, cart_id, precondition)
        changed = cart.change(_given_fields(change), self._clock())
        preview = await self._previews.preview(ctx, changed)
        if changed.currency != cart.currency:
            preview.require_currency()
        return await self._editor.save(cart, changed, preview)

    @retry_on_conflict
    async def set_line(
        self,
        ctx: CallContext,
        cart_id: UUID,
        product_id: UUID,
        change: CartLineChange,
        precondition: CartPrecondition,
    ) -> CartView:
        cart = await self._editor.read_for_change(ctx, cart_id, precondition)
        is_new = product_id not in cart.product_ids
        product_ids = {*cart.product_ids, product_id}
        offers = await self._previews.list_offers(ctx, product_ids, cart.currency)
        require_offers(offers, [product_id])
        changed = cart.set_line(offers[product_id], change.quantity, self._clock())
        preview = await self._previews.price_cart(changed, offers)
        if is_new:
            preview.require_currency()
        return await self._editor.save(cart, changed, preview)

    async def remove_line(
        self, ctx: CallContext, cart_id: UUID, product_id: UUID, precondition: CartPrecondition
    ) -> int:
        return await self._edit(
            ctx, cart_id, precondition, lambda cart: cart.remove_line(product_id, self._clock())
        )

    @retry_on_conflict
    async def set_voucher(
        self,
        ctx: CallContext,
        cart_id: UUID,
        change: CartVoucherChange,
        precondition: CartPrecondition,
    ) -> CartView:
        cart = await self._editor.read_for_change(ctx, cart_id, precondition)
        changed = cart.change({"voucher_code": change.code}, self._clock())
        preview = await self._previews.preview(ctx, changed)
        preview.require_voucher()
        return await self._editor.save(cart, changed, preview)

    async def remove_voucher(
        self, ctx: CallContext, cart_id: UUID, precondition: CartPrecondition
    ) -> int:
        return await self._edit(
            ctx,
            cart_id,
            precondition,
            lambda cart: cart.change({"voucher_code": None}, self._clock()),
        )

    async def list_shipping_options(self, ctx: CallContext, cart_id: UUID) -> ShippingOptionsView:
        cart = await self._editor.read(ctx, cart_id)
        return to_shipping_options_view(await self._previews.preview(ctx, cart))

    @retry_on_conflict
    async def _edit(
        self,
        ctx: CallContext,
        cart_id: UUID,
        precondition: CartPrecondition,
        edit: Callable[[Cart], Cart],
    ) -> int:
        """Change the cart without a read of prices. Return its version."""
        cart = await self._editor.read_for_change(ctx, cart_id, precondition)
        changed = edit(cart)
        await self._editor.store(cart, changed)
        return changed.version


async def _follow_claim(store: Store, cart: Cart) -> Cart:
    """Return the cart. If a user has claimed the guest who owned it, set this user as the owner.

    The row lock serializes this transaction and the handler of the claim. Either the handler waits
    for this commit and then finds the cart, or this transaction finds the claim.
    """
    if not cart.is_guest:
        return cart
    user_id = await store.get_guest_owner_for_update(cart.user_id)
    return cart.claimed_by(user_id) if user_id else cart


def _given_fields(change: CartChange) -> dict[str, Any]:
    """Return the fields of a cart that the request contains."""
    names = change.model_fields_set - {"lines"}
    fields: dict[str, Any] = {name: getattr(change, name) for name in sorted(names)}
    if "metadata" in fields:
        fields["metadata"] = MappingProxyType(dict(fields["metadata"] or {}))
    return fields


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
