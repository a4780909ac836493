"""HTTP API of draft orders."""

from typing import Annotated, Final, Protocol

from fastapi import APIRouter, Depends, Request, Response

from markethall.orders.carts.router.dependencies import CHECKOUT_ERROR_CODES, CHECKOUT_ERRORS
from markethall.orders.configuration.router import ExpectedVersionsDep, IdempotencyDep, Staff
from markethall.orders.contract import OrderView
from markethall.orders.drafts.contract import (
    ChangeDraftOrder,
    DraftOrderChanged,
    DraftOrderCompleted,
    DraftOrderNotFound,
    DraftOrderPreview,
    DraftOrderQuery,
    DraftOrders,
    DraftOrderView,
    NewDraftOrder,
)
from markethall.shared.http.common_errors import (
    AUTHENTICATED_ERRORS,
    BODY_ERRORS,
    IDEMPOTENCY_ERRORS,
    REQUIRED_IDEMPOTENCY_ERRORS,
    VERSION_ERRORS,
)
from markethall.shared.http.conditional_requests import NOT_MODIFIED_RESPONSE, apply_if_none_match
from markethall.shared.http.dependencies import FromContext
from markethall.shared.http.idempotent_routes import created_response
from markethall.shared.http.problem_details import problems, with_upstream_errors
from markethall.shared.http.query_parameters import from_query
from markethall.shared.http.responses import current_response, json_response, versioned_response
from markethall.shared.kernel.model import Id
from markethall.shared.kernel.pagination import CursorInvalid, Page

router = APIRouter(prefix="/draft-orders", tags=["orders"])


class Services(Protocol):
    def draft_orders(self) -> DraftOrders: ...


_from_orders: Final[FromContext[Services]] = FromContext("orders")
DraftOrdersDep = Annotated[
    DraftOrders, Depends(_from_orders(lambda container: container.draft_orders()))
]


@router.post(
    "",
    status_code=201,
    response_model=DraftOrderView,
    summary="Create a draft order",
    responses=problems(*AUTHENTICATED_ERRORS, *BODY_ERRORS, *IDEMPOTENCY_ERRORS),
)
async def create_draft_order(
    ctx: Staff, body: NewDraftOrder, drafts: DraftOrdersDep, idempotency: IdempotencyDep
) -> Response:
    """Prepare an order for a customer, or for a buyer without an account. Nothing is reserved."""
    return await idempotency.run(
        ctx,
        body,
        lambda attempt: drafts.create(ctx, body, attempt),
        created_response(lambda draft: f"/draft-orders/{draft.draft_order_id}"),
    )


@router.get(
    "",
    response_model=Page[DraftOrderView],
    summary="List draft orders",
    responses=problems(*AUTHENTICATED_ERRORS, CursorInvalid),
)
async def list_draft_orders(
    ctx: Staff,
    query: Annotated[DraftOrderQuery, from_query(DraftOrderQuery)],
    drafts: DraftOrdersDep,
) -> Response:
    """Return draft orders, the newest first."""
    return json_response(await drafts.list_page(ctx, query))


@router.get(
    "/{draft_order_id}",
    response_model=DraftOrderPreview,
    summary="Get a draft order",
    responses=problems(*AUTHENTICATED_ERRORS, DraftOrderNotFound) | NOT_MODIFIED_RESPONSE,
)
async def get_draft_order(
    request: Request, ctx: Staff, draft_order_id: Id, drafts: DraftOrdersDep
) -> Response:
    """Return a draft order with its current totals, and what prevents its completion."""
    view = await drafts.get(ctx, draft_order_id)
    return apply_if_none_match(request, current_response(view))


@router.patch(
    "/{draft_order_id}",
    response_model=DraftOrderView,
    summary="Change a draft order",
    responses=problems(
        *AUTHENTICATED_ERRORS,
        *BODY_ERRORS,
        *VERSION_ERRORS,
        DraftOrderNotFound,
        DraftOrderCompleted,
    ),
)
async def change_draft_order(
    ctx: Staff,
    draft_order_id: Id,
    expected_versions: ExpectedVersionsDep,
    body: ChangeDraftOrder,
    drafts: DraftOrdersDep,
) -> Response:
    """Change a draft order by a JSON merge patch (RFC 7396). `lines` replaces all lines."""
    view = await drafts.change(ctx, draft_order_id, body, expected_versions)
    return versioned_response(view)


@router.delete(
    "/{draft_order_id}",
    status_code=204,
    response_class=Response,
    summary="Delete a draft order",
    responses=problems(
        *AUTHENTICATED_ERRORS, *VERSION_ERRORS, DraftOrderNotFound, DraftOrderCompleted
    ),
)
async def delete_draft_order(
    ctx: Staff, draft_order_id: Id, expected_versions: ExpectedVersionsDep, drafts: DraftOrdersDep
) -> Response:
    """Delete a draft order that is not completed."""
    await drafts.delete(ctx, draft_order_id, expected_versions)
    return Response(status_code=204)


@router.post(
    "/{draft_order_id}/complete",
    status_code=201,
    response_model=OrderView,
    summary="Place the order of a draft",
    responses=with_upstream_errors(
        CHECKOUT_ERROR_CODES,
        *AUTHENTICATED_ERRORS,
        *REQUIRED_IDEMPOTENCY_ERRORS,
        DraftOrderNotFound,
        DraftOrderCompleted,
        DraftOrderChanged,
        *CHECKOUT_ERRORS,
    ),
)
async def complete_draft_order(
    ctx: Staff, draft_order_id: Id, drafts: DraftOrdersDep, idempotency: IdempotencyDep
) -> Response:
    """Place the order, as the customer would. A draft never has more than one order.

    The order is pending until its payment is paid: by the customer, or by staff, who confirm it
    with a manual payment method (`POST /payments/{payment_id}/confirm`) and later record the money
    (`mark-paid`). Like every unpaid order, it expires at `expires_at`.
    """
    return await idempotency.run_with_key(
        ctx,
        None,
        lambda attempt: drafts.complete(ctx, draft_order_id, attempt),
        created_response(lambda order: f"/orders/{order.order_id}"),
    )
