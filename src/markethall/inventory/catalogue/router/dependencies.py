"""Dependencies of the inventory routers."""

from typing import Annotated, Final

from fastapi import Depends, Request, Response

from markethall.inventory.catalogue.contract.categories import Categories
from markethall.inventory.catalogue.contract.products import Catalogue, RenderedResponse
from markethall.shared.http.problem_details import (
    RawJsonResponse,
    apply_if_none_match,
    from_container,
    if_match,
)
from markethall.shared.http.response_cache import offer
from markethall.shared.http.route_policies import (
    CATALOGUE_WRITE,
    STOCK_WRITE,
    public,
    require_scope,
)
from markethall.shared.idempotency.service import (
    IdempotencyKeyInvalid,
    IdempotencyService,
    InFlight,
    PayloadMismatch,
)
from markethall.shared.kernel import etags
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.errors import (
    Forbidden,
    MalformedRequest,
    PreconditionFailed,
    PreconditionRequired,
    Unauthenticated,
    Unavailable,
    UnsupportedMediaType,
    ValidationFailed,
)

CatalogueDep = Annotated[Catalogue, Depends(from_container("catalogue"))]
CategoriesDep = Annotated[Categories, Depends(from_container("categories"))]
IdempotencyDep = Annotated[IdempotencyService, Depends(from_container("inventory_idempotency"))]
ExpectedVersionsDep = Annotated[etags.ExpectedVersions, Depends(if_match)]
Anyone = Annotated[CallContext, public()]
CatalogueWriter = Annotated[CallContext, require_scope(CATALOGUE_WRITE)]

AUTHENTICATED_ERRORS: Final = (Unauthenticated, Forbidden, ValidationFailed, Unavailable)
BODY_ERRORS: Final = (MalformedRequest, UnsupportedMediaType)
IDEMPOTENCY_ERRORS: Final = (IdempotencyKeyInvalid, InFlight, PayloadMismatch)
VERSION_ERRORS: Final = (PreconditionRequired, PreconditionFailed)
PUBLIC_CACHE_CONTROL: Final = b"public, max-age=5, stale-while-revalidate=30"


def send_rendered(request: Request, rendered: RenderedResponse) -> Response:
    """Answer 200, or 304 when the client has this version. Caches may keep public responses."""
    if rendered.is_public and rendered.is_current is not None:
        offer(request.scope, rendered.is_current)
    cache_control = PUBLIC_CACHE_CONTROL if rendered.is_public else b"no-store"
    return apply_if_none_match(
        request, RawJsonResponse(rendered.body, rendered.etag, cache_control)
    )
