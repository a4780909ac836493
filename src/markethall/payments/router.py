"""HTTP API of payments."""

from typing import Annotated, Any, Final, Protocol

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, Field

from markethall.payments.contract import (
    AmountExceedsDue,
    InvalidPaymentTransition,
    LedgerAccountBalance,
    LedgerReport,
    OperationView,
    PaymentApi,
    PaymentInProgress,
    PaymentMethodQuery,
    PaymentMethodsView,
    PaymentNotFound,
    PaymentQuery,
    PaymentStatus,
    PaymentView,
    PostingQuery,
    PostingView,
    RefundExceedsCaptured,
    RefundNotFound,
    RefundView,
    UnknownPaymentMethod,
    UnknownProvider,
    UnsupportedByProvider,
    WebhookReceipt,
    WebhookSignatureInvalid,
)
from markethall.shared.http.common_errors import AUTHENTICATED_ERRORS, REQUIRED_IDEMPOTENCY_ERRORS
from markethall.shared.http.conditional_requests import NOT_MODIFIED_RESPONSE, apply_if_none_match
from markethall.shared.http.dependencies import FromContext
from markethall.shared.http.idempotent_routes import (
    IDEMPOTENCY_RETENTION_EXTENDED,
    created_response,
    ok_response,
    run_idempotent,
)
from markethall.shared.http.problem_details import problems
from markethall.shared.http.query_parameters import from_query
from markethall.shared.http.responses import json_response
from markethall.shared.http.route_policies import public, require_scope
from markethall.shared.idempotency.records import (
    IdempotentCommand,
    StoredResponse,
)
from markethall.shared.idempotency.service import IdempotencyService
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.errors import (
    BodyTooLarge,
    MalformedRequest,
    Unavailable,
    UnsupportedMediaType,
    ValidationFailed,
)
from markethall.shared.kernel.etags import etag
from markethall.shared.kernel.model import MAX_AMOUNT, Id, Int, RequestModel, Text
from markethall.shared.kernel.money import Currency, CurrencyMismatch, Money
from markethall.shared.kernel.pagination import CursorInvalid, Page, PageQuery
from markethall.shared.kernel.scopes import PAYMENTS, PAYMENTS_MANAGE

router = APIRouter(tags=["payments"])


class Services(Protocol):
    """The services that these routes call."""

    def payment_api(self) -> PaymentApi: ...

    def idempotency(self) -> IdempotencyService: ...


_from_payments: Final[FromContext[Services]] = FromContext("payments")
PaymentApiDep = Annotated[
    PaymentApi, Depends(_from_payments(lambda container: container.payment_api()))
]
IdempotencyDep = Annotated[
    IdempotencyService, Depends(_from_payments(lambda container: container.idempotency()))
]
Anyone = Annotated[CallContext, public()]
Owner = Annotated[CallContext, require_scope(PAYMENTS)]
Staff = Annotated[CallContext, require_scope(PAYMENTS_MANAGE)]
OwnerOrStaff = Annotated[CallContext, require_scope(PAYMENTS, PAYMENTS_MANAGE)]

_UNKNOWN_OUTCOME_RESPONSE: Final[dict[int | str, dict[str, Any]]] = {
    202: {"model": PaymentView, "description": "The provider gave no answer yet: unknown"}
}


class ConfirmPaymentRequest(RequestModel):
    payment_method: Annotated[Text, Field(min_length=1, max_length=100, examples=["sandbox_ok"])]


class PositiveMoney(RequestModel):
    amount: Annotated[Int, Field(ge=1, le=MAX_AMOUNT, examples=[500])]
    currency: Currency


class MarkPaidRequest(RequestModel):
    """Money that arrived outside of the shop. `reference` identifies it on the bank statement."""

    amount: PositiveMoney
    reference: Annotated[Text, Field(min_length=1, max_length=200, examples=["2026-11-30/17"])]


