"""HTTP API of the changes of orders."""

from typing import Annotated

from fastapi import APIRouter, Depends, Response

from markethall.orders.contract import (
    AddressChangesPrice,
    ChangeOrder,
    CountryNotServed,
    EditOpen,
    InvalidTransition,
    OrderCurrencyMismatch,
    OrderNotFound,
    OrderView,
    RegionRequired,
    ShippingUnavailable,
)
from markethall.orders.router.dependencies import OrderChangesDep, OwnerOrStaff
from markethall.shared.http.common_errors import AUTHENTICATED_ERRORS, VERSION_ERRORS
from markethall.shared.http.conditional_requests import if_match
from markethall.shared.http.problem_details import with_upstream_errors
from markethall.shared.http.responses import versioned_response
from markethall.shared.kernel.etags import ExpectedVersions
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
    expected_versions: Annotated[ExpectedVersions, Depends(if_match)],
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
