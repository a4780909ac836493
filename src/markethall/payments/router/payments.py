"""Routes of payments, their captures, and payment methods, also the saved ones."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Final

from fastapi import APIRouter, Request, Response
from pydantic import Field, StrictBool

from markethall.payments.contract.api import (
    OperationView,
    PaymentMethodQuery,
    PaymentMethodsView,
    PaymentQuery,
    PaymentView,
    SavedPaymentMethodView,
)
from markethall.payments.contract.errors import (
    AmountExceedsDue,
    CaptureExceedsAuthorized,
    InvalidPaymentTransition,
    PaymentInProgress,
    PaymentNotFound,
    SavedPaymentMethodNotFound,
    UnknownPaymentMethod,
    UnsupportedByProvider,
)
from markethall.payments.contract.statuses import PaymentStatus
from markethall.payments.router.dependencies import (
    Anyone,
    IdempotencyDep,
    Owner,
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
from markethall.shared.idempotency.records import IdempotentCommand, StoredResponse
from markethall.shared.kernel.model import Id, RequestModel, Text
from markethall.shared.kernel.money import CurrencyMismatch, Money
from markethall.shared.kernel.pagination import CursorInvalid, Page, PageQuery

router = APIRouter(tags=["payments"])

_UNKNOWN_OUTCOME_RESPONSE: Final[dict[int | str, dict[str, Any]]] = {
    202: {"model": PaymentView, "description": "The provider gave no answer yet: unknown"}
}
_CHANGE_ERRORS: Final = (
    *AUTHENTICATED_ERRORS,
    *REQUIRED_IDEMPOTENCY_ERRORS,
    PaymentNotFound,
    InvalidPaymentTransition,
    PaymentInProgress,
)


_NO_ANSWER_RESPONSE: Final[dict[int | str, dict[str, Any]]] = {
    202: {"model": PaymentView, "description": "The provider gave no answer yet"}
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


class CaptureRequest(RequestModel):
    """A capture. Without `amount`, the uncaptured rest is captured."""

    amount: PositiveMoney | None = None
    final: Annotated[
        StrictBool,
        Field(description="Release what is not captured; no other capture is possible then"),
    ] = False

    @property
    def money(self) -> Money | None:
        return Money(**self.amount.model_dump()) if self.amount else None


@router.post(
    "/payments/{payment_id}/capture",
    response_model=PaymentView,
    summary="Capture a payment",
    responses=_NO_ANSWER_RESPONSE
    | problems(*_CHANGE_ERRORS, UnsupportedByProvider, CaptureExceedsAuthorized, CurrencyMismatch),
)
async def capture_payment(
    ctx: Staff,
    payment_id: Id,
    api: PaymentApiDep,
    idempotency: IdempotencyDep,
    body: CaptureRequest | None = None,
) -> Response:
    """Take money of an authorized payment. A retry with the same `Idempotency-Key` takes no more.

    The status stays `authorized` while more can be captured, and becomes `captured` with the last
    capture: the one that takes the rest, a `final` one, or any capture of a provider that captures
    an authorization only once. The uncaptured rest is then released. `authorized` minus `captured`
    can still be captured. If the provider rejects the capture, the status stays `authorized`, and
    `failure_code` says why. While the provider gives no answer, a retry with the same key asks
    again, and any other capture or void is 409 `payments.in_progress`.
    """
    body = body or CaptureRequest()

    change = _Change(
        lambda attempt: api.capture(ctx, payment_id, body.money, attempt, is_final=body.final)
    )
    return await idempotency.run_with_key(ctx, body, change.run, change.to_response)


@router.post(
    "/payments/{payment_id}/void",
    response_model=PaymentView,
    summary="Void a payment",
    responses=_NO_ANSWER_RESPONSE | problems(*_CHANGE_ERRORS),
)
async def void_payment(
    ctx: Staff, payment_id: Id, api: PaymentApiDep, idempotency: IdempotencyDep
) -> Response:
    """Release the uncaptured rest of an authorized payment.

    The status is then `voided`, and the order is cancelled if nothing of it is shipped. After a
    capture the status is `captured`, and the shop keeps the captured amount.
    """

    change = _Change(lambda attempt: api.void(ctx, payment_id, attempt))
    return await idempotency.run_with_key(ctx, None, change.run, change.to_response)


class _Change:
    """A capture or void. Its response is 202 while the provider gives no answer, else 200."""

    def __init__(self, command: Callable[[IdempotentCommand], Awaitable[PaymentView]]) -> None:
        self._command = command
        self._has_outcome = True

    async def run(self, attempt: IdempotentCommand) -> PaymentView:
        payment = await self._command(attempt)
        self._has_outcome = attempt.is_final
        return payment

    def to_response(self, payment: PaymentView) -> StoredResponse:
        return StoredResponse(
            status=200 if self._has_outcome else 202, body=payment.model_dump_json()
        )


@router.get(
    "/saved-payment-methods",
    response_model=Page[SavedPaymentMethodView],
    summary="List saved payment methods",
    responses=problems(*AUTHENTICATED_ERRORS, CursorInvalid),
)
async def list_saved_payment_methods(
    ctx: Owner, query: Annotated[PageQuery, from_query(PageQuery)], api: PaymentApiDep
) -> Response:
    """List the caller's saved methods, the newest first.

    A method is saved by a confirm with `save_payment_method`. To pay with it, confirm with its
    `saved_payment_method_id` as `payment_method`.
    """
    return json_response(await api.list_saved_methods(ctx, query))


@router.delete(
    "/saved-payment-methods/{saved_payment_method_id}",
    status_code=204,
    response_class=Response,
    summary="Delete a saved payment method",
    responses=problems(*AUTHENTICATED_ERRORS, SavedPaymentMethodNotFound),
)
async def delete_saved_payment_method(
    ctx: Owner, saved_payment_method_id: Id, api: PaymentApiDep
) -> None:
    """Delete a saved method, here and at the provider."""
    await api.delete_saved_method(ctx, saved_payment_method_id)


@router.delete(
    "/saved-payment-methods",
    status_code=204,
    response_class=Response,
    summary="Delete all saved payment methods",
    responses=problems(*AUTHENTICATED_ERRORS),
)
async def delete_saved_payment_methods(ctx: Owner, api: PaymentApiDep) -> None:
    """Delete all saved methods of the caller, here and at the provider."""
    await api.delete_saved_methods(ctx)
