"""What inventory's own router serves of stock: what is where, and how it got there."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal, Protocol
from uuid import UUID

from pydantic import Field

from markethall.inventory.contract.reserving import MOST_UNITS, Reservation
from markethall.shared.call import Call
from markethall.shared.errors import Refusal
from markethall.shared.idempotency import Attempt
from markethall.shared.model import Body, Dto, Id, Int, Text
from markethall.shared.pages import Page, PageQuery


class Reason(StrEnum):
    """Why goods came or went."""

    RECEIVED = "received"
    ADJUSTED = "adjusted"
    COUNTED = "counted"
    DAMAGED = "damaged"
    LOST = "lost"
    FOUND = "found"
    RETURNED = "returned"
    SOLD = "sold"


class ReservationQuery(PageQuery):
    order_id: Id


class StockLevel(Dto):
    """One product in one warehouse. `reserved` includes holds that are about to expire."""

    warehouse_id: UUID
    on_hand: int
    reserved: int
    available: int


class ProductStock(Dto):
    product_id: UUID
    available: int
    warehouses: tuple[StockLevel, ...]


class Adjustment(Body):
    """Goods came or went (delta), or were counted (counted). Exactly one of the two."""

    warehouse_id: Id | None = None
    delta: Annotated[Int, Field(ge=-MOST_UNITS, le=MOST_UNITS, examples=[12])] | None = None
    counted: Annotated[Int, Field(ge=0, le=MOST_UNITS)] | None = None
    reason: Literal["received", "adjusted", "counted", "damaged", "lost", "found", "returned"]
    note: Annotated[Text, Field(max_length=500, examples=["delivery 4711"])] = ""


class Movement(Dto):
    """One line of the stock ledger. `reference` is the fulfilment that goods were sold by."""

    movement_id: UUID
    product_id: UUID
    warehouse_id: UUID
    delta: int
    on_hand_after: int
    reason: Reason
    note: str
    reference: UUID | None
    actor: str
    created_at: datetime


class WouldGoNegative(Refusal):
    """Details: on_hand, reserved."""

    code = "inventory.would_go_negative"
    status = 409
    title = "There would be less on hand than is reserved"


class MovementNotFound(Refusal):
    """Details: movement_id."""

    code = "inventory.movement_not_found"
    status = 404
    title = "There is no such movement of this product"


class Stockroom(Protocol):
    """The stock of products, for staff."""

    async def stock(self, call: Call, product_id: UUID) -> ProductStock:
        """Raises ProductNotFound."""

    async def adjust(
        self, call: Call, product_id: UUID, command: Adjustment, attempt: Attempt
    ) -> Movement:
        """One movement whose id is the attempt's; once per id. In the main warehouse by default.

        Raises Invalid, ProductNotFound, WarehouseNotFound, WouldGoNegative.
        """

    async def movements(self, call: Call, product_id: UUID, query: PageQuery) -> Page[Movement]:
        """The newest first. Raises ProductNotFound, CursorInvalid."""

    async def movement(self, call: Call, product_id: UUID, movement_id: UUID) -> Movement:
        """Raises MovementNotFound."""

    async def reservations(self, call: Call, query: ReservationQuery) -> Page[Reservation]:
        """Of one order. Raises CursorInvalid."""
