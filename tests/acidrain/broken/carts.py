"""Broken checkouts of carts, which read and write the cart in separate transactions."""

from uuid import UUID

from markethall.orders.carts.contract import CartNotFound
from markethall.orders.carts.domain import Cart
from markethall.orders.contract import OrderLineRequest, OrderView, PlaceOrder
from markethall.orders.domain import AuditInfo
from markethall.orders.service.checkout import Checkout
from markethall.orders.service.checkout_parts import CartSource, DraftSource
from markethall.orders.service.quotes import quote_request
from markethall.payments.contract import OpenPayment, PaymentSummary
from markethall.shared.idempotency.records import IdempotentCommand
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.ids import derive_uuid7


class CloseCartLater(Checkout):
    """Places the order in one transaction, and closes its cart in another.

    The check that the cart is open is in an earlier transaction, before the order.
    """

    async def place(
        self,
        ctx: CallContext,
        command: PlaceOrder,
        attempt: IdempotentCommand,
        source: CartSource | DraftSource | None = None,
    ) -> OrderView:
        other = None if isinstance(source, CartSource) else source
        order = await super().place(ctx, command, attempt, other)
        if isinstance(source, CartSource):
            async with self._database.transaction() as store:
                await store.check_out_cart(source.ref, order.order_id, self._clock())
        return order


class ChargeThenReadLines(Checkout):
    """Opens the payment for the lines of the cart, then orders the lines of a second read."""

    async def place(
        self,
        ctx: CallContext,
        command: PlaceOrder,
        attempt: IdempotentCommand,
        source: CartSource | DraftSource | None = None,
    ) -> OrderView:
        if not isinstance(source, CartSource):
            return await super().place(ctx, command, attempt, source)
        cart = await self._get_cart(source.ref.cart_id)
        payment = await self._open_payment(ctx, cart, attempt.id)
        cart_after_charge = await self._get_cart(cart.cart_id)
        command = command.model_copy(update={"lines": _order_lines(cart_after_charge)})
        reservation = await self._inventory.reserve(
            ctx, self._reserve_command(ctx, command, attempt.id)
        )
        quote = await self._pricing.quote(quote_request(ctx, command, reservation))
        order = self._build_order(ctx, command, reservation, quote, payment)
        order.email, order.is_guest, order.cart_id = command.email or "", True, cart.cart_id
        order.mark_placed(AuditInfo(ctx.actor.audit_name, order.created_at))
        return await self._persist(ctx, order, attempt, CartSource(cart_after_charge.ref))

    async def _get_cart(self, cart_id: UUID) -> Cart:
        async with self._database.read_session() as store:
            cart = await store.get_cart(cart_id)
        if cart is None:
            raise CartNotFound(cart_id=str(cart_id))
        return cart

    async def _open_payment(self, ctx: CallContext, cart: Cart, order_id: UUID) -> PaymentSummary:
        priced = PlaceOrder(lines=_order_lines(cart), shipping_address=cart.shipping_address or "")
        reservation = await self._inventory.reserve(
            ctx, self._reserve_command(ctx, priced, derive_uuid7(order_id, "price"))
        )
        quote = await self._pricing.quote(quote_request(ctx, priced, reservation))
        return await self._payments.open(
            ctx,
            OpenPayment(
                payment_id=derive_uuid7(order_id, "payment"),
                order_id=order_id,
                user_id=ctx.user_id,
                amount=quote.total,
                expires_at=reservation.expires_at,
                country=None,
            ),
        )


def _order_lines(cart: Cart) -> tuple[OrderLineRequest, ...]:
    return tuple(
        OrderLineRequest(product_id=line.product_id, quantity=line.quantity) for line in cart.lines
    )
