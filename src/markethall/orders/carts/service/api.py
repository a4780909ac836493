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
)
from markethall.orders.carts.domain import Cart, CartLine
from markethall.orders.carts.service.editor import CartEditor, is_owner
from markethall.orders.carts.service.previews import CartPreviews, require_offers
from markethall.orders.carts.service.views import to_shipping_options_view
from markethall.orders.configuration.ports import retry_on_conflict
from markethall.shared.idempotency.records import IdempotentCommand
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.clock import Clock
from markethall.shared.kernel.pagination import Cursors, Page


class CartService:
    """Implementation of `Carts`."""

    def __init__(
        self,
        editor: CartEditor,
        previews: CartPreviews,
        cursors: Cursors,
        clock: Clock,
    ) -> None:
        self._editor = editor
        self._previews = previews
        self._cursors = cursors
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
        return await self._editor.add(cart, preview, attempt)

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

    async def list_page(self, ctx: CallContext, query: CartQuery) -> Page[CartSummaryView]:
        listing = f"carts {ctx.user_id} {query.status}"
        after = self._cursors.decode(listing, query.cursor, _CART_ID)
        views = await self._editor.list_own(ctx, query.status, after, query.limit + 1)
        return self._cursors.build_page(listing, views, query.limit, lambda view: view.cart_id)

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


def _given_fields(change: CartChange) -> dict[str, Any]:
    """Return the fields of a cart that the request contains."""
    names = change.model_fields_set - {"lines"}
    fields: dict[str, Any] = {name: getattr(change, name) for name in sorted(names)}
    if "metadata" in fields:
        fields["metadata"] = MappingProxyType(dict(fields["metadata"] or {}))
    return fields


_CART_ID: Final = TypeAdapter(UUID)
