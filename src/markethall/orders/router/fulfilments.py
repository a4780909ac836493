"""HTTP API of fulfilments."""

from fastapi import APIRouter, Request, Response

from markethall.orders.contract import (
    FulfilmentNotFound,
    FulfilmentView,
    FulfilOrder,
    InvalidTransition,
    OrderNotFound,
    TooMuchToFulfil,
)
from markethall.orders.router.dependencies import (
    NO_STORE_HEADERS,
    IdempotencyDep,
    OrdersDep,
    OwnerOrStaff,
    Shipper,
    Staff,
)
from markethall.shared.http.common_errors import (
    AUTHENTICATED_ERRORS,
    IDEMPOTENCY_ERRORS,
)
from markethall.shared.http.idempotent_routes import (
    IDEMPOTENCY_RETENTION_EXTENDED,
    created_response,
    ok_response,
    run_idempotent,
)
from markethall.shared.http.problem_details import problems
from markethall.shared.http.responses import json_response
from markethall.shared.kernel.model import Id

router = APIRouter(tags=["orders"])


@router.post(
    "/orders/{order_id}/fulfilments",
    status_code=201,
    response_model=FulfilmentView,
    summary="Ship lines of an order",
    responses=problems(
        *AUTHENTICATED_ERRORS,
        *IDEMPOTENCY_ERRORS,
        OrderNotFound,
        InvalidTransition,
        TooMuchToFulfil,
    ),
)
async def fulfil_order(
    request: Request,
    *,
    ctx: Shipper,
    order_id: Id,
    body: FulfilOrder,
    orders: OrdersDep,
    idempotency: IdempotencyDep,
) -> Response:
    """Ship lines. Without `lines`, everything that is not fulfilled yet is shipped."""
    return await run_idempotent(
        request,
        ctx,
        body,
        idempotency,
        lambda attempt: orders.fulfil(ctx, order_id, body, attempt),
        created_response(lambda fulfilment: f"/fulfilments/{fulfilment.fulfilment_id}"),
        retention=IDEMPOTENCY_RETENTION_EXTENDED,
    )


@router.get(
    "/fulfilments/{fulfilment_id}",
    response_model=FulfilmentView,
    summary="Get a fulfilment",
    responses=problems(*AUTHENTICATED_ERRORS, FulfilmentNotFound),
)
async def get_fulfilment(ctx: OwnerOrStaff, fulfilment_id: Id, orders: OrdersDep) -> Response:
    """Return a shipment of an order, and its delivery."""
    return json_response(await orders.get_fulfilment(ctx, fulfilment_id), headers=NO_STORE_HEADERS)


@router.post(
    "/fulfilments/{fulfilment_id}/deliver",
    response_model=FulfilmentView,
    summary="Mark a fulfilment as delivered",
    responses=problems(
        *AUTHENTICATED_ERRORS, *IDEMPOTENCY_ERRORS, FulfilmentNotFound, InvalidTransition
    ),
)
async def deliver_fulfilment(
    request: Request, ctx: Staff, fulfilment_id: Id, orders: OrdersDep, idempotency: IdempotencyDep
) -> Response:
    """Mark a fulfilment as delivered. The last delivery completes the order."""
    return await run_idempotent(
        request,
        ctx,
        None,
        idempotency,
        lambda attempt: orders.deliver(ctx, fulfilment_id, attempt),
        ok_response,
        retention=IDEMPOTENCY_RETENTION_EXTENDED,
    )