class RefundRequest(RequestModel):
    """A refund of a payment. Without `amount`, all that is refundable is refunded."""

    amount: PositiveMoney | None = None
    reason: Annotated[Text, Field(min_length=1, max_length=500, examples=["damaged"])]

    @property
    def money(self) -> Money | None:
        return Money(**self.amount.model_dump()) if self.amount else None


# Payments


@router.get(
    "/payment-methods",
    response_model=PaymentMethodsView,
    summary="List payment methods",
)
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
    """Customers see their own payments, staff see those of all customers."""
    return json_response(await api.list_payments(ctx, query))


@router.get(
    "/payments/{payment_id}",
    response_model=PaymentView,
    summary="Get a payment",
    responses=problems(*AUTHENTICATED_ERRORS, PaymentNotFound) | NOT_MODIFIED_RESPONSE,
)
async def get_payment(
    request: Request, ctx: OwnerOrStaff, payment_id: Id, api: PaymentApiDep
) -> Response:
    view = await api.get_payment(ctx, payment_id)
    return apply_if_none_match(request, json_response(view, headers={"etag": etag(view.version)}))


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
        InvalidPaymentTransition,
        PaymentInProgress,
    ),
)
async def confirm_payment(
    request: Request,
    *,
    ctx: Owner,
    payment_id: Id,
    body: ConfirmPaymentRequest,
    api: PaymentApiDep,
    idempotency: IdempotencyDep,
) -> Response:
    """Charge the payment. A retry with the same `Idempotency-Key` charges nothing more.

    The status is `failed` after a decline; a request with a new key charges again.

    The sandbox accepts sandbox_ok, sandbox_declined, sandbox_insufficient_funds,
    sandbox_action_required, sandbox_timeout_before, sandbox_timeout_after, sandbox_slow and
    sandbox_webhook_first. Stripe accepts tokens that Stripe.js has created, and the method
    `stripe`: the shop's page then collects the payment data with Stripe.js.
    """

    async def effect(attempt: IdempotentCommand) -> PaymentView:
        return await api.confirm(ctx, payment_id, body.payment_method, attempt)

    return await run_idempotent(
        request,
        ctx,
        body,
        idempotency,
        effect,
        _to_confirm_response,
        required=True,
        retention=IDEMPOTENCY_RETENTION_EXTENDED,
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
    request: Request,
    *,
    ctx: Staff,
    payment_id: Id,
    body: MarkPaidRequest,
    api: PaymentApiDep,
    idempotency: IdempotencyDep,
) -> Response:
    """Record money that arrived outside of the shop, by a method such as bank transfer.

    Partial amounts add up in `captured`; when the sum reaches the amount of the payment, the
    payment is captured. An amount above what is due is rejected: record what is due, and pay the
    difference back. Money for an expired or cancelled payment is recorded too. If it is the full
    amount and the stock is available, the order is reinstated; otherwise the money is refunded.
    """
    amount = Money(**body.amount.model_dump())

    async def effect(attempt: IdempotentCommand) -> PaymentView:
        return await api.mark_paid(ctx, payment_id, amount, body.reference, attempt)

    return await run_idempotent(
        request,
        ctx,
        body,
        idempotency,
        effect,
        ok_response,
        required=True,
        retention=IDEMPOTENCY_RETENTION_EXTENDED,
    )


# Refunds


@router.post(
    "/payments/{payment_id}/refunds",
    status_code=201,
    response_model=RefundView,
    summary="Refund a payment",
    responses=problems(
        *AUTHENTICATED_ERRORS,
        *REQUIRED_IDEMPOTENCY_ERRORS,
        PaymentNotFound,
        InvalidPaymentTransition,
        RefundExceedsCaptured,
        CurrencyMismatch,
    ),
)
async def create_refund(
    request: Request,
    *,
    ctx: Staff,
    payment_id: Id,
    body: RefundRequest,
    api: PaymentApiDep,
    idempotency: IdempotencyDep,
) -> Response:
    """Refund a payment. A retry with the same `Idempotency-Key` returns the same refund.

    The status is `unknown` while the provider does not answer; a job then looks up the outcome.
    """

    async def effect(attempt: IdempotentCommand) -> RefundView:
        return await api.refund(ctx, payment_id, body.money, body.reason, attempt)

    to_response = created_response(
        lambda made: f"/payments/{made.payment_id}/refunds/{made.refund_id}"
    )
    return await run_idempotent(
        request,
        ctx,
        body,
        idempotency,
        effect,
        to_response,
        required=True,
        retention=IDEMPOTENCY_RETENTION_EXTENDED,
    )


