"""Routes of payments and payment methods."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Request, Response
from pydantic import Field

from markethall.payments.contract.api import (
    OperationView,
    PaymentMethodQuery,
    PaymentMethodsView,
    PaymentQuery,
    PaymentView,
)
from markethall.payments.contract.errors import (
    AmountExceedsDue,
    InvalidPaymentTransition,
    PaymentInProgress,
    PaymentNotFound,
    UnknownPaymentMethod,
    UnsupportedByProvider,
)
from markethall.payments.contract.statuses import PaymentStatus
from markethall.payments.router.dependencies import (
    Anyone,
    IdempotencyDep,
    OwnerOrStaff,
    Payer,
    PaymentApiDep,
    PaymentViewer,
    PositiveMoney,
    Staff,
)
from markethall.shared.http.common_errors import AUTHENTICATED_ERRORS, REQUIRED_IDEMPOTENCY_ERRORS
from markethall.shared.http.conditional_requests import NOT_MODIFIED_RESPONSE, apply_if_none_match
from markethall.shared.http.problem_details import problems
from markethall.shared.http.query_parameters import from_query
from markethall.shared.http.responses import json_response, versioned_response
from markethall.shared.idempotency.records import StoredResponse
from markethall.shared.kernel.model import Id, RequestModel, Text
from markethall.shared.kernel.money import CurrencyMismatch, Money
from markethall.shared.kernel.pagination import CursorInvalid, Page, PageQuery

router = APIRouter(tags=["payments"])

_UNKNOWN_OUTCOME_RESPONSE: Final[dict[int | str, dict[str, Any]]] = {
    202: {"model": PaymentView, "description": "The provider gave no answer yet: unknown"}
}


class ConfirmPaymentRequest(RequestModel):
    payment_method: Annotated[Text, Field(min_length=1, max_length=100, examples=["sandbox_ok"])]
    save_payment_method: bool = False


class MarkPaidRequest(RequestModel):
    """Money that arrived outside of the shop. `reference` identifies it on the bank statement."""

    amount: PositiveMoney
    reference: Annotated[Text, Field(min_length=1, max_length=200, examples=["2026-11-30/17"])]


@router.get("/payment-methods", response_model=PaymentMethodsView, summary="List payment methods")
async def list_payment_methods(
    _: Anyone,
    query: Annotated[PaymentMethodQuery, from_query(PaymentMethodQuery)],
    api: PaymentApiDep,
) -> Response:
    """List the methods that this shop offers for a currency, a country and a total.

    A parameter that is missing excludes no method. Confirm a payment with one of these methods.
    """
    return json_response(api.list_payment_methods(query))


@router.get(
    "/payments",
    response_model=Page[PaymentView],
    summary="List payments",
    responses=problems(*AUTHENTICATED_ERRORS, CursorInvalid),
)
async def list_payments(
    ctx: OwnerOrStaff, query: Annotated[PaymentQuery, from_query(PaymentQuery)], api: PaymentApiDep
) -> Response:
    """List payments. Customers see their own payments, staff see all."""
    return json_response(await api.list_payments(ctx, query))


@router.get(
    "/payments/{payment_id}",
    response_model=PaymentView,
    summary="Get a payment",
    responses=problems(*AUTHENTICATED_ERRORS, PaymentNotFound) | NOT_MODIFIED_RESPONSE,
)
async def get_payment(
    request: Request, ctx: PaymentViewer, payment_id: Id, api: PaymentApiDep
) -> Response:
    """Return a payment, with the next action of the customer."""
    view = await api.get_payment(ctx, payment_id)
    return apply_if_none_match(request, versioned_response(view))


@router.post(
    "/payments/{payment_id}/confirm",
    response_model=PaymentView,
    summary="Confirm a payment",
    responses=_UNKNOWN_OUTCOME_RESPONSE
    | problems(
        *AUTHENTICATED_ERRORS,
        *REQUIRED_IDEMPOTENCY_ERRORS,
        PaymentNotFound,
        UnknownPaymentMethod,
        UnsupportedByProvider,
        InvalidPaymentTransition,
        PaymentInProgress,
    ),
)
async def confirm_payment(
    ctx: Payer,
    payment_id: Id,
    body: ConfirmPaymentRequest,
    api: PaymentApiDep,
    idempotency: IdempotencyDep,
) -> Response:
    """Charge the payment. A retry with the same `Idempotency-Key` charges nothing more.

    The status is `failed` after a decline; a request with a new key charges again.

    Staff may confirm the payment of a customer with a method of the provider `manual`, for example
    for an order by phone.

    With `save_payment_method`, the method is saved when the charge succeeds; see
    `GET /saved-payment-methods`. `payment_method` may be the id of a saved method of the caller.

    The sandbox accepts sandbox_ok, sandbox_declined, sandbox_insufficient_funds,
    sandbox_action_required, sandbox_timeout_before, sandbox_timeout_after, sandbox_slow and
    sandbox_webhook_first. Stripe accepts tokens that Stripe.js has created, and the method
    `stripe`: the shop's page then collects the payment data with Stripe.js.
    """
    return await idempotency.run_with_key(
        ctx,
        body,
        lambda attempt: api.confirm(
            ctx, payment_id, body.payment_method, attempt, save_method=body.save_payment_method
        ),
        _to_confirm_response,
    )


@router.get(
    "/payments/{payment_id}/operations",
    response_model=Page[OperationView],
    summary="List the operations of a payment",
    responses=problems(*AUTHENTICATED_ERRORS, PaymentNotFound, CursorInvalid),
)
async def list_payment_operations(
    ctx: OwnerOrStaff,
    payment_id: Id,
    query: Annotated[PageQuery, from_query(PageQuery)],
    api: PaymentApiDep,
) -> Response:
    """Return the requests to the payment provider, the oldest first."""
    return json_response(await api.list_operations(ctx, payment_id, query))


@router.post(
    "/payments/{payment_id}/mark-paid",
    response_model=PaymentView,
    summary="Mark a payment as paid",
    responses=problems(
        *AUTHENTICATED_ERRORS,
        *REQUIRED_IDEMPOTENCY_ERRORS,
        PaymentNotFound,
        UnsupportedByProvider,
        InvalidPaymentTransition,
        PaymentInProgress,
        AmountExceedsDue,
        CurrencyMismatch,
    ),
)
async def mark_payment_paid(
    ctx: Staff,
    payment_id: Id,
    body: MarkPaidRequest,
    api: PaymentApiDep,
    idempotency: IdempotencyDep,
) -> Response:
    """Record money that arrived outside of the shop, by a method such as bank transfer.

    Partial amounts add up in `captured`; when the sum reaches the amount of the payment, the
    payment is captured. An amount above the unpaid rest is rejected: record the unpaid rest, and
    pay the difference back. Money for an expired or cancelled payment is recorded too. If it is the
    full amount and the stock is available, the order is reinstated; otherwise the money is
    refunded.
    """
    amount = Money(**body.amount.model_dump())

    return await idempotency.run_with_key(
        ctx, body, lambda attempt: api.mark_paid(ctx, payment_id, amount, body.reference, attempt)
    )


def _to_confirm_response(payment: PaymentView) -> StoredResponse:
    """Respond with 202 while the outcome of the charge is unknown, else with 200."""
    status = 202 if payment.status is PaymentStatus.UNKNOWN else 200
    return StoredResponse(status=status, body=payment.model_dump_json())
