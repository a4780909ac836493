"""HTTP API of products and families. A family is a product page of a shop."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Request, Response
from pydantic import Field

from markethall.inventory.catalogue.contract.categories import CategoryAmbiguous
from markethall.inventory.catalogue.contract.families import (
    FamilyChange,
    FamilyDetail,
    FamilyMoved,
    FamilyNotFound,
    FamilyTaken,
    NewFamily,
    SlugTaken,
)
from markethall.inventory.catalogue.contract.products import (
    NewProduct,
    ProductChange,
    ProductView,
    SkuTaken,
)
from markethall.inventory.catalogue.router.dependencies import (
    CHANGE_ERRORS,
    CREATE_ERRORS,
    DELETE_ERRORS,
    AnyoneOrWriter,
    CatalogueDep,
    CatalogueWriter,
    ExpectedVersionsDep,
    FamiliesDep,
    IdempotencyDep,
    ProductWriter,
    ResourceLanguage,
    send_rendered,
)
from markethall.inventory.contract import ProductNotFound
from markethall.shared.http.conditional_requests import NOT_MODIFIED_RESPONSE
from markethall.shared.http.idempotent_routes import created_response
from markethall.shared.http.problem_details import problems
from markethall.shared.http.responses import versioned_response
from markethall.shared.kernel.errors import Unavailable, ValidationFailed
from markethall.shared.kernel.model import Id, Text

router = APIRouter(tags=["inventory"])

SkuPath = Annotated[Text, Field(max_length=100, examples=["TEA-SENCHA-100"])]


@router.get(
    "/products/by-sku/{sku:path}",
    response_model=ProductView,
    summary="A product, by its SKU",
    responses=problems(ProductNotFound, ValidationFailed, Unavailable) | NOT_MODIFIED_RESPONSE,
)
async def get_product_by_sku(
    request: Request,
    ctx: AnyoneOrWriter,
    sku: SkuPath,
    catalogue: CatalogueDep,
    lang: ResourceLanguage,
) -> Response:
    """Return the product with this SKU, ignoring letter case."""
    return send_rendered(request, await catalogue.render_product_by_sku(ctx, sku), lang)


@router.get(
    "/products/{product_id}",
    response_model=ProductView,
    summary="A product",
    responses=problems(ProductNotFound, ValidationFailed, Unavailable) | NOT_MODIFIED_RESPONSE,
)
async def get_product(
    request: Request,
    ctx: AnyoneOrWriter,
    product_id: Id,
    catalogue: CatalogueDep,
    lang: ResourceLanguage,
) -> Response:
    """Return a product. The scope catalogue:write is needed for drafts and archived products."""
    return send_rendered(request, await catalogue.render_product(ctx, product_id), lang)


@router.post(
    "/products",
    status_code=201,
    response_model=ProductView,
    summary="Add a product",
    responses=problems(*CREATE_ERRORS, SkuTaken, CategoryAmbiguous),
)
async def create_product(
    ctx: ProductWriter, body: NewProduct, catalogue: CatalogueDep, idempotency: IdempotencyDep
) -> Response:
    """Create a product. It has no stock yet.

    `category` is the key of a category, its path such as "Drinks > Tea", or a name that only one
    category has. If there is no such category, it is created with the missing categories above it.
    The comparison ignores extra spaces and letter case. `family` is the label or slug of a family;
    an unknown text creates a family with this label.
    """
    return await idempotency.run(
        ctx,
        body,
        lambda attempt: catalogue.create(ctx, body, attempt),
        created_response(lambda made: f"/products/{made.product_id}"),
    )


@router.patch(
    "/products/{product_id}",
    response_model=ProductView,
    summary="Change a product",
    responses=problems(*CHANGE_ERRORS, ProductNotFound, SkuTaken, CategoryAmbiguous),
)
async def change_product(
    ctx: ProductWriter,
    product_id: Id,
    expected_versions: ExpectedVersionsDep,
    body: ProductChange,
    catalogue: CatalogueDep,
) -> Response:
    """Change a product by a JSON merge patch (RFC 7396).

    A sale does not change the version, so If-Match does not fail after a sale.
    """
    changed = await catalogue.change(ctx, product_id, body, expected_versions)
    return versioned_response(changed)


@router.delete(
    "/products/{product_id}",
    status_code=204,
    response_class=Response,
    summary="Archive a product",
    responses=problems(*DELETE_ERRORS, ProductNotFound),
)
async def archive_product(
    ctx: CatalogueWriter,
    product_id: Id,
    expected_versions: ExpectedVersionsDep,
    catalogue: CatalogueDep,
) -> Response:
    """Stop selling a product. Existing orders, reservations and stock movements keep it."""
    await catalogue.archive(ctx, product_id, expected_versions)
    return Response(status_code=204)


SlugPath = Annotated[Text, Field(min_length=1, max_length=255, examples=["sencha"])]
_MOVED_RESPONSE: Final[dict[int | str, dict[str, Any]]] = {
    301: {"description": "The family has another slug; `Location` has its path"}
}


@router.get(
    "/families/{slug:path}",
    response_model=FamilyDetail,
    summary="A family",
    responses=problems(FamilyNotFound, ValidationFailed, Unavailable)
    | _MOVED_RESPONSE
    | NOT_MODIFIED_RESPONSE,
)
async def get_family(
    request: Request,
    ctx: AnyoneOrWriter,
    slug: SlugPath,
    families: FamiliesDep,
    lang: ResourceLanguage,
) -> Response:
    """Return a product page: a family of products that differ by their options.

    A product without a family is a family of its own. A former slug, the label and the id of a
    family respond with 301, and so does the slug of a product that has joined a family. The scope
    catalogue:write is needed for archived families, and for families without an active product.
    """
    rendered = await families.render_family(ctx, slug)
    if isinstance(rendered, FamilyMoved):
        return _moved(request, rendered.slug)
    return send_rendered(request, rendered, lang)


@router.post(
    "/families",
    status_code=201,
    response_model=FamilyDetail,
    summary="Add a family",
    responses=problems(*CREATE_ERRORS, FamilyTaken, SlugTaken, CategoryAmbiguous),
)
async def create_family(
    ctx: ProductWriter, body: NewFamily, families: FamiliesDep, idempotency: IdempotencyDep
) -> Response:
    """Create a family. Customers see it when it has an active product.

    A new product with an unknown `family` also creates a family.
    """
    return await idempotency.run(
        ctx,
        body,
        lambda attempt: families.create(ctx, body, attempt),
        created_response(lambda made: f"/families/{made.slug}"),
    )


@router.patch(
    "/families/{slug:path}",
    response_model=FamilyDetail,
    summary="Change a family",
    responses=problems(*CHANGE_ERRORS, FamilyNotFound, SlugTaken, CategoryAmbiguous),
)
async def change_family(
    ctx: ProductWriter,
    slug: SlugPath,
    expected_versions: ExpectedVersionsDep,
    body: FamilyChange,
    families: FamiliesDep,
) -> Response:
    """Change a family by a JSON merge patch (RFC 7396).

    After a change of the slug, the former slug responds with 301.

    The path may also have a former slug, the label or the id of the family. A product without a
    family cannot be changed here: create a family, and set `family` of the product to its label.
    """
    changed = await families.change(ctx, slug, body, expected_versions)
    return versioned_response(changed)


@router.delete(
    "/families/{slug:path}",
    status_code=204,
    response_class=Response,
    summary="Archive a family",
    responses=problems(*DELETE_ERRORS, FamilyNotFound),
)
async def archive_family(
    ctx: ProductWriter,
    slug: SlugPath,
    expected_versions: ExpectedVersionsDep,
    families: FamiliesDep,
) -> Response:
    """Archive a family and all its products. Existing orders and stock movements keep them.

    To show the page again, change its `status` to active, and activate each product.
    """
    await families.archive(ctx, slug, expected_versions)
    return Response(status_code=204)


def _moved(request: Request, slug: str) -> Response:
    query = request.scope["query_string"].decode("latin-1")
    location = f"/families/{slug}?{query}" if query else f"/families/{slug}"
    headers = {"location": location, "cache-control": "no-cache"}
    return Response(status_code=301, headers=headers)
