"""Helpers of the tests of promotions."""

from typing import Any
from uuid import UUID

from markethall.orders.promotions.contract import NewPromotion, PromotionView
from markethall.shared.kernel.call_context import CallContext
from tests.orders.conftest import STAFF, OrdersApp, attempt_without_key, order_command

TEN_PERCENT = {"name": "Spring", "kind": "percent", "percent": "10"}


def promotion(**fields: Any) -> NewPromotion:
    return NewPromotion.model_validate(TEN_PERCENT | fields)


def voucher(code: str = "SPRING", **fields: Any) -> NewPromotion:
    return promotion(code=code, **fields)


async def create(orders_app: OrdersApp, fields: NewPromotion) -> PromotionView:
    return await orders_app.container.promotions().create(STAFF, fields, attempt_without_key())


async def read(orders_app: OrdersApp, made: PromotionView) -> PromotionView:
    return await orders_app.container.promotions().get(STAFF, made.promotion_id)


async def place_by(orders_app: OrdersApp, buyer: CallContext, product_id: UUID, **more: Any) -> Any:
    return await orders_app.orders.place(
        buyer, order_command(product_id, **more), attempt_without_key()
    )
