"""FastAPI dependencies, responses and errors of the routes of carts."""

from typing import Annotated, Any, Final, Protocol

from fastapi import Depends, Request, Response

from markethall.orders.carts.contract import (
    CartCheckouts,
    CartClosed,
    CartMerges,
    CartNotFound,
    CartPrecondition,
    Carts,
    CartView,
)
from markethall.orders.contract import (
    CountryNotServed,
    OrderCurrencyMismatch,
    RegionRequired,
    ShippingUnavailable,
    TotalChanged,
    TotalTooLarge,
    VoucherExhausted,
    VoucherInvalid,
)
from markethall.shared.http.common_errors import AUTHENTICATED_ERRORS, VERSION_ERRORS
from markethall.shared.http.conditional_requests import if_match_optional
from markethall.shared.http.dependencies import FromContext
from markethall.shared.http.idempotent_routes import require_idempotency_key
from markethall.shared.http.openapi_headers import IF_MATCH_IS_OPTIONAL
from markethall.shared.http.responses import current_response
from markethall.shared.http.route_policies import require_scope
from markethall.shared.kernel import etags
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.scopes import ORDERS, ORDERS_MANAGE

CHECKOUT_ERRORS: Final = (
    TotalChanged,
    OrderCurrencyMismatch,
    CountryNotServed,
    RegionRequired,
    ShippingUnavailable,
    TotalTooLarge,
    VoucherInvalid,
    VoucherExhausted,
)
# error codes of a checkout, by HTTP status; a router may not import the contracts of other contexts
CHECKOUT_ERROR_CODES: Final[dict[int, tuple[str, ...]]] = {
    403: ("users.inactive",),
    404: ("users.not_found", "inventory.product_not_found"),
    409: (
        "inventory.out_of_stock",
        "inventory.reservation_closed",
        "inventory.too_many_reservations",
        "inventory.too_many_units",
    ),
    422: ("payments.unknown_method",),
}
# error codes of a change of the products of a cart, by HTTP status
PRODUCT_ERROR_CODES: Final[dict[int, tuple[str, ...]]] = {404: ("inventory.product_not_found",)}


class Services(Protocol):
    def carts(self) -> Carts: ...

    def cart_merges(self) -> CartMerges: ...

    def cart_checkouts(self) -> CartCheckouts: ...


_from_orders: Final[FromContext[Services]] = FromContext("orders")
CartsDep = Annotated[Carts, Depends(_from_orders(lambda container: container.carts()))]
CartMergesDep = Annotated[
    CartMerges, Depends(_from_orders(lambda container: container.cart_merges()))
]
CartCheckoutsDep = Annotated[
    CartCheckouts, Depends(_from_orders(lambda container: container.cart_checkouts()))
]
Owner = Annotated[CallContext, require_scope(ORDERS)]
OwnerOrStaff = Annotated[CallContext, require_scope(ORDERS, ORDERS_MANAGE)]

CHANGE_ERRORS: Final = (*AUTHENTICATED_ERRORS, *VERSION_ERRORS, CartNotFound, CartClosed)
# for the owner, If-Match is optional, although staff get 428 without it
OPTIONAL_IF_MATCH: Final[dict[str, Any]] = {IF_MATCH_IS_OPTIONAL: True}


async def _precondition(request: Request) -> CartPrecondition:
    return CartPrecondition("if-match" in request.headers, await if_match_optional(request))


async def _checkout_precondition(request: Request) -> CartPrecondition:
    await require_idempotency_key(request)
    return await _precondition(request)


PreconditionDep = Annotated[CartPrecondition, Depends(_precondition)]
# a checkout without an Idempotency-Key is refused before If-Match is read
CheckoutPreconditionDep = Annotated[CartPrecondition, Depends(_checkout_precondition)]


def cart_response(cart: CartView) -> Response:
    # the entity tag also depends on the content, because prices change without a new version
    return current_response(cart)


# documents the response of `deleted_response`
DELETED: Final[dict[int | str, dict[str, Any]]] = {
    204: {"description": "Removed", "headers": {"ETag": {"$ref": "#/components/headers/ETag"}}}
}


def deleted_response(version: int) -> Response:
    """Return a 204 with the new entity tag of the cart, for the If-Match of the next change."""
    return Response(status_code=204, headers={"etag": etags.etag(version)})
