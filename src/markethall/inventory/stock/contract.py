"""The contract of stock, movements and warehouses for the HTTP API. All calls are for staff."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Final, Literal, Protocol
from uuid import UUID

from pydantic import ConfigDict, Field
from typing_extensions import TypeAliasType

from markethall.inventory.contract import MAX_UNITS
from markethall.shared.idempotency.records import IdempotentCommand
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.errors import DomainError
from markethall.shared.kernel.etags import ExpectedVersions
from markethall.shared.kernel.merge_patch import remove_null_defaults
from markethall.shared.kernel.model import (
    Bool,
    Dto,
    Id,
    Int,
    QueryModel,
    RequestModel,
    Text,
    UtcDatetime,
    VisibleText,
    exactly_one_of,
)
from markethall.shared.kernel.pagination import Page, PageQuery

MAX_STOCKTAKE_LINES: Final = 500

Note = Annotated[Text, Field(max_length=500, examples=["delivery 4711"])]


Delta = Annotated[
    Int,
    Field(ge=-MAX_UNITS, le=MAX_UNITS, examples=[12], json_schema_extra={"not": {"const": 0}}),
]


class MovementReason(StrEnum):
    """The reason why the units on hand changed."""

    RECEIVED = "received"
    ADJUSTED = "adjusted"
    COUNTED = "counted"
    DAMAGED = "damaged"
    LOST = "lost"
    FOUND = "found"
    RETURNED = "returned"
    SOLD = "sold"
    TRANSFERRED = "transferred"


class StockQuery(QueryModel):
    at: UtcDatetime | None = None


class StockLevel(Dto):
    """The stock of one product in one warehouse.

    Units of overdue reservations (past `expires_at`, not released yet) count as `reserved` and as
    `available`.
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
    """The units on hand in one warehouse at a time in the past."""

    warehouse_id: UUID
    on_hand: int


class HistoricalProductStock(Dto):
    """The units of a product on hand at a time in the past: the sum of the movements until then."""

    product_id: UUID
    at: datetime
    on_hand: int
    warehouses: tuple[HistoricalStock, ...]


AdjustmentReason = TypeAliasType(
    "AdjustmentReason",
    Literal["received", "adjusted", "counted", "damaged", "lost", "found", "returned"],
)


class Adjustment(RequestModel):
    """A change of the units on hand. Exactly one of `delta` and `counted` must be set.

    If `counted` equals the units on hand, the movement gets the reason `counted` instead of
    `reason`.
    """

    model_config = ConfigDict(json_schema_extra=exactly_one_of(delta="integer", counted="integer"))

    warehouse_id: Id | None = None
    delta: Delta | None = None
    counted: Annotated[Int, Field(ge=0, le=MAX_UNITS)] | None = None
    reason: AdjustmentReason
    note: Note = ""


