"""What several routes share: who may come, and how refusals are named."""

from typing import Annotated, Final

from fastapi import Depends, Request, Response

from markethall.inventory.contract import Catalogue, Categories, Rendered, Stockroom, Warehouses
from markethall.shared import versions
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
    Kept,
    conditional,
    from_container,
    if_match,
)
from markethall.shared.idempotency import (
    InFlight,
    KeyInvalid,
    Keys,
    PayloadMismatch,
)
from markethall.shared.response_cache import offer

CatalogueDep = Annotated[Catalogue, Depends(from_container("catalogue"))]
CategoriesDep = Annotated[Categories, Depends(from_container("categories"))]
StockroomDep = Annotated[Stockroom, Depends(from_container("stockroom"))]
WarehousesDep = Annotated[Warehouses, Depends(from_container("warehouses"))]
KeysDep = Annotated[Keys, Depends(from_container("inventory_keys"))]
Seen = Annotated[versions.Seen, Depends(if_match)]
Anyone = Annotated[Call, anyone()]
Merchant = Annotated[Call, allow(CATALOGUE_WRITE)]
Keeper = Annotated[Call, allow(STOCK_WRITE)]

GUARDED: Final = (Unauthenticated, Forbidden, Invalid, Unavailable)
BODY: Final = (Malformed, UnsupportedMediaType)
KEYED: Final = (KeyInvalid, InFlight, PayloadMismatch)
VERSIONED: Final = (PreconditionRequired, PreconditionFailed)
PUBLIC: Final = b"public, max-age=5, stale-while-revalidate=30"


def answer(request: Request, rendered: Rendered) -> Response:
    """200, or 304 when the client has this version. What is public may be cached."""
    if rendered.public and rendered.is_current is not None:
        offer(request.scope, rendered.is_current)
    kept = PUBLIC if rendered.public else b"no-store"
    return conditional(request, Kept(rendered.body, rendered.etag, kept))
