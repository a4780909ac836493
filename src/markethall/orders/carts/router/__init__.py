"""HTTP API of carts."""

from typing import Annotated

from fastapi import APIRouter, Request, Response

from markethall.orders.carts.contract import (
    CartChange,
    CartChanged,
    CartClosed,
    CartLineChange,
    CartNotFound,
    CartNotReady,
    CartQuery,
    CartSummaryView,
    CartView,
    CartVoucherChange,
    CheckOutCart,
    MergeCart,
    NewCart,
    ShippingOptionsView,
    TooManyCartLines,
    TooManyCarts,
)
from markethall.orders.carts.router.dependencies import (
    CHANGE_ERRORS,
    CHECKOUT_ERROR_CODES,
    CHECKOUT_ERRORS,
    DELETED,
    OPTIONAL_IF_MATCH,
    PRODUCT_ERROR_CODES,
    CartCheckoutsDep,
    CartMergesDep,
    CartsDep,
    CheckoutPreconditionDep,
    Owner,
    OwnerOrStaff,
    PreconditionDep,
    cart_response,
    deleted_response,
)
from markethall.orders.configuration.router import IdempotencyDep
from markethall.orders.contract import (
    OrderCurrencyMismatch,
    OrderView,
    VoucherExhausted,
    VoucherInvalid,
)
from markethall.shared.http.common_errors import (
    AUTHENTICATED_ERRORS,
    BODY_ERRORS,
    IDEMPOTENCY_ERRORS,
    REQUIRED_IDEMPOTENCY_ERRORS,
)
from markethall.shared.http.conditional_requests import NOT_MODIFIED_RESPONSE, apply_if_none_match
from markethall.shared.http.idempotent_routes import created_response
from markethall.shared.http.problem_details import problems, with_upstream_errors
from markethall.shared.http.query_parameters import from_query
from markethall.shared.http.responses import json_response
from markethall.shared.kernel.errors import PreconditionFailed
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
    ctx: Owner, query: Annotated[CartQuery, from_query(CartQuery)], carts: CartsDep
) -> Response:
    """Return the carts of the caller, the newest first, without lines and prices."""
    return json_response(await carts.list_page(ctx, query))


@router.get(
    "/{cart_id}",
    response_model=CartView,
    summary="Get a cart",
    responses=problems(*AUTHENTICATED_ERRORS, CartNotFound) | NOT_MODIFIED_RESPONSE,
)
async def get_cart(request: Request, ctx: OwnerOrStaff, cart_id: Id, carts: CartsDep) -> Response:
    """Return a cart with current prices, availability and totals. Nothing is reserved.

    `changes` lists the changes since its owner last read it, so each change is listed once.
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


@router.put(
    "/{cart_id}/lines/{product_id}",
    response_model=CartView,
    summary="Set the quantity of a product in a cart",
    responses=with_upstream_errors(
        PRODUCT_ERROR_CODES, *CHANGE_ERRORS, *BODY_ERRORS, TooManyCartLines, OrderCurrencyMismatch
    ),
    openapi_extra=OPTIONAL_IF_MATCH,
)
async def set_cart_line(
    ctx: OwnerOrStaff,
    cart_id: Id,
    product_id: Id,
    body: CartLineChange,
    precondition: PreconditionDep,
    carts: CartsDep,
) -> Response:
    """Set the quantity. A product that the cart does not have is added as the last line.

    More units than are available are accepted; `readiness` then reports the missing units.
    """
    return cart_response(await carts.set_line(ctx, cart_id, product_id, body, precondition))


@router.delete(
    "/{cart_id}/lines/{product_id}",
    status_code=204,
    response_class=Response,
    summary="Remove a product from a cart",
    responses={**DELETED, **problems(*CHANGE_ERRORS)},
    openapi_extra=OPTIONAL_IF_MATCH,
)
async def remove_cart_line(
    ctx: OwnerOrStaff, cart_id: Id, product_id: Id, precondition: PreconditionDep, carts: CartsDep
) -> Response:
    """Remove the line of a product. Without such a line, nothing changes."""
    return deleted_response(await carts.remove_line(ctx, cart_id, product_id, precondition))


@router.put(
    "/{cart_id}/voucher",
    response_model=CartView,
    summary="Use a voucher in a cart",
    responses=problems(*CHANGE_ERRORS, *BODY_ERRORS, VoucherInvalid, VoucherExhausted),
    openapi_extra=OPTIONAL_IF_MATCH,
)
async def set_cart_voucher(
    ctx: OwnerOrStaff,
    cart_id: Id,
    body: CartVoucherChange,
    precondition: PreconditionDep,
    carts: CartsDep,
) -> Response:
    """Use a voucher. It replaces the current voucher. An empty cart accepts every code."""
    return cart_response(await carts.set_voucher(ctx, cart_id, body, precondition))


@router.delete(
    "/{cart_id}/voucher",
    status_code=204,
    response_class=Response,
    summary="Remove the voucher of a cart",
    responses={**DELETED, **problems(*CHANGE_ERRORS)},
    openapi_extra=OPTIONAL_IF_MATCH,
)
async def remove_cart_voucher(
    ctx: OwnerOrStaff, cart_id: Id, precondition: PreconditionDep, carts: CartsDep
) -> Response:
    """Remove the voucher. If the cart has none, nothing changes."""
    return deleted_response(await carts.remove_voucher(ctx, cart_id, precondition))


@router.post(
    "/{cart_id}/merge",
    response_model=CartView,
    summary="Merge another cart into a cart",
    responses=problems(
        *AUTHENTICATED_ERRORS,
        *BODY_ERRORS,
        *IDEMPOTENCY_ERRORS,
        PreconditionFailed,
        CartNotFound,
        CartClosed,
        TooManyCartLines,
        OrderCurrencyMismatch,
    ),
)
async def merge_cart(
    *,
    ctx: Owner,
    cart_id: Id,
    body: MergeCart,
    precondition: PreconditionDep,
    merges: CartMergesDep,
    idempotency: IdempotencyDep,
) -> Response:
    """Add the lines of another cart to an own cart, for example after a login. Close the other.

    The quantities of a product are added up, to 999 at most. Fields that the cart lacks come from
    the other cart, also entries of the metadata, until the cart has 50. A repeated merge changes
    nothing.
    """
    return await idempotency.run(
        ctx, body, lambda attempt: merges.merge(ctx, cart_id, body, precondition, attempt)
    )


@router.post(
    "/{cart_id}/checkout",
    status_code=201,
    response_model=OrderView,
    summary="Check out a cart",
    responses=with_upstream_errors(
        CHECKOUT_ERROR_CODES,
        *AUTHENTICATED_ERRORS,
        *BODY_ERRORS,
        *REQUIRED_IDEMPOTENCY_ERRORS,
        PreconditionFailed,
        CartNotFound,
        CartClosed,
        CartChanged,
        CartNotReady,
        *CHECKOUT_ERRORS,
    ),
)
async def check_out_cart(
    *,
    ctx: Owner,
    cart_id: Id,
    body: CheckOutCart,
    precondition: CheckoutPreconditionDep,
    checkouts: CartCheckoutsDep,
    idempotency: IdempotencyDep,
) -> Response:
    """Place an order with the lines of an own cart, and close the cart. A cart has one order.

    The `Idempotency-Key` is required. The prices are fixed now, so send the total that the customer
    saw as `expected_total`. After an error, change the cart and use another key.
    """
    return await idempotency.run_with_key(
        ctx,
        body,
        lambda attempt: checkouts.check_out(ctx, cart_id, body, precondition, attempt),
        created_response(lambda order: f"/orders/{order.order_id}"),
    )
