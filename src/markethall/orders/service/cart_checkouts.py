"""Check out a cart: place an order with its lines, and close it in the same transaction."""

from uuid import UUID

from markethall.orders.carts.contract import (
    CartClosed,
    CartNotReady,
    CartPrecondition,
    CheckOutCart,
)
from markethall.orders.carts.domain import Cart, find_missing_fields
from markethall.orders.carts.ports import ReadStore
from markethall.orders.carts.service.editor import check_precondition, get_own_cart
from markethall.orders.contract import OrderLineRequest, OrderView, PlaceOrder
from markethall.orders.service.checkout import Checkout
from markethall.orders.service.checkout_parts import CartSource
from markethall.shared.idempotency.records import IdempotentCommand
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.errors import DomainError, Unavailable
from markethall.shared.persistence.database import ReadDatabase


class CartCheckoutService:
    """Implementation of `CartCheckouts`.

    The order has the lines of the version of the cart that is read here. The transaction of the
    order closes the cart only if it still has this version, so the customer never gets an order of
    other lines. Checkouts of the same cart may reserve stock at the same time; one of them closes
    the cart, and each other one releases its reservation.
    """

    def __init__(self, checkout: Checkout, database: ReadDatabase[ReadStore]) -> None:
        self._checkout = checkout
        self._database = database

    async def check_out(
        self,
        ctx: CallContext,
        cart_id: UUID,
        command: CheckOutCart,
        precondition: CartPrecondition,
        attempt: IdempotentCommand,
    ) -> OrderView:
        async with self._database.read_session() as store:
            cart = await get_own_cart(store, ctx, cart_id)
        # if the ids are equal, an earlier attempt has placed the order
        if cart.order_id != attempt.id:
            check_precondition(ctx, cart, precondition)
            cart.require_open()
            _require_complete(cart)
        try:
            return await self._checkout.place(
                ctx, _to_place_order(cart, command), attempt, CartSource(cart.ref)
            )
        except (CartClosed, Unavailable):
            raise
        except DomainError:
            # if another checkout of the same cart has reserved the missing stock, the error is
            # CartClosed
            await self._require_open(ctx, cart_id)
            raise

    async def _require_open(self, ctx: CallContext, cart_id: UUID) -> None:
        """Raises CartClosed."""
        async with self._database.read_session() as store:
            cart = await store.get_cart(cart_id)
        if cart:
            cart.require_open()


def _require_complete(cart: Cart) -> None:
    """Raises CartNotReady."""
    problems = [problem.model_dump() for problem in find_missing_fields(cart)]
    if problems:
        raise CartNotReady(readiness=problems)


def _to_place_order(cart: Cart, command: CheckOutCart) -> PlaceOrder:
    return PlaceOrder.model_validate(
        {
            "lines": tuple(
                OrderLineRequest(product_id=line.product_id, quantity=line.quantity)
                for line in cart.lines
            ),
            "shipping_address": cart.shipping_address,
            "billing_address": cart.billing_address,
            "currency": cart.currency,
            "shipping_method": cart.shipping_method,
            "voucher_code": cart.voucher_code,
            "payment_method": command.payment_method,
            "expected_total": command.expected_total,
            "note": cart.note,
            "email": cart.email,
        }
    )
