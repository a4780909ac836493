"""What the world may ask of inventory."""

import re
from collections.abc import Callable
from typing import Annotated, Final
from urllib.parse import parse_qsl
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import Field

from markethall.inventory.contract import (
    Adjustment,
    Catalogue,
    Category,
    Movement,
    MovementNotFound,
    NewProduct,
    Product,
    ProductChange,
    ProductNotFound,
    ProductQuery,
    ProductStock,
    Rendered,
    Reservation,
    ReservationQuery,
    SkuTaken,
    WarehouseNotFound,
    WouldGoNegative,
)
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
from markethall.shared.express import Lane
from markethall.shared.http import (
    MONEY,
    Kept,
    conditional,
    created,
    etag,
    from_container,
    if_match,
    once,
    problems,
    ready,
)
from markethall.shared.idempotency import (
    Attempt,
    InFlight,
    KeyInvalid,
    KeyMissing,
    Keys,
    PayloadMismatch,
)
from markethall.shared.model import Id, Text
from markethall.shared.pages import CursorInvalid, Page, PageQuery

router = APIRouter(tags=["inventory"])

CatalogueDep = Annotated[Catalogue, Depends(from_container("catalogue"))]
KeysDep = Annotated[Keys, Depends(from_container("inventory_keys"))]
Seen = Annotated[int, Depends(if_match)]
Anyone = Annotated[Call, anyone()]
Merchant = Annotated[Call, allow(CATALOGUE_WRITE)]
Keeper = Annotated[Call, allow(STOCK_WRITE)]
SkuPath = Annotated[Text, Field(max_length=64, examples=["TEA-SENCHA-100"])]

_PRODUCT_PATH: Final = re.compile(r"/products/([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})")
_NO_QUERY: Final = ProductQuery()
_PUBLIC: Final = b"public, max-age=5, stale-while-revalidate=30"
_GUARDED: Final = (Unauthenticated, Forbidden, Invalid, Unavailable)
_BODY: Final = (Malformed, UnsupportedMediaType)
_KEYED: Final = (KeyInvalid, InFlight, PayloadMismatch)
_VERSIONED: Final = (PreconditionRequired, PreconditionFailed)


def _answer(request: Request, rendered: Rendered) -> Response:
    kept = _PUBLIC if rendered.public else b"no-store"
    return conditional(request, Kept(rendered.body, rendered.etag, kept))


# Products


@router.get(
    "/products",
    response_model=Page[Product],
    summary="Products",
    responses=problems(Invalid, CursorInvalid, Forbidden, Unavailable),
)
async def products(
    request: Request,
    call: Anyone,
    query: Annotated[ProductQuery, Query()],
    catalogue: CatalogueDep,
) -> Response:
    """What is for sale. Availability may be some seconds old. `status` other than active is for
    staff.
    """
    return _answer(request, await catalogue.page_body(call, query))


@router.get(
    "/products/by-sku/{sku}",
    response_model=Product,
    summary="A product, by its SKU",
    responses=problems(ProductNotFound, Invalid, Unavailable),
)
async def product_by_sku(
    request: Request, call: Anyone, sku: SkuPath, catalogue: CatalogueDep
) -> Response:
    """Case does not count."""
    return _answer(request, await catalogue.sku_body(call, sku))


@router.get(
    "/products/{product_id}",
    response_model=Product,
    summary="A product",
    responses=problems(ProductNotFound, Invalid, Unavailable),
)
async def product(
    request: Request, call: Anyone, product_id: Id, catalogue: CatalogueDep
) -> Response:
    """Staff also see drafts and what is archived."""
    return _answer(request, await catalogue.product_body(call, product_id))


def express(catalogue: Callable[[], Catalogue]) -> Lane:
    """The lane for a page of products and for one product."""

    async def lane(request: Request) -> Response | None:
        path = request.scope["path"]
        if path == "/products":
            query = _plain_query(request.scope["query_string"])
            if query is None:
                return None
            request.state.route = "/products"
            return await products(request, request.state.call, query, catalogue())
        found = _PRODUCT_PATH.fullmatch(path)
        if found is None:
            return None
        request.state.route = "/products/{product_id}"
        return await product(request, request.state.call, UUID(found[1]), catalogue())

    return lane


def _plain_query(text: bytes) -> ProductQuery | None:
    """None for anything unusual: the long way knows how to refuse it."""
    if not text:
        return _NO_QUERY
    try:
        pairs = parse_qsl(text.decode(), keep_blank_values=True)
        named = dict(pairs)
        return ProductQuery.model_validate(named) if len(named) == len(pairs) else None
    except ValueError:
        return None


