"""What inventory's own router serves of stock: what is where, and how it got there."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Final, Literal, Protocol
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from markethall.inventory.contract import MAX_UNITS
from markethall.shared.idempotency.records import IdempotentCommand
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.errors import DomainError
from markethall.shared.kernel.model import Dto, Id, Int, RequestModel, Text, UtcDatetime
from markethall.shared.kernel.pagination import Page, PageQuery

# shelves in one stocktake
MAX_STOCKTAKE_LINES: Final = 500

Note = Annotated[Text, Field(max_length=500, examples=["delivery 4711"])]


class MovementReason(StrEnum):
    """Why goods came or went."""

    RECEIVED = "received"
    ADJUSTED = "adjusted"
    COUNTED = "counted"
    DAMAGED = "damaged"
    LOST = "lost"
    FOUND = "found"
    RETURNED = "returned"
    SOLD = "sold"
    TRANSFERRED = "transferred"


class StockQuery(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    at: UtcDatetime | None = None


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


class HistoricalStock(Dto):
    """What was on hand in one warehouse."""

    warehouse_id: UUID
    on_hand: int


class HistoricalProductStock(Dto):
    """What was on hand at a time: the sum of the movements up to then."""

    product_id: UUID
    at: datetime
    on_hand: int
    warehouses: tuple[HistoricalStock, ...]


class Adjustment(RequestModel):
    """Goods came or went (delta), or were counted (counted). Exactly one of the two.

    A count that finds just what was on hand is kept with the reason counted, whatever was given.
    """

    warehouse_id: Id | None = None
    delta: Annotated[Int, Field(ge=-MAX_UNITS, le=MAX_UNITS, examples=[12])] | None = None
    counted: Annotated[Int, Field(ge=0, le=MAX_UNITS)] | None = None
    reason: Literal["received", "adjusted", "counted", "damaged", "lost", "found", "returned"]
    note: Note = ""


class Movement(Dto):
    """One line of the stock ledger. `reference` is the fulfilment, transfer or stocktake that made
    it.
    """

    movement_id: UUID
    product_id: UUID
    warehouse_id: UUID
    delta: int
    on_hand_after: int
    reason: MovementReason
    note: str
    reference: UUID | None
    actor: str
    created_at: datetime


class NewTransfer(RequestModel):
    """Goods go from one warehouse to another, all of them or none."""

    product_id: Id
    from_warehouse_id: Id
    to_warehouse_id: Id
    quantity: Annotated[Int, Field(ge=1, le=MAX_UNITS, examples=[6])]
    note: Note = ""


class Transfer(Dto):
    """Its two movements: what left, then what arrived."""

    transfer_id: UUID
    product_id: UUID
    from_warehouse_id: UUID
    to_warehouse_id: UUID
    quantity: int
    note: str
    actor: str
    created_at: datetime
    movements: tuple[Movement, ...]


class NewStocktakeLine(RequestModel):
    """What lies on a shelf. The product is named by exactly one of its id and its SKU."""

    product_id: Id | None = None
    sku: Annotated[Text, Field(min_length=1, max_length=64, examples=["TEA-1"])] | None = None
    counted: Annotated[Int, Field(ge=0, le=MAX_UNITS, examples=[40])]


class NewStocktake(RequestModel):
    """Shelves of one warehouse, the main one by default, were counted."""

    warehouse_id: Id | None = None
    lines: Annotated[
        tuple[NewStocktakeLine, ...], Field(min_length=1, max_length=MAX_STOCKTAKE_LINES)
    ]
    note: Note = ""


class CountedLine(Dto):
    """`delta` is what the count has found more (or less) than was on hand."""

    product_id: UUID
    sku: str
    counted: int
    delta: int
    movement_id: UUID


class Stocktake(Dto):
    """Lines in product id order."""

    stocktake_id: UUID
    warehouse_id: UUID
    note: str
    actor: str
    created_at: datetime
    lines: tuple[CountedLine, ...]


class WouldGoNegative(DomainError):
    """Details: on_hand, reserved; of a stocktake lines, each with product_id, counted, on_hand,
    reserved.
    """

    code = "inventory.would_go_negative"
    status = 409
    title = "There would be less on hand than is reserved"


class MovementNotFound(DomainError):
    """Details: movement_id."""

    code = "inventory.movement_not_found"
    status = 404
    title = "There is no such movement of this product"


class TransferNotFound(DomainError):
    """Details: transfer_id."""

    code = "inventory.transfer_not_found"
    status = 404
    title = "There is no such transfer"


class StocktakeNotFound(DomainError):
    """Details: stocktake_id."""

    code = "inventory.stocktake_not_found"
    status = 404
    title = "There is no such stocktake"


class Stockroom(Protocol):
    """The stock of products, for staff."""

    async def get_stock(self, ctx: CallContext, product_id: UUID) -> ProductStock:
        """Raises ProductNotFound."""

    async def get_stock_at(
        self, ctx: CallContext, product_id: UUID, at: datetime
    ) -> HistoricalProductStock:
        """What was on hand then. Raises ProductNotFound."""

    async def adjust(
        self, ctx: CallContext, product_id: UUID, command: Adjustment, attempt: IdempotentCommand
    ) -> Movement:
        """One movement whose id is the attempt's; once per id. In the main warehouse by default.

        Raises ValidationFailed, ProductNotFound, WarehouseNotFound, WarehouseClosed, WouldGoNegative.
        """

    async def transfer(
        self, ctx: CallContext, command: NewTransfer, attempt: IdempotentCommand
    ) -> Transfer:
        """Two movements, or none; once per id of the attempt, which is the transfer's.

        Raises as `adjust` does.
        """

    async def get_transfer(self, ctx: CallContext, transfer_id: UUID) -> Transfer:
        """Raises TransferNotFound."""

    async def record_stocktake(
        self, ctx: CallContext, command: NewStocktake, attempt: IdempotentCommand
    ) -> Stocktake:
        """One movement per line, or none; once per id of the attempt, which is the stocktake's.

        Raises as `adjust` does.
        """

    async def get_stocktake(self, ctx: CallContext, stocktake_id: UUID) -> Stocktake:
        """Raises StocktakeNotFound."""

    async def list_movements(
        self, ctx: CallContext, product_id: UUID, query: PageQuery
    ) -> Page[Movement]:
        """The newest first. Raises ProductNotFound, CursorInvalid."""

    async def get_movement(self, ctx: CallContext, product_id: UUID, movement_id: UUID) -> Movement:
        """Raises MovementNotFound."""
