"""HTTP API of returns."""

from typing import Annotated, Final

from fastapi import APIRouter, Response

from markethall.orders.contract import InvalidTransition, OrderNotFound
from markethall.orders.returns.contract import (
    CloseReturn,
    ReceiveReturn,
    RejectReturn,
    RequestReturn,
    ReturnNotFound,
    ReturnView,
    ShippingRefunded,
    TooMuchReceived,
    TooMuchToReturn,
)
from markethall.orders.router.dependencies import IdempotencyDep, OrderViewer, ReturnsDep, Staff
from markethall.shared.http.common_errors import (
    AUTHENTICATED_ERRORS,
    IDEMPOTENCY_ERRORS,
    REQUIRED_IDEMPOTENCY_ERRORS,
)
from markethall.shared.http.idempotent_routes import created_response
from markethall.shared.http.problem_details import problems
from markethall.shared.http.query_parameters import from_query
from markethall.shared.http.responses import json_response
from markethall.shared.kernel.model import Id
from markethall.shared.kernel.pagination import CursorInvalid, Page, PageQuery

router = APIRouter(tags=["orders"])

_CHANGE_ERRORS: Final = (
    *AUTHENTICATED_ERRORS,
    *IDEMPOTENCY_ERRORS,
    ReturnNotFound,
    InvalidTransition,
)


@router.post(
    "/orders/{order_id}/returns",
    status_code=201,
    response_model=ReturnView,
    summary="Request a return",
    responses=problems(*AUTHENTICATED_ERRORS, *IDEMPOTENCY_ERRORS, OrderNotFound, TooMuchToReturn),
)
async def request_return(
    ctx: OrderViewer,
    order_id: Id,
    body: RequestReturn,
    returns: ReturnsDep,
    idempotency: IdempotencyDep,
) -> Response:
    """Request to send delivered units back. A unit can be in one return at a time."""
    return await idempotency.run(
        ctx,
        body,
        lambda attempt: returns.request(ctx, order_id, body, attempt),
        created_response(lambda made: f"/returns/{made.return_id}"),
    )


@router.get(
    "/orders/{order_id}/returns",
    response_model=Page[ReturnView],
    summary="List the returns of an order",
    responses=problems(*AUTHENTICATED_ERRORS, OrderNotFound, CursorInvalid),
)
async def list_order_returns(
    ctx: OrderViewer,
    order_id: Id,
    query: Annotated[PageQuery, from_query(PageQuery)],
    returns: ReturnsDep,
) -> Response:
    """Return the returns of an order, the oldest first."""
    page = await returns.list_returns(ctx, order_id, query)
    return json_response(page)


@router.get(
    "/returns/{return_id}",
    response_model=ReturnView,
    summary="Get a return",
    responses=problems(*AUTHENTICATED_ERRORS, ReturnNotFound),
)
async def get_return(ctx: OrderViewer, return_id: Id, returns: ReturnsDep) -> Response:
    """Return a return, with the units that have arrived and its refund."""
    return json_response(await returns.get_return(ctx, return_id))


@router.post(
    "/returns/{return_id}/approve",
    response_model=ReturnView,
    summary="Approve a return",
    responses=problems(*_CHANGE_ERRORS),
)
async def approve_return(
    ctx: Staff, return_id: Id, returns: ReturnsDep, idempotency: IdempotencyDep
) -> Response:
    """Approve a requested return: the customer may send the units."""
    return await idempotency.run(
        ctx, None, lambda attempt: returns.approve(ctx, return_id, attempt)
    )


@router.post(
    "/returns/{return_id}/reject",
    response_model=ReturnView,
    summary="Reject a return",
    responses=problems(*_CHANGE_ERRORS),
)
async def reject_return(
    ctx: Staff, return_id: Id, body: RejectReturn, returns: ReturnsDep, idempotency: IdempotencyDep
) -> Response:
    """Reject a requested return. Its units can be in another return."""
    return await idempotency.run(
        ctx, body, lambda attempt: returns.reject(ctx, return_id, body, attempt)
    )


@router.post(
    "/returns/{return_id}/cancel",
    response_model=ReturnView,
    summary="Cancel a return",
    responses=problems(*_CHANGE_ERRORS),
)
async def cancel_return(
    ctx: OrderViewer, return_id: Id, returns: ReturnsDep, idempotency: IdempotencyDep
) -> Response:
    """Cancel a return before its units arrive."""
    return await idempotency.run(ctx, None, lambda attempt: returns.cancel(ctx, return_id, attempt))


@router.post(
    "/returns/{return_id}/receive",
    response_model=ReturnView,
    summary="Record units of a return that have arrived",
    responses=problems(
        *AUTHENTICATED_ERRORS,
        *REQUIRED_IDEMPOTENCY_ERRORS,
        ReturnNotFound,
        InvalidTransition,
        TooMuchReceived,
    ),
)
async def receive_return(
    ctx: Staff, return_id: Id, body: ReceiveReturn, returns: ReturnsDep, idempotency: IdempotencyDep
) -> Response:
    """Record units that have arrived; more may arrive later.

    Units with the disposition `restock` are soon in the main warehouse again. The
    `Idempotency-Key` is required.
    """
    return await idempotency.run_with_key(
        ctx, body, lambda attempt: returns.receive(ctx, return_id, body, attempt)
    )


@router.post(
    "/returns/{return_id}/close",
    response_model=ReturnView,
    summary="Close and refund a return",
    responses=problems(
        *AUTHENTICATED_ERRORS,
        *REQUIRED_IDEMPOTENCY_ERRORS,
        ReturnNotFound,
        InvalidTransition,
        ShippingRefunded,
    ),
)
async def close_return(
    ctx: Staff, return_id: Id, body: CloseReturn, returns: ReturnsDep, idempotency: IdempotencyDep
) -> Response:
    """Close a return. Soon after the response, the received units are refunded.

    The refund contains the share of the units in the discounts and taxes of the order, but is at
    most the amount of the payment that is not refunded yet. Units that have not arrived can be in
    another return. The `Idempotency-Key` is required.
    """
    return await idempotency.run_with_key(
        ctx, body, lambda attempt: returns.close(ctx, return_id, body, attempt)
    )
