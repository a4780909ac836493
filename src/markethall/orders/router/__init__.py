"""HTTP API of orders."""

from fastapi import APIRouter

from markethall.orders.router import fulfilments, order_changes, orders
from markethall.orders.shipping import router as shipping
from markethall.orders.shop import router as shop
from markethall.orders.tax import router as tax

router = APIRouter()
for module in (orders, order_changes, fulfilments, shop, shipping, tax):
    router.routes.extend(module.router.routes)
