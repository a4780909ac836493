"""Read orders as their owner or as staff."""

from uuid import UUID

from markethall.orders.contract import OrderNotFound
from markethall.orders.domain import Order
from markethall.orders.ports import ReadStore
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.errors import Forbidden
from markethall.shared.kernel.scopes import ORDERS_MANAGE


async def get_visible_order(store: ReadStore, ctx: CallContext, order_id: UUID) -> Order:
    """Raises OrderNotFound when the order does not exist or the caller may not see it."""
    order = await store.get_order(order_id)
    if order is None or not ctx.can_view_order(order_id, order.user_id, ORDERS_MANAGE):
        raise OrderNotFound(order_id=str(order_id))
    return order


def is_staff(ctx: CallContext) -> bool:
    return ctx.actor.has_scope(ORDERS_MANAGE)


def check_staff(ctx: CallContext) -> None:
    """Raises Forbidden."""
    if not is_staff(ctx):
        raise Forbidden(scope=ORDERS_MANAGE)
