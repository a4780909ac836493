"""HTTP API of orders."""

from fastapi import APIRouter

from markethall.orders.carts import router as carts
from markethall.orders.drafts import router as drafts
from markethall.orders.promotions import router as promotions
from markethall.orders.router import (
    fulfilments,
    invoices,
    order_edits,
    orders,
    returns,
    status_streams,
)
from markethall.orders.shipping import router as shipping
from markethall.orders.shop import router as shop
from markethall.orders.tax import router as tax

router = APIRouter()
for module in (
    *(orders, order_edits, status_streams, invoices, fulfilments),
    *(carts, drafts, returns, shop, shipping, tax, promotions),
):
    router.routes.extend(module.router.routes)
