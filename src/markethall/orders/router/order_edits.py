"""HTTP API of the changes and the edits of orders."""

from typing import Final

from fastapi import APIRouter, Response

from markethall.orders.configuration.router import ExpectedVersionsDep
from markethall.orders.contract import (
    AddressChangesPrice,
    ChangeOrder,
    CountryNotServed,
    EditApplied,
    EditNeedsCapture,
    EditNotFound,
    EditOpen,
    EditOrder,
    EditPreview,
    InvalidTransition,
    OrderCurrencyMismatch,
    OrderNotFound,
    OrderView,
    RegionRequired,
    ShippingUnavailable,
    TotalChanged,
    TotalTooLarge,
)
from markethall.orders.router.dependencies import (
    IdempotencyDep,
    OrderChangesDep,
    OrderEditsDep,
    OwnerOrStaff,
    Staff,
)
from markethall.shared.http.common_errors import (
    AUTHENTICATED_ERRORS,
    IDEMPOTENCY_ERRORS,
    REQUIRED_IDEMPOTENCY_ERRORS,
    VERSION_ERRORS,
)
from markethall.shared.http.problem_details import with_upstream_errors
from markethall.shared.http.responses import json_response, versioned_response
from markethall.shared.kernel.model import Id

router = APIRouter(tags=["orders"])


@router.patch(
    "/orders/{order_id}",
    response_model=OrderView,
    summary="Change an order",
    responses=with_upstream_errors(
        {404: ("inventory.product_not_found",)},
        *AUTHENTICATED_ERRORS,
        *VERSION_ERRORS,
        OrderNotFound,
        InvalidTransition,
        EditOpen,
        AddressChangesPrice,
        OrderCurrencyMismatch,
        CountryNotServed,
        RegionRequired,
        ShippingUnavailable,
    ),
)
async def change_order(
    ctx: OwnerOrStaff,
    order_id: Id,
    expected_versions: ExpectedVersionsDep,
    body: ChangeOrder,
    changes: OrderChangesDep,
) -> Response:
    """Change tags, staff note, metadata and shipping address, or stop and allow the shipping.

    The owner may change only the metadata, while the order is pending. The amounts never change: a
    new shipping address, possible before the first shipment, is rejected if the shipping or the
    taxes would differ there.
    """
    order = await changes.change(ctx, order_id, body, expected_versions)
    return versioned_response(order)


_PRICING_ERRORS: Final = (
    OrderNotFound,
    InvalidTransition,
    EditOpen,
    EditNeedsCapture,
    TotalChanged,
    TotalTooLarge,
    OrderCurrencyMismatch,
    CountryNotServed,
    RegionRequired,
    ShippingUnavailable,
)


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
        *_PRICING_ERRORS,
    ),
)
async def edit_order(
    ctx: Staff, order_id: Id, body: EditOrder, edits: OrderEditsDep, idempotency: IdempotencyDep
) -> Response:
    """Set quantities, add products or remove them with quantity 0, before the first shipment.

    Existing lines keep their prices; shipping and taxes are computed again. The order keeps its
    promotions as they were when it was placed, and gets no others. A promotion that gives no
    discount after the edit, for example because the order is below its `min_total`, is dropped,
    also for later edits. A pending order gets a new payment of the new total (`payment`), and the
    old one is cancelled. If a paid order costs less, the difference is refunded soon after the
    response. If it costs more, the response has an `open_edit` with a payment of the difference:
    the order stays as it is until this payment is captured, and cannot be shipped or changed
    otherwise. At the deadline the edit ends without an effect. If quantities rise, the additional
    units must be in stock.
    """
    return await idempotency.run_with_key(
        ctx, body, lambda attempt: edits.edit(ctx, order_id, body, attempt)
    )


@router.post(
    "/orders/{order_id}/edits/preview",
    response_model=EditPreview,
    summary="Preview an edit of an order",
    responses=with_upstream_errors(
        {404: ("inventory.product_not_found",), 409: ("inventory.out_of_stock",)},
        *AUTHENTICATED_ERRORS,
        *_PRICING_ERRORS,
    ),
)
async def preview_order_edit(
    ctx: Staff, order_id: Id, body: EditOrder, edits: OrderEditsDep
) -> Response:
    """Return the lines and amounts that the order would have after the edit.

    Nothing is reserved, charged or stored. The edit may still be rejected, because the stock is
    sold or the customer pays meanwhile. With `expected_total`, it is rejected if its total differs.
    """
    return json_response(await edits.preview(ctx, order_id, body))


@router.post(
    "/orders/{order_id}/edits/{edit_id}/cancel",
    response_model=OrderView,
    summary="Cancel an edit that waits for its payment",
    responses=with_upstream_errors(
        {409: ("payments.in_progress", "payments.invalid_transition")},
        *AUTHENTICATED_ERRORS,
        *IDEMPOTENCY_ERRORS,
        OrderNotFound,
        EditNotFound,
        EditApplied,
    ),
)
async def cancel_order_edit(
    *, ctx: Staff, order_id: Id, edit_id: Id, edits: OrderEditsDep, idempotency: IdempotencyDep
) -> Response:
    """Cancel the payment of the open edit, and release its units. The order stays as it is."""
    return await idempotency.run(
        ctx, None, lambda attempt: edits.cancel_edit(ctx, order_id, edit_id, attempt)
    )
