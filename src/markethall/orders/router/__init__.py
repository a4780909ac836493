"""HTTP API of orders."""

from fastapi import APIRouter

from markethall.orders.carts import router as carts
from markethall.orders.drafts import router as drafts
from markethall.orders.promotions import router as promotions
from markethall.orders.router import (
    exports,
    fulfilments,
    invoices,
    lookups,
    order_changes,
    order_edits,
    orders,
    returns,
    status_streams,
)
from markethall.orders.shipping import router as shipping
from markethall.orders.shop import router as shop
from markethall.orders.tax import router as tax

router = APIRouter()
# the export comes before the route of an order, whose path also matches
for module in (
    *(exports, lookups, orders, order_changes, order_edits, status_streams, invoices, fulfilments),
    *(carts, drafts, returns, shop, shipping, tax, promotions),
):
    router.routes.extend(module.router.routes)
