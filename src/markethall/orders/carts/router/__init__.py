"""HTTP API of carts."""

from fastapi import APIRouter

from markethall.orders.carts.router import carts, checkout, lines

router = APIRouter()
for module in (carts, lines, checkout):
    router.routes.extend(module.router.routes)
