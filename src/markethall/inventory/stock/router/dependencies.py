"""FastAPI dependencies of the stock routes: services, required scopes and body limits."""

from typing import Annotated, Final, Protocol

from fastapi import Depends

from markethall.inventory.stock.contract import Stockroom, Warehouses
from markethall.shared.http.dependencies import FromContext
from markethall.shared.http.route_policies import BULK_BODY_LIMITS, require_scope
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.scopes import STOCK_WRITE


class Services(Protocol):
    """The services that these routes call."""

    def stockroom(self) -> Stockroom: ...

    def warehouses(self) -> Warehouses: ...


_from_inventory: Final[FromContext[Services]] = FromContext("inventory")
StockroomDep = Annotated[
    Stockroom, Depends(_from_inventory(lambda container: container.stockroom()))
]
WarehousesDep = Annotated[
    Warehouses, Depends(_from_inventory(lambda container: container.warehouses()))
]
StockWriter = Annotated[CallContext, require_scope(STOCK_WRITE)]
StocktakeWriter = Annotated[CallContext, require_scope(STOCK_WRITE, body_limits=BULK_BODY_LIMITS)]