class Movement(Dto):
    """An entry of the stock ledger.

    `reference` is the id of its fulfilment, return, transfer or stocktake; other movements have
    none.
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
    """A transfer of units from one warehouse to another."""

    product_id: Id
    from_warehouse_id: Id
    to_warehouse_id: Id
    quantity: Annotated[Int, Field(ge=1, le=MAX_UNITS, examples=[6])]
    note: Note = ""


class Transfer(Dto):
    """A transfer with its two movements: first the outgoing one, then the incoming one."""

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
    """The counted units of a product. Exactly one of `product_id` and `sku` must be set."""

    model_config = ConfigDict(json_schema_extra=exactly_one_of(product_id="string", sku="string"))

    product_id: Id | None = None
    sku: Annotated[Text, Field(min_length=1, max_length=100, examples=["TEA-1"])] | None = None
    counted: Annotated[Int, Field(ge=0, le=MAX_UNITS, examples=[40])]


class NewStocktake(RequestModel):
    """A count of products in one warehouse, by default the main warehouse."""

    warehouse_id: Id | None = None
    lines: Annotated[
        tuple[NewStocktakeLine, ...],
        Field(min_length=1, max_length=MAX_STOCKTAKE_LINES, fail_fast=True),
    ]
    note: Note = ""


class CountedLine(Dto):
    """A line of a stocktake. `delta` is the counted units minus the units on hand before."""

    product_id: UUID
    sku: str
    counted: int
    delta: int
    movement_id: UUID


class Stocktake(Dto):
    """A stocktake. Its lines are sorted by product id."""

    stocktake_id: UUID
    warehouse_id: UUID
    note: str
    actor: str
    created_at: datetime
    lines: tuple[CountedLine, ...]


class WouldGoNegative(DomainError):
    """After the change, fewer units would be on hand than are reserved.

    Details: on_hand, reserved. For a stocktake instead: lines (each with product_id, counted,
    on_hand, reserved).
    """

    code = "inventory.would_go_negative"
    status = 409
    title = "There would be less on hand than is reserved"


class MovementNotFound(DomainError):
    """The product has no movement with this id. Details: movement_id."""

    code = "inventory.movement_not_found"
    status = 404
    title = "There is no such movement of this product"


class TransferNotFound(DomainError):
    """No transfer has this id. Details: transfer_id."""

    code = "inventory.transfer_not_found"
    status = 404
    title = "There is no such transfer"


class StocktakeNotFound(DomainError):
    """No stocktake has this id. Details: stocktake_id."""

    code = "inventory.stocktake_not_found"
    status = 404
    title = "There is no such stocktake"


class Stockroom(Protocol):
    """Stock of products: levels, adjustments, transfers, stocktakes and the ledger."""

    async def get_stock(self, ctx: CallContext, product_id: UUID) -> ProductStock:
        """Raises ProductNotFound."""

    async def get_stock_at(
        self, ctx: CallContext, product_id: UUID, at: datetime
    ) -> HistoricalProductStock:
        """Return the units on hand at the time `at`. Raises ProductNotFound."""

    async def adjust(
        self, ctx: CallContext, product_id: UUID, command: Adjustment, attempt: IdempotentCommand
    ) -> Movement:
        """Record one movement, by default in the main warehouse.

        `attempt.id` becomes the movement id. Raises ValidationFailed, ProductNotFound,
        WarehouseNotFound, WarehouseClosed, WouldGoNegative.
        """

    async def transfer(
        self, ctx: CallContext, command: NewTransfer, attempt: IdempotentCommand
    ) -> Transfer:
        """Record the outgoing and the incoming movement, both or none.

        `attempt.id` becomes the transfer id. Raises the errors of `adjust`.
        """

    async def get_transfer(self, ctx: CallContext, transfer_id: UUID) -> Transfer:
        """Raises TransferNotFound."""

    async def record_stocktake(
        self, ctx: CallContext, command: NewStocktake, attempt: IdempotentCommand
    ) -> Stocktake:
        """Record one movement per line, all or none.

        `attempt.id` becomes the stocktake id. Raises the errors of `adjust`.
        """

    async def get_stocktake(self, ctx: CallContext, stocktake_id: UUID) -> Stocktake:
        """Raises StocktakeNotFound."""

    async def list_movements(
        self, ctx: CallContext, product_id: UUID, query: PageQuery
    ) -> Page[Movement]:
        """Return movements, the newest first. Raises ProductNotFound, CursorInvalid."""

    async def get_movement(self, ctx: CallContext, product_id: UUID, movement_id: UUID) -> Movement:
        """Raises MovementNotFound."""


WarehouseName = Annotated[VisibleText, Field(min_length=1, max_length=100, examples=["Rotterdam"])]
# if several warehouses have the stock, an order is sent from the one with the lowest `priority`
Priority = Annotated[Int, Field(ge=0, le=1000, examples=[10])]


class NewWarehouse(RequestModel):
    name: WarehouseName
    priority: Priority = 100
    active: Bool = True


class WarehouseChange(RequestModel):
    """A change of a warehouse, as a JSON merge patch (RFC 7396). No field can be null."""

    model_config = ConfigDict(json_schema_extra=remove_null_defaults)

    name: WarehouseName = Field(default="")
    priority: Priority = Field(default=0)
    active: Bool = Field(default=True)


class WarehouseView(Dto):
    """A warehouse. If it is not `active`, it is closed: it has no stock and receives none."""

    warehouse_id: UUID
    name: str
    priority: int
    active: bool
    version: int


class WarehouseNotFound(DomainError):
    """No warehouse has this id. Details: warehouse_id."""

    code = "inventory.warehouse_not_found"
    status = 404
    title = "There is no such warehouse"


class WarehouseInUse(DomainError):
    """A warehouse with stock cannot be closed; one that ever had stock cannot be deleted.

    The main warehouse can be neither closed nor deleted. Details: warehouse_id.
    """

    code = "inventory.warehouse_in_use"
    status = 409
    title = "The warehouse is in use"


class WarehouseClosed(DomainError):
    """The warehouse is closed and receives no stock. Details: warehouse_id."""

    code = "inventory.warehouse_closed"
    status = 409
    title = "The warehouse is closed: no goods can go there"


class Warehouses(Protocol):
    """The API of warehouses. The main warehouse always exists and is never closed."""

    async def get_warehouse(self, ctx: CallContext, warehouse_id: UUID) -> WarehouseView:
        """Raises WarehouseNotFound."""

    async def list_warehouses(self, ctx: CallContext, query: PageQuery) -> Page[WarehouseView]:
        """Return warehouses, sorted by priority. Raises CursorInvalid."""

    async def create(
        self, ctx: CallContext, command: NewWarehouse, attempt: IdempotentCommand
    ) -> WarehouseView:
        """Create a warehouse. `attempt.id` becomes the warehouse id."""

    async def change(
        self,
        ctx: CallContext,
        warehouse_id: UUID,
        command: WarehouseChange,
        expected_versions: ExpectedVersions,
    ) -> WarehouseView:
        """Apply a merge patch. Raises WarehouseNotFound, PreconditionFailed, WarehouseInUse."""

    async def delete(
        self, ctx: CallContext, warehouse_id: UUID, expected_versions: ExpectedVersions
    ) -> None:
        """Delete a warehouse that never had stock. Raises the errors of `change`."""
