"""Inventory, in this process."""

from markethall.inventory.service.cached import CachedProducts
from markethall.inventory.service.catalogue import CatalogueService
from markethall.inventory.service.categories import CategoryService
from markethall.inventory.service.families import FamilyPages
from markethall.inventory.service.holds import ExpiredHolds
from markethall.inventory.service.importing import Importer
from markethall.inventory.service.imports import ImportService
from markethall.inventory.service.lists import NoSearchIndex, ProductLists
from markethall.inventory.service.plans import Plans
from markethall.inventory.service.reservations import InventoryService
from markethall.inventory.service.stock import StockroomService
from markethall.inventory.service.warehouses import WarehouseService

__all__ = [
    "CachedProducts",
    "CatalogueService",
    "CategoryService",
    "ExpiredHolds",
    "FamilyPages",
    "ImportService",
    "Importer",
    "InventoryService",
    "NoSearchIndex",
    "Plans",
    "ProductLists",
    "StockroomService",
    "WarehouseService",
]
