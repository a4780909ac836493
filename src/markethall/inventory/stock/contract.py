"""The contract of stock, its movements and warehouses, for staff."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Final, Literal, Protocol
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from markethall.inventory.catalogue.contract.fields import remove_null_defaults
from markethall.inventory.contract import MAX_UNITS
from markethall.shared.idempotency.records import IdempotentCommand
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.errors import DomainError
from markethall.shared.kernel.etags import ExpectedVersions
from markethall.shared.kernel.model import Bool, Dto, Id, Int, RequestModel, Text, UtcDatetime
from markethall.shared.kernel.pagination import Page, PageQuery

MAX_STOCKTAKE_LINES: Final = 500

Note = Annotated[Text, Field(max_length=500, examples=["delivery 4711"])]


class MovementReason(StrEnum):
    """Reason of a change of the units on hand."""

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
    """One product in one warehouse. `reserved` includes expired reservations, until
    their release.
    """

    warehouse_id: UUID
    on_hand: int
    reserved: int
    available: int


class ProductStock(Dto):
    product_id: UUID
    available: int
    warehouses: tuple[StockLevel, ...]


class HistoricalStock(Dto):
    """Units on hand in one warehouse at a time."""

    warehouse_id: UUID
    on_hand: int


class HistoricalProductStock(Dto):
    """Units on hand at a time: the sum of the movements up to then."""

    product_id: UUID
    at: datetime
    on_hand: int
    warehouses: tuple[HistoricalStock, ...]


class Adjustment(RequestModel):
    """A change of the units on hand: exactly one of `delta` and `counted`.

    A count that confirms the units on hand is recorded with the reason counted.
    """

    warehouse_id: Id | None = None
    delta: Annotated[Int, Field(ge=-MAX_UNITS, le=MAX_UNITS, examples=[12])] | None = None
    counted: Annotated[Int, Field(ge=0, le=MAX_UNITS)] | None = None
    reason: Literal["received", "adjusted", "counted", "damaged", "lost", "found", "returned"]
    note: Note = ""


class Movement(Dto):
    """An entry of the stock ledger. `reference`: the fulfilment, transfer or stocktake of it."""

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
    """Units that move from one warehouse to another."""

    product_id: Id
    from_warehouse_id: Id
    to_warehouse_id: Id
    quantity: Annotated[Int, Field(ge=1, le=MAX_UNITS, examples=[6])]
    note: Note = ""


class Transfer(Dto):
    """A transfer with its two movements: outgoing, then incoming."""

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
    """Counted units of a product, named by exactly one of its id and its SKU."""

    product_id: Id | None = None
    sku: Annotated[Text, Field(min_length=1, max_length=64, examples=["TEA-1"])] | None = None
    counted: Annotated[Int, Field(ge=0, le=MAX_UNITS, examples=[40])]


class NewStocktake(RequestModel):
    """A count of products in one warehouse, by default the main one."""

    warehouse_id: Id | None = None
    lines: Annotated[
        tuple[NewStocktakeLine, ...], Field(min_length=1, max_length=MAX_STOCKTAKE_LINES)
    ]
    note: Note = ""


class CountedLine(Dto):
    """`delta`: counted units minus units on hand."""

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
    """Less would be on hand than is reserved.

    Details: on_hand, reserved; for a stocktake lines, each with product_id, counted, on_hand,
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
    """Stock of products, for staff."""

    async def get_stock(self, ctx: CallContext, product_id: UUID) -> ProductStock:
        """Raises ProductNotFound."""

    async def get_stock_at(
        self, ctx: CallContext, product_id: UUID, at: datetime
    ) -> HistoricalProductStock:
        """Return the units on hand at that time. Raises ProductNotFound."""

    async def adjust(
        self, ctx: CallContext, product_id: UUID, command: Adjustment, attempt: IdempotentCommand
    ) -> Movement:
        """Make one movement with the id of the attempt, once per id; by default in the main
        warehouse.

        Raises ValidationFailed, ProductNotFound, WarehouseNotFound, WarehouseClosed,
        WouldGoNegative.
        """

    async def transfer(
        self, ctx: CallContext, command: NewTransfer, attempt: IdempotentCommand
    ) -> Transfer:
        """Make both movements or none, once per id of the attempt, which becomes the transfer's.

        Raises as `adjust` does.
        """

    async def get_transfer(self, ctx: CallContext, transfer_id: UUID) -> Transfer:
        """Raises TransferNotFound."""

    async def record_stocktake(
        self, ctx: CallContext, command: NewStocktake, attempt: IdempotentCommand
    ) -> Stocktake:
        """Make one movement per line or none, once per id of the attempt, which becomes the
        stocktake's.

        Raises as `adjust` does.
        """

    async def get_stocktake(self, ctx: CallContext, stocktake_id: UUID) -> Stocktake:
        """Raises StocktakeNotFound."""

    async def list_movements(
        self, ctx: CallContext, product_id: UUID, query: PageQuery
    ) -> Page[Movement]:
        """Return movements, the newest first. Raises ProductNotFound, CursorInvalid."""

    async def get_movement(self, ctx: CallContext, product_id: UUID, movement_id: UUID) -> Movement:
        """Raises MovementNotFound."""


