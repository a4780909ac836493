"""HTTP API of fulfilments."""

from typing import Annotated, Final

from fastapi import APIRouter, Response

from markethall.orders.contract import (
    EditOpen,
    FulfilmentNotFound,
    FulfilmentView,
    FulfilOrder,
    InvalidTransition,
    OrderNotFound,
    ReturnShipment,
    TooMuchToFulfil,
)
from markethall.orders.router.dependencies import (
    FulfilmentsDep,
    IdempotencyDep,
    OrderViewer,
    Shipper,
    Staff,
)
from markethall.shared.http.common_errors import AUTHENTICATED_ERRORS, IDEMPOTENCY_ERRORS
from markethall.shared.http.idempotent_routes import created_response
from markethall.shared.http.problem_details import problems, with_upstream_errors
from markethall.shared.http.query_parameters import from_query
from markethall.shared.http.responses import json_response
from markethall.shared.kernel.model import Id
from markethall.shared.kernel.pagination import CursorInvalid, Page, PageQuery

router = APIRouter(tags=["orders"])

_CHANGE_ERRORS: Final = (
    *AUTHENTICATED_ERRORS,
    *IDEMPOTENCY_ERRORS,
    FulfilmentNotFound,
    InvalidTransition,
)


@router.post(
    "/orders/{order_id}/fulfilments",
    status_code=201,
    response_model=FulfilmentView,
    summary="Ship lines of an order",
    responses=with_upstream_errors(
        {
            404: ("inventory.product_not_found",),
            409: ("inventory.out_of_stock", "inventory.reservation_closed"),
        },
        *AUTHENTICATED_ERRORS,
        *IDEMPOTENCY_ERRORS,
        OrderNotFound,
        InvalidTransition,
        EditOpen,
        TooMuchToFulfil,
    ),
)
async def fulfil_order(
    ctx: Shipper,
    order_id: Id,
    body: FulfilOrder,
    fulfilments: FulfilmentsDep,
    idempotency: IdempotencyDep,
) -> Response:
    """Ship lines. Without `lines`, everything that is not fulfilled yet is shipped.

    `lines` may also name units of lost or returned shipments. They are reserved again, so the
    response may be `inventory.out_of_stock`.
    """
    return await idempotency.run(
        ctx,
        body,
        lambda attempt: fulfilments.fulfil(ctx, order_id, body, attempt),
        created_response(lambda fulfilment: f"/fulfilments/{fulfilment.fulfilment_id}"),
    )


@router.get(
    "/orders/{order_id}/fulfilments",
    response_model=Page[FulfilmentView],
    summary="List the fulfilments of an order",
    responses=problems(*AUTHENTICATED_ERRORS, OrderNotFound, CursorInvalid),
)
async def list_order_fulfilments(
    ctx: OrderViewer,
    order_id: Id,
    query: Annotated[PageQuery, from_query(PageQuery)],
    fulfilments: FulfilmentsDep,
) -> Response:
    """Return the shipments of an order with their tracking numbers, the oldest first."""
    return json_response(await fulfilments.list_fulfilments(ctx, order_id, query))


@router.get(
    "/fulfilments/{fulfilment_id}",
    response_model=FulfilmentView,
    summary="Get a fulfilment",
    responses=problems(*AUTHENTICATED_ERRORS, FulfilmentNotFound),
)
async def get_fulfilment(
    ctx: OrderViewer, fulfilment_id: Id, fulfilments: FulfilmentsDep
) -> Response:
    """Return a shipment of an order, and its delivery."""
    return json_response(await fulfilments.get_fulfilment(ctx, fulfilment_id))


@router.post(
    "/fulfilments/{fulfilment_id}/deliver",
    response_model=FulfilmentView,
    summary="Mark a fulfilment as delivered",
    responses=problems(*_CHANGE_ERRORS),
)
async def deliver_fulfilment(
    ctx: Staff, fulfilment_id: Id, fulfilments: FulfilmentsDep, idempotency: IdempotencyDep
) -> Response:
    """Mark a fulfilment as delivered. The last delivery completes the order."""
    return await idempotency.run(
        ctx, None, lambda attempt: fulfilments.deliver(ctx, fulfilment_id, attempt)
    )


@router.post(
    "/fulfilments/{fulfilment_id}/lost",
    response_model=FulfilmentView,
    summary="Mark a shipment as lost",
    responses=problems(*_CHANGE_ERRORS),
)
async def mark_fulfilment_lost(
    ctx: Staff, fulfilment_id: Id, fulfilments: FulfilmentsDep, idempotency: IdempotencyDep
) -> Response:
    """Record that a shipment is lost.

    Its units are neither delivered nor unfulfilled. Ship them again by `fulfilments`, or refund
    them by `cancel`, each with `lines`; until then, the order does not complete.
    """
    return await idempotency.run(
        ctx, None, lambda attempt: fulfilments.mark_lost(ctx, fulfilment_id, attempt)
    )


@router.post(
    "/fulfilments/{fulfilment_id}/returned",
    response_model=FulfilmentView,
    summary="Mark a shipment as returned to the sender",
    responses=problems(*_CHANGE_ERRORS),
)
async def mark_fulfilment_returned(
    ctx: Staff,
    fulfilment_id: Id,
    body: ReturnShipment,
    fulfilments: FulfilmentsDep,
    idempotency: IdempotencyDep,
) -> Response:
    """Record that a shipment has come back undelivered.

    With `restock`, its units are soon in the main warehouse again. For the order, the units count
    as those of a lost shipment.
    """
    return await idempotency.run(
        ctx, body, lambda attempt: fulfilments.mark_returned(ctx, fulfilment_id, body, attempt)
    )
