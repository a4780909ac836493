"""FastAPI dependencies and responses of configuration items."""

from typing import Annotated, Final

from fastapi import Depends, Response

from markethall.shared.http.conditional_requests import if_match
from markethall.shared.http.idempotent_routes import IdempotencyRunner, idempotency_runner
from markethall.shared.http.responses import json_response
from markethall.shared.http.route_policies import public, require_scope
from markethall.shared.kernel import etags
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.model import Dto
from markethall.shared.kernel.scopes import ORDERS_MANAGE

# the same values as for responses of the catalogue
PUBLIC_CACHE_CONTROL: Final = "public, max-age=5, stale-while-revalidate=30"

IdempotencyDep = Annotated[IdempotencyRunner, Depends(idempotency_runner("orders"))]
ExpectedVersionsDep = Annotated[etags.ExpectedVersions, Depends(if_match)]
Anyone = Annotated[CallContext, public()]
Staff = Annotated[CallContext, require_scope(ORDERS_MANAGE)]


def with_etag(view: Dto, version: int, *, is_public: bool = False) -> Response:
    """Return a 200 with the entity tag of the version."""
    headers = {"etag": etags.etag(version)}
    if is_public:
        headers["cache-control"] = PUBLIC_CACHE_CONTROL
    return json_response(view, headers=headers)


def public_page(page: Dto) -> Response:
    return json_response(page, headers={"cache-control": PUBLIC_CACHE_CONTROL})
