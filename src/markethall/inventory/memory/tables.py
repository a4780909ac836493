"""What is kept."""

from datetime import datetime
from uuid import UUID

from markethall.inventory.contract import Movement
from markethall.inventory.domain import (
    MAIN_WAREHOUSE,
    Branch,
    Depot,
    Hold,
    Item,
    SearchText,
    Stock,
)
from markethall.inventory.domain.importing import Flaw, Job
from markethall.shared.memory import CommonTables, Table

Shelf = tuple[UUID, UUID]  # product and warehouse


class Tables(CommonTables):
    def __init__(self) -> None:
        super().__init__()
        self.items: Table[UUID, Item] = Table()
        self.skus: Table[str, UUID] = Table()
        self.categories: Table[str, Branch] = Table()
        # the words by which products are found, and those that a mistyped one may have been
        self.texts: Table[UUID, SearchText] = Table()
        self.vocabulary: Table[str, str] = Table()
        main = Depot(MAIN_WAREHOUSE, "Main")
        self.warehouses: Table[UUID, Depot] = Table(rows={MAIN_WAREHOUSE: main})
        self.stock: Table[Shelf, Stock] = Table()
        # the warehouses that a product has a shelf in, in the order of their ids
        self.places: Table[UUID, tuple[UUID, ...]] = Table()
        self.movements: Table[UUID, Movement] = Table()
        # the ids of a product's movements, the oldest first
        self.ledger: Table[UUID, tuple[UUID, ...]] = Table()
        # the ids of the movements that a fulfilment, transfer or stocktake has made
        self.of_reference: Table[UUID, tuple[UUID, ...]] = Table()
        self.holds: Table[UUID, Hold] = Table()
        self.of_order: Table[UUID, tuple[UUID, ...]] = Table()
        # which parts of reservations were given back
        self.part_releases: Table[UUID, UUID] = Table()
        # which reservations of a customer are held
        self.of_customer: Table[UUID, frozenset[UUID]] = Table()
        # which reservations are held: those that have this product, and under None all of them
        self.held: Table[UUID | None, frozenset[UUID]] = Table()
        # files on their way in, in parts; imports, and what was wrong with their rows, by number
        self.uploads: Table[UUID, tuple[UUID, datetime]] = Table()
        self.parts: Table[tuple[UUID, int], bytes] = Table()
        self.jobs: Table[UUID, Job] = Table()
        self.flaws: Table[tuple[UUID, int], Flaw] = Table()
