"""Helpers of the tests of carts."""

from typing import Any
from uuid import UUID

from markethall.orders.carts.contract import (
    CartChange,
    CartLineChange,
    CartPrecondition,
    CartView,
    CheckOutCart,
    NewCart,
)
from markethall.orders.contract import OrderView
from markethall.shared.idempotency.records import IdempotentCommand
from markethall.shared.kernel.call_context import Actor, CallContext
from markethall.shared.kernel.ids import new_id
from markethall.shared.kernel.scopes import GUEST_SCOPES
from tests.orders.conftest import OrdersApp, attempt_without_key
from tests.orders.test_router import order_client

__all__ = ["order_client"]  # a fixture

ANY_VERSION = CartPrecondition(is_given=False, expected_versions=None)


def at_version(*versions: int) -> CartPrecondition:
    return CartPrecondition(is_given=True, expected_versions=frozenset(versions))


def guest_context() -> CallContext:
    actor = Actor(user_id=new_id(), is_guest=True, scopes=GUEST_SCOPES)
    return CallContext(actor=actor, request_id="test")


def lines_of(*lines: tuple[UUID, int]) -> list[dict[str, Any]]:
    return [{"product_id": product_id, "quantity": quantity} for product_id, quantity in lines]


async def create_cart(
    app: OrdersApp,
    *lines: tuple[UUID, int],
    ctx: CallContext | None = None,
    **fields: Any,
) -> CartView:
    command = NewCart.model_validate({"lines": lines_of(*lines), **fields})
    return await app.container.carts().create(ctx or app.buyer, command, attempt_without_key())


async def get_cart(app: OrdersApp, cart: CartView, ctx: CallContext | None = None) -> CartView:
    return await app.container.carts().get(ctx or app.buyer, cart.cart_id)


async def change_cart(
    app: OrdersApp,
    cart: CartView,
    ctx: CallContext | None = None,
    precondition: CartPrecondition = ANY_VERSION,
    **fields: Any,
) -> CartView:
    change = CartChange.model_validate(fields)
    return await app.container.carts().change(ctx or app.buyer, cart.cart_id, change, precondition)


async def set_line(
    app: OrdersApp,
    cart: CartView,
    product_id: UUID,
    quantity: int,
    ctx: CallContext | None = None,
    precondition: CartPrecondition = ANY_VERSION,
) -> CartView:
    change = CartLineChange(quantity=quantity)
    return await app.container.carts().set_line(
        ctx or app.buyer, cart.cart_id, product_id, change, precondition
    )


async def check_out(
    app: OrdersApp,
    cart: CartView,
    ctx: CallContext | None = None,
    attempt: IdempotentCommand | None = None,
    **fields: Any,
) -> OrderView:
    command = CheckOutCart.model_validate(fields)
    return await app.container.cart_checkouts().check_out(
        ctx or app.buyer, cart.cart_id, command, ANY_VERSION, attempt or attempt_without_key()
    )


def amounts(cart: CartView) -> dict[UUID, int]:
    return {line.product_id: line.quantity for line in cart.lines}


def readiness(cart: CartView) -> list[tuple[str, str]]:
    return [(problem.code, problem.field) for problem in cart.readiness]
