"""Products and their families."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field

from markethall.inventory.contract import (
    Family,
    FamilyNotFound,
    NewProduct,
    Product,
    ProductChange,
    ProductNotFound,
    ProductPage,
    ProductQuery,
    SkuTaken,
)
from markethall.inventory.router.deps import (
    BODY,
    GUARDED,
    KEYED,
    VERSIONED,
    Anyone,
    CatalogueDep,
    KeysDep,
    Merchant,
    Seen,
    answer,
)
from markethall.shared.errors import (
    Forbidden,
    Invalid,
    Unauthenticated,
    Unavailable,
)
from markethall.shared.http import (
    created,
    once,
    problems,
    ready,
)
from markethall.shared.idempotency import Attempt
from markethall.shared.model import Id, Text
from markethall.shared.pages import CursorInvalid, PageQuery
from markethall.shared.versions import etag

router = APIRouter(tags=["inventory"])

FamilyPath = Annotated[Text, Field(min_length=1, max_length=100, examples=["sencha"])]
SkuPath = Annotated[Text, Field(max_length=64, examples=["TEA-SENCHA-100"])]


@router.get(
    "/products",
    response_model=ProductPage,
    summary="Products",
    responses=problems(Invalid, CursorInvalid, Unauthenticated, Forbidden, Unavailable),
)
async def products(
    request: Request,
    call: Anyone,
    query: Annotated[ProductQuery, Query()],
    catalogue: CatalogueDep,
) -> Response:
    """What is for sale. Availability may be a second old. `status` other than active is for
    staff.
    """
    return answer(request, await catalogue.page_body(call, query))


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
    return answer(request, await catalogue.sku_body(call, sku))


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
    return answer(request, await catalogue.product_body(call, product_id))


@router.get(
    "/families/{family}",
    response_model=Family,
    summary="A family of products",
    responses=problems(FamilyNotFound, Invalid, CursorInvalid, Unavailable),
)
async def family(
    request: Request,
    call: Anyone,
    family: FamilyPath,
    query: Annotated[PageQuery, Query()],
    catalogue: CatalogueDep,
) -> Response:
    """The products that differ by their options: what one page of a shop shows."""
    return answer(request, await catalogue.family_body(call, family, query))


@router.post(
    "/products",
    status_code=201,
    response_model=Product,
    summary="Add a product",
    responses=problems(*GUARDED, *BODY, *KEYED, SkuTaken),
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
    responses=problems(*GUARDED, *BODY, *VERSIONED, ProductNotFound, SkuTaken),
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
    responses=problems(*GUARDED, *VERSIONED, ProductNotFound),
)
async def archive(call: Merchant, product_id: Id, seen: Seen, catalogue: CatalogueDep) -> Response:
    """It is not for sale any more; orders, reservations and the ledger keep it."""
    await catalogue.archive(call, product_id, seen)
    return Response(status_code=204)
