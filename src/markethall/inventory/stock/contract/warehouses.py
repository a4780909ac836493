"""The contract of warehouses, for staff."""

from typing import Annotated, Protocol
from uuid import UUID

from pydantic import ConfigDict, Field

from markethall.inventory.catalogue.contract.fields import remove_null_defaults
from markethall.shared.idempotency.records import IdempotentCommand
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.errors import DomainError
from markethall.shared.kernel.etags import ExpectedVersions
from markethall.shared.kernel.model import Bool, Dto, Int, RequestModel, Text
from markethall.shared.kernel.pagination import Page, PageQuery

WarehouseName = Annotated[Text, Field(min_length=1, max_length=100, examples=["Rotterdam"])]
# allocation prefers the lowest
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
