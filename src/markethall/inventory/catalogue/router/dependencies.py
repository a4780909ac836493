"""FastAPI dependencies of the catalogue routes; other sub-domains import some of them."""

from typing import Annotated, Final, Protocol

from fastapi import Depends, Request, Response

from markethall.inventory.catalogue.contract.categories import Categories
from markethall.inventory.catalogue.contract.families import Families
from markethall.inventory.catalogue.contract.products import Catalogue, RenderedResponse
from markethall.inventory.catalogue.router.localization import (
    LanguageRequest,
    LanguageSelector,
    localize,
)
from markethall.shared.http.common_errors import (
    AUTHENTICATED_ERRORS,
    BODY_ERRORS,
    IDEMPOTENCY_ERRORS,
    VERSION_ERRORS,
)
from markethall.shared.http.conditional_requests import apply_if_none_match, if_match
from markethall.shared.http.dependencies import FromContext
from markethall.shared.http.idempotent_routes import IdempotencyRunner, idempotency_runner
from markethall.shared.http.query_parameters import from_query
from markethall.shared.http.response_cache import offer
from markethall.shared.http.responses import PUBLIC_CACHE_CONTROL, RawJsonResponse
from markethall.shared.http.route_policies import LONG_TEXT_BODY_LIMITS, public, require_scope
from markethall.shared.kernel import etags
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.pagination import PageQuery
from markethall.shared.kernel.scopes import CATALOGUE_WRITE


class Services(Protocol):
    """The services that these routes call."""

    def catalogue(self) -> Catalogue: ...

    def categories(self) -> Categories: ...

    def families(self) -> Families: ...


_from_inventory: Final[FromContext[Services]] = FromContext("inventory")
CatalogueDep = Annotated[
    Catalogue, Depends(_from_inventory(lambda container: container.catalogue()))
]
CategoriesDep = Annotated[
    Categories, Depends(_from_inventory(lambda container: container.categories()))
]
FamiliesDep = Annotated[Families, Depends(_from_inventory(lambda container: container.families()))]
IdempotencyDep = Annotated[IdempotencyRunner, Depends(idempotency_runner("inventory"))]
ExpectedVersionsDep = Annotated[etags.ExpectedVersions, Depends(if_match)]
Anyone = Annotated[CallContext, public()]
# with the scope, drafts and archived products are shown too
AnyoneOrWriter = Annotated[CallContext, public(optional_scope=CATALOGUE_WRITE)]
CatalogueWriter = Annotated[CallContext, require_scope(CATALOGUE_WRITE)]
ProductWriter = Annotated[
    CallContext, require_scope(CATALOGUE_WRITE, body_limits=LONG_TEXT_BODY_LIMITS)
]

PageQueryDep = Annotated[PageQuery, from_query(PageQuery)]

# the errors of routes that create, change or delete a resource, without those of the resource
CREATE_ERRORS: Final = (*AUTHENTICATED_ERRORS, *BODY_ERRORS, *IDEMPOTENCY_ERRORS)
CHANGE_ERRORS: Final = (*AUTHENTICATED_ERRORS, *BODY_ERRORS, *VERSION_ERRORS)
DELETE_ERRORS: Final = (*AUTHENTICATED_ERRORS, *VERSION_ERRORS)

# one object for all responses in the cache
_PUBLIC: Final = PUBLIC_CACHE_CONTROL.encode()


def send_rendered(
    request: Request, rendered: RenderedResponse, requested: LanguageRequest
) -> Response:
    """Respond with 200, or 304 when the client has this ETag, in the requested language.

    A public response from the cache is also offered to the response cache of the gateway, which
    can then answer the same request without calling the route.
    """
    select = LanguageSelector(rendered.body, requested)
    if rendered.is_public and rendered.is_current is not None:
        offer(request.scope, rendered.is_current, select)
    language = select(", ".join(request.headers.getlist("accept-language")).encode("latin-1"))
    if language and language != requested.own_language.encode():
        rendered = localize(rendered, language.decode())
    cache_control = _PUBLIC if rendered.is_public else b"no-store"
    response = RawJsonResponse(rendered.body, rendered.etag, cache_control)
    response.raw_headers.append((b"vary", b"Accept-Language"))
    if language:
        response.raw_headers.append((b"content-language", language))
    return apply_if_none_match(request, response)
