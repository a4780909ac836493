"""The in-memory tables of orders."""

from uuid import UUID

from markethall.orders.carts.memory import CartTables
from markethall.orders.contract import EditStatus
from markethall.orders.domain import Fulfilment, Order, TimelineEntry
from markethall.orders.drafts.domain import DraftOrder
from markethall.orders.invoices.memory import InvoiceTables
from markethall.orders.promotions.memory import PromotionTables
from markethall.orders.returns.memory import ReturnTables
from markethall.shared.persistence.memory import Table


class Tables(CartTables, PromotionTables, ReturnTables, InvoiceTables):
    def __init__(self) -> None:
        super().__init__()
        self.orders: Table[UUID, Order] = Table()
        self.timeline: Table[UUID, tuple[TimelineEntry, ...]] = Table()
        # the user who has claimed the guest, by guest id
        self.guest_owners: Table[UUID, UUID] = Table()
        self.drafts: Table[UUID, DraftOrder] = Table()
        self.order_edits: Table[UUID, tuple[UUID, EditStatus]] = Table()
        self.fulfilments: Table[UUID, Fulfilment] = Table()
