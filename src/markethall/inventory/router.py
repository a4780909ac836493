from fastapi import APIRouter

from markethall.inventory.catalogue.router import categories, products
from markethall.inventory.imports import router as imports
from markethall.inventory.media import router as media
from markethall.inventory.reservations import router as reservations
from markethall.inventory.search import router as search
from markethall.inventory.stock import router as stock

router = APIRouter()
for part in (
    search.router,
    products.router,
    categories.router,
    stock.router,
    reservations.router,
    stock.warehouses_router,
    imports.router,
    media.router,
):
    router.routes.extend(part.routes)
