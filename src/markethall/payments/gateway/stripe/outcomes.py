"""Outcomes of operations, read from Stripe's objects.

If an answer is about another amount, currency or operation, the functions raise
PaymentGatewayTimeout, as if there were no answer.
"""

from dataclasses import replace
from datetime import timedelta
from typing import Final, NoReturn

import structlog

from markethall.payments.contract.api import NextAction, ProviderSdkAction, RedirectAction
from markethall.payments.gateway.stripe.amounts import (
    SUPPORTED_CURRENCIES,
    AmountNotSupported,
    from_stripe_amount,
    to_stripe_amount,
)
from markethall.payments.gateway.stripe.objects import (
    ABANDONED,
    CAPTURE_KEY,
    OPERATION_KEY,
    Card,
    Intent,
    Method,
    Refund,
)
from markethall.payments.ports import (
    PROVIDER_TIMEOUT,
    ActionRequired,
    Failed,
    MethodDetails,
    OperationKind,
    OperationRequest,
    Outcome,
    OutcomePending,
    PaymentGatewayTimeout,
    Succeeded,
)
from markethall.shared.kernel.money import Money

log = structlog.get_logger("markethall.payments")

PROVIDER: Final = "stripe"
# with this method the shop's page collects the payment data and confirms the intent by Stripe.js
IN_BROWSER: Final = "stripe"
# Stripe cancels an authorization of a card that is not captured within seven days. The gateway
# counts these days from the creation of the operation, which is shortly before the authorization.
# So the time here ends before the time at Stripe.
_AUTHORIZATION_LIFETIME: Final = timedelta(days=7)


def payment_outcome(intent: Intent, request: OperationRequest) -> Outcome | None:
    """Return the outcome of a charge or authorization; None if its intent was never confirmed.

    Raises PaymentGatewayTimeout, AmountNotSupported.
    """
    check_answer(intent, request)
    match intent.status:
        case "requires_action":
            return _action_required(intent, request)
        case "requires_payment_method" | "requires_confirmation":
            return _unpaid_outcome(intent, request)
        case "canceled":
            return _cancelled_outcome(intent, request)
        case "processing":
            raise OutcomePending
        case "requires_capture" | "succeeded":
            return _success(intent, request)


def require_outcome(outcome: Outcome | None) -> Outcome:
    """Raises PaymentGatewayTimeout if there is no outcome."""
    if outcome is None:
        raise PaymentGatewayTimeout
    return outcome


def check_answer(answer: Intent | Refund, request: OperationRequest) -> None:
    """Raise PaymentGatewayTimeout unless the intent or refund is that of the operation."""
    _check(answer.metadata.get(OPERATION_KEY) == str(request.operation_id), request, "operation")
    _check(answer.amount == to_stripe_amount(request.amount), request, "amount")
    _check(answer.currency.upper() == request.amount.currency, request, "currency")


def capture_outcome(intent: Intent, request: OperationRequest) -> Outcome | None:
    """Return the outcome of a capture: succeeded or blocked, as the metadata of the intent says.

    Return None if it says neither. Raises PaymentGatewayTimeout if the status or amount differs.
    """
    if intent.metadata.get(CAPTURE_KEY) == str(request.operation_id):
        _check(intent.status == "succeeded", request, "status")
        _check(intent.amount_received == to_stripe_amount(request.amount), request, "amount")
        return Succeeded(intent.id, fee=_fee(intent))
    return blocked_outcome(intent, request)


def void_outcome(intent: Intent, request: OperationRequest) -> Outcome | None:
    if intent.status == "canceled":
        return Succeeded(intent.id)
    return blocked_outcome(intent, request)


def refund_outcome(refund: Refund, request: OperationRequest) -> Outcome:
    """Return the outcome of a refund.

    A pending refund counts as succeeded, because the money has left the balance of the shop. If the
    customer's bank returns the money later, staff must handle that, because a recorded success is
    never corrected.
    """
    check_answer(refund, request)
    if refund.status in {"failed", "canceled"}:
        return Failed(refund.failure_reason or refund.status, refund.id)
    return Succeeded(refund.id)


def next_action_of(intent: Intent) -> NextAction | None:
    action = intent.next_action
    if action and action.redirect_to_url:
        return RedirectAction(url=action.redirect_to_url.url)
    if intent.client_secret is None:
        return None
    return ProviderSdkAction(provider=PROVIDER, client_secret=intent.client_secret)


def blocked_key(request: OperationRequest) -> str:
    """Return the metadata key with which an intent records a blocked operation.

    It has 40 characters, the maximum at Stripe.
    """
    return f"blocked_{request.operation_id.hex}"


def blocked_outcome(intent: Intent, request: OperationRequest) -> Outcome | None:
    return Failed(PROVIDER_TIMEOUT) if blocked_key(request) in intent.metadata else None


def _unpaid_outcome(intent: Intent, request: OperationRequest) -> Outcome | None:
    if intent.last_payment_error:
        return Failed(intent.last_payment_error.failure_code, intent.id)
    return _action_required(intent, request) if request.method == IN_BROWSER else None


def _success(intent: Intent, request: OperationRequest) -> Outcome:
    saved_method = _saved_method(intent, request)
    if request.kind is OperationKind.CHARGE:
        _check(intent.status == "succeeded", request, "status")
        _check(intent.amount_received == intent.amount, request, "amount")
        return Succeeded(intent.id, fee=_fee(intent), saved_method=saved_method)
    return replace(_authorized(intent, request), saved_method=saved_method)


def _fee(intent: Intent) -> Money | None:
    """Return the fee of Stripe. None if it is not booked yet, or has no exact amount here."""
    if intent.fee is None or intent.fee.currency.upper() not in SUPPORTED_CURRENCIES:
        return None
    try:
        return from_stripe_amount(intent.fee.fee, intent.fee.currency)
    except AmountNotSupported:
        return None


def _authorized(intent: Intent, request: OperationRequest) -> Succeeded:
    return Succeeded(intent.id, request.created_at + _AUTHORIZATION_LIFETIME)


def _saved_method(intent: Intent, request: OperationRequest) -> MethodDetails | None:
    method = intent.payment_method
    if not request.saves_method or not isinstance(method, Method):
        return None
    if method.customer is None or method.customer != request.customer:
        return None
    card = method.card or Card()
    return MethodDetails(method.id, card.brand, card.last4, card.exp_month, card.exp_year)


def _cancelled_outcome(intent: Intent, request: OperationRequest) -> Outcome:
    if intent.cancellation_reason == ABANDONED:
        return Failed(PROVIDER_TIMEOUT, intent.id)
    if request.kind is OperationKind.AUTHORIZE and intent.was_authorized:
        # the authorization had succeeded; the void or the expiry came later
        return _authorized(intent, request)
    return Failed("canceled", intent.id)


def _action_required(intent: Intent, request: OperationRequest) -> Outcome:
    next_action = next_action_of(intent)
    if next_action is None:
        _reject_answer(request, "next_action")
    return ActionRequired(next_action, intent.id, is_cancellable=True)


def _check(holds: bool, request: OperationRequest, field: str) -> None:
    if not holds:
        _reject_answer(request, field)


def _reject_answer(request: OperationRequest, field: str) -> NoReturn:
    log.error("stripe.answer_mismatch", operation_id=str(request.operation_id), field=field)
    raise PaymentGatewayTimeout
