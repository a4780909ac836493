"""What is kept."""

from datetime import datetime
from uuid import UUID

from markethall.inventory.catalogue.domain.categories import Category
from markethall.inventory.catalogue.domain.products import Product
from markethall.inventory.imports.domain.file_records import RowError
from markethall.inventory.imports.domain.jobs import ImportJob
from markethall.inventory.reservations.domain.reservations import Reservation
from markethall.inventory.search.domain import SearchDocument
from markethall.inventory.stock.contract.movements import Movement
from markethall.inventory.stock.domain.stock import Stock
from markethall.inventory.stock.domain.warehouses import MAIN_WAREHOUSE, Warehouse
from markethall.shared.composition.memory import ContextTables
from markethall.shared.persistence.memory import Table

StockKey = tuple[UUID, UUID]  # product and warehouse


class Tables(ContextTables):
    def __init__(self) -> None:
        super().__init__()
        self.products: Table[UUID, Product] = Table()
        self.product_ids_by_sku: Table[str, UUID] = Table()
        self.categories: Table[str, Category] = Table()
        self.search_documents: Table[UUID, SearchDocument] = Table()
        main = Warehouse(MAIN_WAREHOUSE, "Main")
        self.warehouses: Table[UUID, Warehouse] = Table(rows={MAIN_WAREHOUSE: main})
        self.stock: Table[StockKey, Stock] = Table()
        # the warehouses that a product has a shelf in, in the order of their ids
        self.warehouse_ids_by_product: Table[UUID, tuple[UUID, ...]] = Table()
        self.movements: Table[UUID, Movement] = Table()
        # the ids of a product's movements, the oldest first
        self.movement_ids_by_product: Table[UUID, tuple[UUID, ...]] = Table()
        # the ids of the movements that a fulfilment, transfer or stocktake has made
        self.movement_ids_by_reference: Table[UUID, tuple[UUID, ...]] = Table()
        self.reservations: Table[UUID, Reservation] = Table()
        self.reservation_ids_by_order: Table[UUID, tuple[UUID, ...]] = Table()
        # which parts of reservations were given back
        self.part_releases: Table[UUID, UUID] = Table()
        # which reservations of a customer are held
        self.held_ids_by_customer: Table[UUID, frozenset[UUID]] = Table()
        # which reservations are held: those that have this product, and under None all of them
        self.held_ids_by_product: Table[UUID | None, frozenset[UUID]] = Table()
        # files on their way in, in parts; imports, and what was wrong with their rows, by number
        self.uploads: Table[UUID, tuple[UUID, datetime]] = Table()
        self.upload_parts: Table[tuple[UUID, int], bytes] = Table()
        self.import_jobs: Table[UUID, ImportJob] = Table()
        self.row_errors: Table[tuple[UUID, int], RowError] = Table()
