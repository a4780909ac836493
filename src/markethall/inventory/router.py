from fastapi import APIRouter

from markethall.inventory.catalogue.router import categories, families, products
from markethall.inventory.imports import router as imports
from markethall.inventory.media import router as media
from markethall.inventory.reservations import router as reservations
from markethall.inventory.search import router as search
from markethall.inventory.stock.router import stock, warehouses

router = APIRouter()
for module in (
    search,
    products,
    families,
    categories,
    stock,
    reservations,
    warehouses,
    imports,
    media,
):
    router.routes.extend(module.router.routes)
