"""HTTP API of the product list."""

from typing import Annotated, Final, Protocol

from fastapi import APIRouter, Depends, Request, Response

from markethall.inventory.catalogue.router.dependencies import AnyoneOrWriter, send_rendered
from markethall.inventory.catalogue.router.localization import (
    LANGUAGE_PARAMETERS,
    RequestedLanguage,
)
from markethall.inventory.search.contract import ProductPage, ProductQuery, ProductSearch
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


_from_inventory: Final[FromContext[Services]] = FromContext("inventory")
ProductSearchDep = Annotated[
    ProductSearch, Depends(_from_inventory(lambda container: container.product_search()))
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
