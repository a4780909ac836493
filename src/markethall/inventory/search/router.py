from typing import Annotated, Final, Protocol

from fastapi import APIRouter, Depends, Request, Response

from markethall.inventory.catalogue.router.dependencies import (
    LANGUAGE_PARAMETERS,
    Anyone,
    AnyoneOrWriter,
    RequestedLanguage,
    send_rendered,
)
from markethall.inventory.search.contract import (
    FamilyPage,
    FamilyQuery,
    FamilySearch,
    ProductPage,
    ProductQuery,
    ProductSearch,
)
from markethall.shared.http.conditional_requests import NOT_MODIFIED_RESPONSE
from markethall.shared.http.dependencies import FromContext
from markethall.shared.http.problem_details import problems
from markethall.shared.http.query_parameters import from_query
from markethall.shared.kernel.errors import (
    Forbidden,
    Unauthenticated,
    Unavailable,
    ValidationFailed,
)
from markethall.shared.kernel.pagination import CursorInvalid

router = APIRouter(tags=["inventory"])


class Services(Protocol):
    """The services that these routes call."""

    def product_search(self) -> ProductSearch: ...

    def family_search(self) -> FamilySearch: ...


_from_inventory: Final[FromContext[Services]] = FromContext("inventory")
ProductSearchDep = Annotated[
    ProductSearch, Depends(_from_inventory(lambda container: container.product_search()))
]
FamilySearchDep = Annotated[
    FamilySearch, Depends(_from_inventory(lambda container: container.family_search()))
]


@router.get(
    "/products",
    response_model=ProductPage,
    summary="Products",
    responses=problems(ValidationFailed, CursorInvalid, Unauthenticated, Forbidden, Unavailable)
    | NOT_MODIFIED_RESPONSE,
)
async def list_products(
    request: Request,
    ctx: AnyoneOrWriter,
    query: Annotated[ProductQuery, from_query(ProductQuery, LANGUAGE_PARAMETERS)],
    search: ProductSearchDep,
    lang: RequestedLanguage,
) -> Response:
    """Return products. The page may be one second old; with `facets`, ten seconds.

    A `status` other than active needs the scope catalogue:write.
    """
    return send_rendered(request, await search.render_product_page(ctx, query), lang)


@router.get(
    "/families",
    response_model=FamilyPage,
    summary="Families",
    responses=problems(ValidationFailed, CursorInvalid, Unavailable) | NOT_MODIFIED_RESPONSE,
)
async def list_families(
    request: Request,
    ctx: Anyone,
    query: Annotated[FamilyQuery, from_query(FamilyQuery, LANGUAGE_PARAMETERS)],
    search: FamilySearchDep,
    lang: RequestedLanguage,
) -> Response:
    """Return product pages: families with an active product.

    The page may be one second old; with `facets`, ten seconds.

    A product without a family is a family of its own. The filters and sorts are those of products:
    a family is listed once if one of its products matches all filters. It has the position of the
    first of them in the list of products. The facets count families.
    """
    return send_rendered(request, await search.render_family_page(ctx, query), lang)
