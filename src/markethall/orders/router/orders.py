"""HTTP API of orders: export, look up, place, list, get and cancel them."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Body, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import Field, WrapValidator
from typing_extensions import TypeAliasType

from markethall.orders.carts.router.dependencies import CHECKOUT_ERROR_CODES, CHECKOUT_ERRORS
from markethall.orders.contract import (
    EMAIL_DESCRIPTION,
    AnyAddress,
    CancelOrder,
    EditOpen,
    InvalidTransition,
    LookUpOrder,
    OrderFilters,
    OrderLineRequest,
    OrderNotFound,
    OrderQuery,
    Orders,
    OrderStatusQuery,
    OrderStatusView,
    OrderView,
    PlaceOrder,
    Quantity,
    TimelineView,
    TooMuchToCancel,
    VersionedOrderStatus,
)
from markethall.orders.router.dependencies import (
    IdempotencyDep,
    OrderExportDep,
    OrderLookupsDep,
    OrdersDep,
    OrderViewer,
    Owner,
    OwnerOrStaff,
    Staff,
)
from markethall.shared.http.common_errors import (
    AUTHENTICATED_ERRORS,
    BODY_ERRORS,
    IDEMPOTENCY_ERRORS,
    REQUIRED_IDEMPOTENCY_ERRORS,
)
from markethall.shared.http.conditional_requests import (
    NOT_MODIFIED_RESPONSE,
    apply_if_none_match,
    etag_matches,
)
from markethall.shared.http.csv_responses import csv_response, documented_csv
from markethall.shared.http.disconnects import while_connected
from markethall.shared.http.idempotent_routes import created_response
from markethall.shared.http.problem_details import problems, with_upstream_errors
from markethall.shared.http.query_parameters import from_query
from markethall.shared.http.responses import json_response, versioned_response
from markethall.shared.http.route_policies import public
from markethall.shared.kernel import model
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.email_address import EmailAddress
from markethall.shared.kernel.errors import TooManyRequests, Unavailable
from markethall.shared.kernel.etags import etag
from markethall.shared.kernel.model import Id
from markethall.shared.kernel.pagination import CursorInvalid, Page

router = APIRouter(tags=["orders"])


# the export comes before the route of an order, whose path also matches
@router.get(
    "/orders/export.csv",
    response_class=StreamingResponse,
    summary="Export orders",
    responses=problems(*AUTHENTICATED_ERRORS)
    | documented_csv("The lines of all orders that match"),
)
async def export_orders(
    ctx: Staff, filters: Annotated[OrderFilters, from_query(OrderFilters)], export: OrderExportDep
) -> StreamingResponse:
    """Return orders as CSV. Each row is one line of an order.

    The amounts and addresses of an order stand only in the row of its first line, so that the sum
    of a column counts each order once. Amounts are in major units. An apostrophe stands before a
    text that a spreadsheet would run as a formula.
    """
    return await csv_response(export.export_orders(ctx, filters), "orders.csv")


@router.post(
    "/orders/lookup",
    status_code=202,
    response_class=Response,
    summary="Ask for a link to an order",
    responses=problems(*BODY_ERRORS, TooManyRequests, Unavailable),
)
async def look_up_order(
    ctx: Annotated[CallContext, public()], body: LookUpOrder, lookups: OrderLookupsDep
) -> Response:
    """Send a link to the e-mail address of an order, if the number and the address are right.

    The response is always the same. The link has a token for this order only, which is valid for an
    hour: its holder sees, pays, cancels and returns the order like the buyer.
    """
    await lookups.request(ctx, body)
    return Response(status_code=202, headers={"cache-control": "no-store"})


class PlaceOrderShortForm(model.RequestModel):
    """An order of one line."""

    product_id: Id
    quantity: Quantity
    shipping_address: AnyAddress
    email: Annotated[EmailAddress | None, Field(description=EMAIL_DESCRIPTION)] = None

    def to_place_order(self) -> PlaceOrder:
        line = OrderLineRequest(product_id=self.product_id, quantity=self.quantity)
        return PlaceOrder(lines=(line,), shipping_address=self.shipping_address, email=self.email)


def _parse_by_shape(value: Any, _: Any) -> PlaceOrder | PlaceOrderShortForm:
    """Choose the model by the fields of the body.

    Without this validator, Pydantic would try both models, and report the errors of both.
    """
    is_short_form = isinstance(value, dict) and "lines" not in value and "product_id" in value
    return (PlaceOrderShortForm if is_short_form else PlaceOrder).model_validate(value)


OrderRequest = TypeAliasType(
    "OrderRequest", Annotated[PlaceOrder | PlaceOrderShortForm, WrapValidator(_parse_by_shape)]
)
PlaceBody = Annotated[
    OrderRequest,
    Body(
        openapi_examples={
            "one line": {
                "value": {
                    "product_id": "0199c0de-0000-7000-8000-000000000001",
                    "quantity": 2,
                    "shipping_address": "Keizersgracht 1, 1015 CJ Amsterdam, NL",
                }
            },
            "several lines": {
                "value": {
                    "lines": [
                        {"product_id": "0199c0de-0000-7000-8000-000000000001", "quantity": 2},
                        {"product_id": "0199c0de-0000-7000-8000-000000000002", "quantity": 1},
                    ],
                    "shipping_address": {
                        "recipient": "Ada Lovelace",
                        "line1": "Keizersgracht 1",
                        "city": "Amsterdam",
                        "postal_code": "1015 CJ",
                        "country": "NL",
                    },
                    "expected_total": {"amount": 5997, "currency": "EUR"},
                }
            },
        }
    ),
]


@router.post(
    "/orders",
    status_code=201,
    response_model=OrderView,
    summary="Place an order",
    responses=with_upstream_errors(
        CHECKOUT_ERROR_CODES, *AUTHENTICATED_ERRORS, *REQUIRED_IDEMPOTENCY_ERRORS, *CHECKOUT_ERRORS
    ),
)
async def place_order(
    ctx: Owner, body: PlaceBody, orders: OrdersDep, idempotency: IdempotencyDep
) -> Response:
    """Reserve the stock and open the payment. An unpaid order expires at `expires_at`.

    The `Idempotency-Key` is required. A retry with the same key returns the same order.
    """
    command = body.to_place_order() if isinstance(body, PlaceOrderShortForm) else body
    return await idempotency.run_with_key(
        ctx,
        body,
        lambda attempt: orders.place(ctx, command, attempt),
        created_response(lambda order: f"/orders/{order.order_id}"),
    )


@router.get(
    "/orders",
    response_model=Page[OrderView],
    summary="List orders",
    responses=problems(*AUTHENTICATED_ERRORS, CursorInvalid),
)
async def list_orders(
    ctx: OwnerOrStaff, query: Annotated[OrderQuery, from_query(OrderQuery)], orders: OrdersDep
) -> Response:
    """Return orders. Customers and guests see their own orders, staff see all."""
    return json_response(await orders.list_orders(ctx, query))


@router.get(
    "/orders/{order_id}",
    response_model=OrderView,
    summary="Get an order",
    responses=problems(*AUTHENTICATED_ERRORS, OrderNotFound) | NOT_MODIFIED_RESPONSE,
)
async def get_order(
    request: Request, ctx: OrderViewer, order_id: Id, orders: OrdersDep
) -> Response:
    """Return an order, with its lines and its payment."""
    order = await orders.get_order(ctx, order_id)
    return apply_if_none_match(request, versioned_response(order))


@router.get(
    "/orders/{order_id}/status",
    response_model=OrderStatusView,
    summary="Get the status of an order",
    responses=problems(*AUTHENTICATED_ERRORS, OrderNotFound) | NOT_MODIFIED_RESPONSE,
)
async def get_order_status(
    request: Request,
    *,
    ctx: OrderViewer,
    order_id: Id,
    query: Annotated[OrderStatusQuery, from_query(OrderStatusQuery)],
    orders: OrdersDep,
) -> Response:
    """Return the status. With `wait`, first wait for a change of the order.

    With the header `If-None-Match`, the request waits until the `ETag` of the status is not in this
    header; without the header, until the order is no longer pending. When the time is over, the
    response is the current status, or 304. If too many requests wait (4 of the same client), or the
    server stops, the response comes at once.
    """
    found = (
        await while_connected(request, _wait_for_status(request, ctx, order_id, query, orders))
        if query.wait
        else await orders.get_order_status(ctx, order_id)
    )
    headers = {"etag": etag(found.version)}
    return apply_if_none_match(request, json_response(found.status, headers=headers))


async def _wait_for_status(
    request: Request, ctx: CallContext, order_id: UUID, query: OrderStatusQuery, orders: Orders
) -> VersionedOrderStatus:
    known = request.headers.get("if-none-match")
    is_known = None if known is None else lambda version: etag_matches(known, etag(version))
    return await orders.wait_for_order_status(ctx, order_id, query.wait, is_known)


@router.get(
    "/orders/{order_id}/timeline",
    response_model=TimelineView,
    summary="Get the timeline of an order",
    responses=problems(*AUTHENTICATED_ERRORS, OrderNotFound),
)
async def get_order_timeline(ctx: OrderViewer, order_id: Id, orders: OrdersDep) -> Response:
    """Return all changes of the order with actor, time and reason, the oldest first."""
    return json_response(await orders.get_timeline(ctx, order_id))


@router.post(
    "/orders/{order_id}/cancel",
    response_model=OrderView,
    summary="Cancel an order",
    responses=problems(
        *AUTHENTICATED_ERRORS,
        *IDEMPOTENCY_ERRORS,
        OrderNotFound,
        InvalidTransition,
        EditOpen,
        TooMuchToCancel,
    ),
)
async def cancel_order(
    ctx: OrderViewer,
    order_id: Id,
    body: CancelOrder,
    orders: OrdersDep,
    idempotency: IdempotencyDep,
) -> Response:
    """Cancel an order, or with `lines` only units of a paid order.

    After the first shipment, only staff can cancel the units that are not shipped. Soon after the
    response, the stock is released and the payment is cancelled or refunded.
    """
    return await idempotency.run(
        ctx, body, lambda attempt: orders.cancel(ctx, order_id, body, attempt)
    )
