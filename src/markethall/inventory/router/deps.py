"""What several routes share: who may come, and how refusals are named."""

from typing import Annotated, Final

from fastapi import Depends

from markethall.inventory.contract import Catalogue, Stockroom, Warehouses
from markethall.shared.auth import CATALOGUE_WRITE, STOCK_WRITE, allow, anyone
from markethall.shared.call import Call
from markethall.shared.errors import (
    Forbidden,
    Invalid,
    Malformed,
    PreconditionFailed,
    PreconditionRequired,
    Unauthenticated,
    Unavailable,
    UnsupportedMediaType,
)
from markethall.shared.http import (
    from_container,
    if_match,
)
from markethall.shared.idempotency import (
    InFlight,
    KeyInvalid,
    Keys,
    PayloadMismatch,
)

CatalogueDep = Annotated[Catalogue, Depends(from_container("catalogue"))]
StockroomDep = Annotated[Stockroom, Depends(from_container("stockroom"))]
WarehousesDep = Annotated[Warehouses, Depends(from_container("warehouses"))]
KeysDep = Annotated[Keys, Depends(from_container("inventory_keys"))]
Seen = Annotated[int, Depends(if_match)]
Anyone = Annotated[Call, anyone()]
Merchant = Annotated[Call, allow(CATALOGUE_WRITE)]
Keeper = Annotated[Call, allow(STOCK_WRITE)]

GUARDED: Final = (Unauthenticated, Forbidden, Invalid, Unavailable)
BODY: Final = (Malformed, UnsupportedMediaType)
KEYED: Final = (KeyInvalid, InFlight, PayloadMismatch)
VERSIONED: Final = (PreconditionRequired, PreconditionFailed)