WarehouseName = Annotated[Text, Field(min_length=1, max_length=100, examples=["Rotterdam"])]
# allocation prefers the warehouse with the lowest
Priority = Annotated[Int, Field(ge=0, le=1000, examples=[10])]


class NewWarehouse(RequestModel):
    name: WarehouseName
    priority: Priority = 100
    active: Bool = True


class WarehouseChange(RequestModel):
    """JSON merge patch (RFC 7396): absent fields stay; nothing can be cleared."""

    model_config = ConfigDict(json_schema_extra=remove_null_defaults)

    name: WarehouseName = Field(default="")
    priority: Priority = Field(default=0)
    active: Bool = Field(default=True)


class WarehouseView(Dto):
    """A warehouse that is not `active` is closed: it has no stock and receives none."""

    warehouse_id: UUID
    name: str
    priority: int
    active: bool
    version: int


class WarehouseNotFound(DomainError):
    """Details: warehouse_id."""

    code = "inventory.warehouse_not_found"
    status = 404
    title = "There is no such warehouse"


class WarehouseInUse(DomainError):
    """The main warehouse; one with stock (to close it); one that ever had stock (to delete it).

    Details: warehouse_id.
    """

    code = "inventory.warehouse_in_use"
    status = 409
    title = "The warehouse is in use"


class WarehouseClosed(DomainError):
    """Details: warehouse_id."""

    code = "inventory.warehouse_closed"
    status = 409
    title = "The warehouse is closed: no goods can go there"


class Warehouses(Protocol):
    """Warehouses, for staff. The main one always exists and is never closed."""

    async def get_warehouse(self, ctx: CallContext, warehouse_id: UUID) -> WarehouseView:
        """Raises WarehouseNotFound."""

    async def list_warehouses(self, ctx: CallContext, query: PageQuery) -> Page[WarehouseView]:
        """Return warehouses by priority, the lowest first. Raises CursorInvalid."""

    async def create(
        self, ctx: CallContext, command: NewWarehouse, attempt: IdempotentCommand
    ) -> WarehouseView:
        """Create a warehouse with the id of the attempt, once per id."""

    async def change(
        self,
        ctx: CallContext,
        warehouse_id: UUID,
        command: WarehouseChange,
        expected_versions: ExpectedVersions,
    ) -> WarehouseView:
        """Raises WarehouseNotFound, PreconditionFailed, WarehouseInUse."""

    async def delete(
        self, ctx: CallContext, warehouse_id: UUID, expected_versions: ExpectedVersions
    ) -> None:
        """Delete a warehouse that never had stock. Raises as `change` does."""
