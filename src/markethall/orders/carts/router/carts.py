"""Routes of carts: create, read and change them, and list their shipping options."""

from typing import Annotated

from fastapi import APIRouter, Request, Response

from markethall.orders.carts.contract import (
    CartChange,
    CartNotFound,
    CartQuery,
    CartSummaryView,
    CartView,
    NewCart,
    ShippingOptionsView,
    TooManyCarts,
)
from markethall.orders.carts.router.checkout_errors import PRODUCT_ERROR_CODES
from markethall.orders.carts.router.dependencies import (
    CHANGE_ERRORS,
    OPTIONAL_IF_MATCH,
    CartListsDep,
    CartsDep,
    IdempotencyDep,
    Owner,
    OwnerOrStaff,
    PreconditionDep,
    cart_response,
)
from markethall.orders.contract import OrderCurrencyMismatch
from markethall.shared.http.common_errors import (
    AUTHENTICATED_ERRORS,
    BODY_ERRORS,
    IDEMPOTENCY_ERRORS,
)
from markethall.shared.http.conditional_requests import NOT_MODIFIED_RESPONSE, apply_if_none_match
from markethall.shared.http.idempotent_routes import created_response
from markethall.shared.http.problem_details import problems, with_upstream_errors
from markethall.shared.http.query_parameters import from_query
from markethall.shared.http.responses import json_response
from markethall.shared.kernel.model import Id
from markethall.shared.kernel.pagination import CursorInvalid, Page

router = APIRouter(prefix="/carts", tags=["carts"])


@router.post(
    "",
    status_code=201,
    response_model=CartView,
    summary="Create a cart",
    responses=with_upstream_errors(
        PRODUCT_ERROR_CODES,
        *AUTHENTICATED_ERRORS,
        *BODY_ERRORS,
        *IDEMPOTENCY_ERRORS,
        TooManyCarts,
        OrderCurrencyMismatch,
    ),
)
async def create_cart(
    ctx: Owner, body: NewCart, carts: CartsDep, idempotency: IdempotencyDep
) -> Response:
    """Create a cart of the caller, who is a customer or a guest. It may have lines already.

    An unchanged cart is deleted at `expires_at`.
    """
    return await idempotency.run(
        ctx,
        body,
        lambda attempt: carts.create(ctx, body, attempt),
        created_response(lambda cart: f"/carts/{cart.cart_id}"),
    )


@router.get(
    "",
    response_model=Page[CartSummaryView],
    summary="List own carts",
    responses=problems(*AUTHENTICATED_ERRORS, CursorInvalid),
)
async def list_carts(
    ctx: Owner, query: Annotated[CartQuery, from_query(CartQuery)], lists: CartListsDep
) -> Response:
    """Return the carts of the caller, the newest first, without lines and prices."""
    return json_response(await lists.list_page(ctx, query))


@router.get(
    "/{cart_id}",
    response_model=CartView,
    summary="Get a cart",
    responses=problems(*AUTHENTICATED_ERRORS, CartNotFound) | NOT_MODIFIED_RESPONSE,
)
async def get_cart(request: Request, ctx: OwnerOrStaff, cart_id: Id, carts: CartsDep) -> Response:
    """Return a cart with current prices, availability and totals. Nothing is reserved.

    `changes` lists what has changed since its owner last read it, so each change is listed once.
    """
    return apply_if_none_match(request, cart_response(await carts.get(ctx, cart_id)))


@router.put(
    "/{cart_id}",
    response_model=CartView,
    summary="Change a cart",
    responses=problems(*CHANGE_ERRORS, *BODY_ERRORS, OrderCurrencyMismatch),
    openapi_extra=OPTIONAL_IF_MATCH,
)
async def change_cart(
    ctx: OwnerOrStaff, cart_id: Id, body: CartChange, precondition: PreconditionDep, carts: CartsDep
) -> Response:
    """Change the fields that the request contains. Other fields and the lines stay unchanged.

    Staff need `If-Match` for the cart of another owner.
    """
    return cart_response(await carts.change(ctx, cart_id, body, precondition))


@router.get(
    "/{cart_id}/shipping-options",
    response_model=ShippingOptionsView,
    summary="List the shipping options of a cart",
    responses=problems(*AUTHENTICATED_ERRORS, CartNotFound),
)
async def list_cart_shipping_options(ctx: OwnerOrStaff, cart_id: Id, carts: CartsDep) -> Response:
    """Return the shipping methods for the address and the lines of the cart, with their prices."""
    options = await carts.list_shipping_options(ctx, cart_id)
    return json_response(options)
