"""HTTP API of the edits of orders."""

from fastapi import APIRouter, Response

from markethall.orders.contract import (
    CountryNotServed,
    EditNeedsPayment,
    EditOrder,
    EditWithDiscount,
    InvalidTransition,
    OrderCurrencyMismatch,
    OrderNotFound,
    OrderView,
    ShippingUnavailable,
    TotalChanged,
    TotalTooLarge,
)
from markethall.orders.router.dependencies import IdempotencyDep, OrderEditsDep, Staff
from markethall.shared.http.common_errors import AUTHENTICATED_ERRORS, REQUIRED_IDEMPOTENCY_ERRORS
from markethall.shared.http.problem_details import with_upstream_errors
from markethall.shared.kernel.model import Id

router = APIRouter(tags=["orders"])


@router.post(
    "/orders/{order_id}/edits",
    response_model=OrderView,
    summary="Edit the lines of an order",
    responses=with_upstream_errors(
        {
            404: ("inventory.product_not_found",),
            409: (
                "inventory.out_of_stock",
                "inventory.reservation_closed",
                "payments.in_progress",
                "payments.invalid_transition",
            ),
        },
        *AUTHENTICATED_ERRORS,
        *REQUIRED_IDEMPOTENCY_ERRORS,
        OrderNotFound,
        InvalidTransition,
        EditNeedsPayment,
        EditWithDiscount,
        TotalChanged,
        TotalTooLarge,
        OrderCurrencyMismatch,
        CountryNotServed,
        ShippingUnavailable,
    ),
)
async def edit_order(
    ctx: Staff, order_id: Id, body: EditOrder, edits: OrderEditsDep, idempotency: IdempotencyDep
) -> Response:
    """Set quantities, add products or remove them with quantity 0, before the first shipment.

    Existing lines keep their prices; shipping and taxes are computed again. A pending order gets a
    new payment of the new total (`payment`), and the old one is cancelled. A paid order cannot cost
    more; if it costs less, the difference is refunded soon after the response. If a quantity rises,
    all units must be in stock in addition to those that the order has reserved.
    """
    return await idempotency.run_with_key(
        ctx, body, lambda attempt: edits.edit(ctx, order_id, body, attempt)
    )