@router.post(
    "/products",
    status_code=201,
    response_model=Product,
    summary="Add a product",
    responses=problems(*_GUARDED, *_BODY, *_KEYED, SkuTaken),
)
async def create(
    request: Request, call: Merchant, body: NewProduct, catalogue: CatalogueDep, keys: KeysDep
) -> Response:
    """It starts without stock."""

    async def effect(attempt: Attempt) -> Product:
        return await catalogue.create(call, body, attempt)

    present = created(lambda made: f"/products/{made.product_id}")
    return await once(request, call, body, keys, effect, present)


@router.patch(
    "/products/{product_id}",
    response_model=Product,
    summary="Change a product",
    responses=problems(*_GUARDED, *_BODY, *_VERSIONED, ProductNotFound, SkuTaken),
)
async def change(
    call: Merchant, product_id: Id, seen: Seen, body: ProductChange, catalogue: CatalogueDep
) -> Response:
    """JSON merge patch (RFC 7396). A sale does not make what you have seen stale."""
    changed = await catalogue.change(call, product_id, body, seen)
    return ready(changed, headers={"etag": etag(changed.version)})


@router.delete(
    "/products/{product_id}",
    status_code=204,
    response_class=Response,
    summary="Archive a product",
    responses=problems(*_GUARDED, *_VERSIONED, ProductNotFound),
)
async def archive(call: Merchant, product_id: Id, seen: Seen, catalogue: CatalogueDep) -> Response:
    """It is not for sale any more; orders, reservations and the ledger keep it."""
    await catalogue.archive(call, product_id, seen)
    return Response(status_code=204)


@router.get(
    "/categories",
    response_model=Page[Category],
    summary="Categories",
    responses=problems(Invalid, CursorInvalid, Unavailable),
)
async def categories(
    call: Anyone, query: Annotated[PageQuery, Query()], catalogue: CatalogueDep
) -> Response:
    """The categories of what is for sale, by name."""
    return ready(
        await catalogue.categories(call, query), headers={"cache-control": _PUBLIC.decode()}
    )


# Stock


@router.get(
    "/products/{product_id}/stock",
    response_model=ProductStock,
    summary="Stock of a product",
    responses=problems(*_GUARDED, ProductNotFound),
)
async def stock(call: Keeper, product_id: Id, catalogue: CatalogueDep) -> Response:
    """Per warehouse. `available` counts what expired holds still have reserved."""
    return ready(await catalogue.stock(call, product_id))


@router.post(
    "/products/{product_id}/stock-adjustments",
    status_code=201,
    response_model=Movement,
    summary="Adjust stock",
    responses=problems(
        *_GUARDED, *_BODY, *_KEYED, KeyMissing, ProductNotFound, WarehouseNotFound, WouldGoNegative
    ),
)
async def adjust(
    request: Request,
    *,
    call: Keeper,
    product_id: Id,
    body: Adjustment,
    catalogue: CatalogueDep,
    keys: KeysDep,
) -> Response:
    """Goods came or went (`delta`), or were counted (`counted`): exactly one of the two."""

    async def effect(attempt: Attempt) -> Movement:
        return await catalogue.adjust(call, product_id, body, attempt)

    present = created(
        lambda made: f"/products/{made.product_id}/stock-movements/{made.movement_id}"
    )
    return await once(request, call, body, keys, effect, present, required=True, kept_for=MONEY)


@router.get(
    "/products/{product_id}/stock-movements",
    response_model=Page[Movement],
    summary="Stock movements of a product",
    responses=problems(*_GUARDED, CursorInvalid, ProductNotFound),
)
async def movements(
    call: Keeper, product_id: Id, query: Annotated[PageQuery, Query()], catalogue: CatalogueDep
) -> Response:
    """The ledger of what is on hand, the newest first. It is only added to."""
    return ready(await catalogue.movements(call, product_id, query))


@router.get(
    "/products/{product_id}/stock-movements/{movement_id}",
    response_model=Movement,
    summary="A stock movement",
    responses=problems(*_GUARDED, MovementNotFound),
)
async def movement(
    call: Keeper, product_id: Id, movement_id: Id, catalogue: CatalogueDep
) -> Response:
    return ready(await catalogue.movement(call, product_id, movement_id))


@router.get(
    "/reservations",
    response_model=Page[Reservation],
    summary="Reservations of an order",
    responses=problems(*_GUARDED, CursorInvalid),
)
async def reservations(
    call: Keeper, query: Annotated[ReservationQuery, Query()], catalogue: CatalogueDep
) -> Response:
    return ready(await catalogue.reservations(call, query))
