"""Routes that end a cart: merge it into another cart, and check it out."""

from fastapi import APIRouter, Response

from markethall.orders.carts.contract import (
    CartChanged,
    CartClosed,
    CartNotFound,
    CartNotReady,
    CartView,
    CheckOutCart,
    MergeCart,
    TooManyCartLines,
)
from markethall.orders.carts.router.checkout_errors import CHECKOUT_ERROR_CODES, CHECKOUT_ERRORS
from markethall.orders.carts.router.dependencies import (
    CartCheckoutsDep,
    CartMergesDep,
    CheckoutPreconditionDep,
    IdempotencyDep,
    Owner,
    PreconditionDep,
)
from markethall.orders.contract import OrderCurrencyMismatch, OrderView
from markethall.shared.http.common_errors import (
    AUTHENTICATED_ERRORS,
    BODY_ERRORS,
    IDEMPOTENCY_ERRORS,
    REQUIRED_IDEMPOTENCY_ERRORS,
)
from markethall.shared.http.idempotent_routes import created_response
from markethall.shared.http.problem_details import problems, with_upstream_errors
from markethall.shared.kernel.errors import PreconditionFailed
from markethall.shared.kernel.model import Id

router = APIRouter(prefix="/carts", tags=["carts"])


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
