"""What the world may ask of inventory."""

from fastapi import APIRouter

from markethall.inventory.catalogue.router import categories, products
from markethall.inventory.imports import router as imports
from markethall.inventory.stock.router import stock, warehouses

router = APIRouter()
router.include_router(products.router)
router.include_router(categories.router)
router.include_router(stock.router)
router.include_router(warehouses.router)
router.include_router(imports.router)

__all__ = ["router"]
