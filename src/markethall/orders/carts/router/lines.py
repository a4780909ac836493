"""Routes of the lines and the voucher of a cart."""

from fastapi import APIRouter, Response

from markethall.orders.carts.contract import (
    CartLineChange,
    CartView,
    CartVoucherChange,
    TooManyCartLines,
)
from markethall.orders.carts.router.checkout_errors import PRODUCT_ERROR_CODES
from markethall.orders.carts.router.dependencies import (
    CHANGE_ERRORS,
    DELETED,
    OPTIONAL_IF_MATCH,
    CartsDep,
    OwnerOrStaff,
    PreconditionDep,
    cart_response,
    deleted_response,
)
from markethall.orders.contract import OrderCurrencyMismatch, VoucherExhausted, VoucherInvalid
from markethall.shared.http.common_errors import BODY_ERRORS
from markethall.shared.http.problem_details import problems, with_upstream_errors
from markethall.shared.kernel.model import Id

router = APIRouter(prefix="/carts", tags=["carts"])


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
