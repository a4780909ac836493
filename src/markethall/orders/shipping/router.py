"""HTTP API of shipping methods."""

from typing import Annotated, Final, Protocol

from fastapi import APIRouter, Depends, Request, Response

from markethall.orders.configuration.contract import TooManyItems
from markethall.orders.configuration.router import (
    Anyone,
    ExpectedVersionsDep,
    IdempotencyDep,
    Staff,
)
from markethall.orders.shipping.contract import (
    NewShippingMethod,
    ShippingCodeTaken,
    ShippingMethodChange,
    ShippingMethodNotFound,
    ShippingMethods,
    ShippingMethodView,
)
from markethall.shared.http.common_errors import (
    AUTHENTICATED_ERRORS,
    BODY_ERRORS,
    IDEMPOTENCY_ERRORS,
    VERSION_ERRORS,
)
from markethall.shared.http.conditional_requests import NOT_MODIFIED_RESPONSE, apply_if_none_match
from markethall.shared.http.dependencies import FromContext
from markethall.shared.http.idempotent_routes import created_response
from markethall.shared.http.problem_details import problems
from markethall.shared.http.query_parameters import from_query
from markethall.shared.http.responses import public_response, versioned_response
from markethall.shared.kernel.errors import Unavailable, ValidationFailed
from markethall.shared.kernel.model import Id
from markethall.shared.kernel.pagination import CursorInvalid, Page, PageQuery

router = APIRouter(prefix="/shipping-methods", tags=["shop"])


class Services(Protocol):
    def shipping_methods(self) -> ShippingMethods: ...


_from_orders: Final[FromContext[Services]] = FromContext("orders")
ShippingMethodsDep = Annotated[
    ShippingMethods, Depends(_from_orders(lambda container: container.shipping_methods()))
]


@router.get(
    "",
    response_model=Page[ShippingMethodView],
    summary="Shipping methods",
    responses=problems(ValidationFailed, CursorInvalid, Unavailable),
)
async def list_shipping_methods(
    ctx: Anyone,
    query: Annotated[PageQuery, from_query(PageQuery)],
    shipping_methods: ShippingMethodsDep,
) -> Response:
    """Return shipping methods in the order in which they were created."""
    return public_response(await shipping_methods.list_page(ctx, query))


@router.get(
    "/{shipping_method_id}",
    response_model=ShippingMethodView,
    summary="A shipping method",
    responses=problems(ShippingMethodNotFound, ValidationFailed, Unavailable)
    | NOT_MODIFIED_RESPONSE,
)
async def get_shipping_method(
    request: Request, ctx: Anyone, shipping_method_id: Id, shipping_methods: ShippingMethodsDep
) -> Response:
    """Return a shipping method."""
    view = await shipping_methods.get(ctx, shipping_method_id)
    return apply_if_none_match(request, versioned_response(view, is_public=True))


@router.post(
    "",
    status_code=201,
    response_model=ShippingMethodView,
    summary="Add a shipping method",
    responses=problems(
        *AUTHENTICATED_ERRORS, *BODY_ERRORS, *IDEMPOTENCY_ERRORS, ShippingCodeTaken, TooManyItems
    ),
)
async def create_shipping_method(
    ctx: Staff,
    body: NewShippingMethod,
    shipping_methods: ShippingMethodsDep,
    idempotency: IdempotencyDep,
) -> Response:
    """Create a shipping method.

    A shop that has no shipping methods ships free of charge. As soon as it has one, even an
    inactive one, an order that no active method serves is rejected with
    `orders.shipping_unavailable`.
    """
    return await idempotency.run(
        ctx,
        body,
        lambda attempt: shipping_methods.create(ctx, body, attempt),
        created_response(lambda made: f"/shipping-methods/{made.shipping_method_id}"),
    )


@router.patch(
    "/{shipping_method_id}",
    response_model=ShippingMethodView,
    summary="Change a shipping method",
    responses=problems(
        *AUTHENTICATED_ERRORS,
        *BODY_ERRORS,
        *VERSION_ERRORS,
        ShippingMethodNotFound,
        ShippingCodeTaken,
    ),
)
async def change_shipping_method(
    ctx: Staff,
    shipping_method_id: Id,
    expected_versions: ExpectedVersionsDep,
    body: ShippingMethodChange,
    shipping_methods: ShippingMethodsDep,
) -> Response:
    """Change a shipping method by a JSON merge patch (RFC 7396).

    Orders that exist stay unchanged.
    """
    view = await shipping_methods.change(ctx, shipping_method_id, body, expected_versions)
    return versioned_response(view)


@router.delete(
    "/{shipping_method_id}",
    status_code=204,
    response_class=Response,
    summary="Delete a shipping method",
    responses=problems(*AUTHENTICATED_ERRORS, *VERSION_ERRORS, ShippingMethodNotFound),
)
async def delete_shipping_method(
    ctx: Staff,
    shipping_method_id: Id,
    expected_versions: ExpectedVersionsDep,
    shipping_methods: ShippingMethodsDep,
) -> Response:
    """Delete a shipping method. Orders that exist stay unchanged."""
    await shipping_methods.delete(ctx, shipping_method_id, expected_versions)
    return Response(status_code=204)