@router.get(
    "/payments/{payment_id}/refunds",
    response_model=Page[RefundView],
    summary="List the refunds of a payment",
    responses=problems(*AUTHENTICATED_ERRORS, PaymentNotFound, CursorInvalid),
)
async def list_refunds(
    ctx: Staff,
    payment_id: Id,
    query: Annotated[PageQuery, from_query(PageQuery)],
    api: PaymentApiDep,
) -> Response:
    return json_response(await api.list_refunds(ctx, payment_id, query))


@router.get(
    "/payments/{payment_id}/refunds/{refund_id}",
    response_model=RefundView,
    summary="Get a refund",
    responses=problems(*AUTHENTICATED_ERRORS, PaymentNotFound, RefundNotFound),
)
async def get_refund(ctx: Staff, payment_id: Id, refund_id: Id, api: PaymentApiDep) -> Response:
    return json_response(await api.get_refund(ctx, payment_id, refund_id))


# Webhooks

_RAW_BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "description": "The event. The header `Sandbox-Signature` or `Stripe-Signature` signs"
        " exactly these bytes.",
        "content": {"application/json": {"schema": {"type": "object"}}},
    }
}


@router.post(
    "/payments/webhooks/{provider}",
    response_model=WebhookReceipt,
    summary="Receive a webhook",
    responses=problems(
        UnknownProvider,
        UnsupportedByProvider,
        WebhookSignatureInvalid,
        MalformedRequest,
        BodyTooLarge,
        UnsupportedMediaType,
        ValidationFailed,
        Unavailable,
    ),
    openapi_extra=_RAW_BODY,
)
async def receive_webhook(
    request: Request,
    ctx: Anyone,
    provider: Annotated[Text, Field(max_length=50, examples=["sandbox"])],
    api: PaymentApiDep,
) -> Response:
    """Store and apply an event of a provider. The response is 200 for a duplicate too."""
    body = await request.body()
    return json_response(await api.receive_webhook(ctx, provider, request.headers, body))


# Ledger


class LedgerAccountsView(BaseModel):
    items: tuple[LedgerAccountBalance, ...]


@router.get(
    "/transactions",
    response_model=Page[PostingView],
    summary="List ledger postings",
    responses=problems(*AUTHENTICATED_ERRORS, CursorInvalid),
)
async def list_transactions(
    ctx: Staff, query: Annotated[PostingQuery, from_query(PostingQuery)], api: PaymentApiDep
) -> Response:
    """List the postings of the ledger, the newest first. Debits are positive, credits negative."""
    return json_response(await api.list_postings(ctx, query))


@router.get(
    "/ledger/accounts",
    response_model=LedgerAccountsView,
    summary="List account balances",
    responses=problems(*AUTHENTICATED_ERRORS),
)
async def list_ledger_accounts(ctx: Staff, api: PaymentApiDep) -> Response:
    return json_response(LedgerAccountsView(items=await api.list_account_balances(ctx)))


@router.get(
    "/ledger/verify",
    response_model=LedgerReport,
    summary="Verify the ledger",
    responses=problems(*AUTHENTICATED_ERRORS),
)
async def verify_ledger(ctx: Staff, api: PaymentApiDep) -> Response:
    return json_response(await api.verify_ledger(ctx))


def _to_confirm_response(payment: PaymentView) -> StoredResponse:
    """Respond with 202 while the outcome of the charge is unknown, else with 200."""
    status = 202 if payment.status is PaymentStatus.UNKNOWN else 200
    return StoredResponse(status=status, body=payment.model_dump_json())
