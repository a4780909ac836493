"""Dependencies of the stock routers."""

from typing import Annotated

from fastapi import Depends

from markethall.inventory.stock.contract import Stockroom, Warehouses
from markethall.shared.http.dependencies import from_container
from markethall.shared.http.route_policies import require_scope
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.scopes import STOCK_WRITE

StockroomDep = Annotated[Stockroom, Depends(from_container("stockroom"))]
WarehousesDep = Annotated[Warehouses, Depends(from_container("warehouses"))]
StockWriter = Annotated[CallContext, require_scope(STOCK_WRITE)]
