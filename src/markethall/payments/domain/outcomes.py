"""Rules for the outcome of an operation: how it changes the operation and its payment.

The first outcome settles an open operation: its status becomes `succeeded` or `failed`. A later
outcome contradicts a settled operation if it differs from the recorded outcome, for example a
success after a recorded failure. A correction then replaces the recorded outcome.
"""

from datetime import datetime, timedelta
from typing import Final

from markethall.payments.contract.api import PaymentDispute
from markethall.payments.contract.errors import InvalidPaymentTransition, RefundExceedsCaptured
from markethall.payments.contract.events import (
    DisputeChanged,
    PaymentCaptured,
    PaymentFailed,
    PaymentPartiallyCaptured,
    PaymentRefunded,
    PaymentStatusChanged,
)
from markethall.payments.contract.statuses import OperationKind, OperationStatus, PaymentStatus
from markethall.payments.domain.operation import (
    ActionRequired,
    Failed,
    Operation,
    Outcome,
    Succeeded,
)
from markethall.payments.domain.payment import Payment
from markethall.shared.messaging.events import Event

ACTION_REQUIRED = "action_required"
# a charge that waits for the customer is looked up again after this time
FIRST_FOLLOW_UP: Final = timedelta(minutes=1)
# the operations that a confirm sends
CHARGE_KINDS: Final = frozenset({OperationKind.CHARGE, OperationKind.AUTHORIZE})
# applies if the provider does not report when an authorization expires
_DEFAULT_AUTHORIZATION_LIFETIME: Final = timedelta(days=7)


def settle_operation(
    payment: Payment, operation: Operation, outcome: Outcome | None, now: datetime
) -> Event | None:
    """Apply an outcome to an open operation and its payment. Return the event to publish.

    `outcome` is None if the provider gave none.
    """
    if outcome is None:
        return _settle_without_outcome(payment, operation)
    if operation.kind in CHARGE_KINDS:
        return _settle_charge(payment, operation, outcome, now)
    if operation.kind is OperationKind.REFUND:
        return _settle_refund(payment, operation, outcome, now)
    return _settle_change(payment, operation, outcome, now)


def contradicts(payment: Payment, operation: Operation, outcome: Outcome) -> bool:
    """Return whether an outcome differs from the recorded outcome of a settled operation.

    Two failures count as equal, even if their codes differ, with one exception: the charge is
    recorded as failed because the customer must act first, and the payment still waits for that
    action. A failure then means that the action has failed. An answer that requires an action is
    older than the success of the charge, so it contradicts nothing.
    """
    if operation.status is OperationStatus.SUCCEEDED:
        return isinstance(outcome, Failed)
    waits_for_action = (
        operation.failure_code == ACTION_REQUIRED
        and payment.status is PaymentStatus.REQUIRES_ACTION
    )
    return isinstance(outcome, Succeeded) or (isinstance(outcome, Failed) and waits_for_action)


def correct_operation(
    payment: Payment, operation: Operation, outcome: Outcome, now: datetime
) -> Event | None:
    """Apply an outcome that contradicts a settled operation. Return the event to publish.

    Return None if the operation has succeeded, or if the payment does not allow the correction.

    Raises PaymentInProgress while another charge, capture or void of the payment is open.
    """
    try:
        if operation.status is OperationStatus.SUCCEEDED:
            return None
        if operation.kind in CHARGE_KINDS:
            return _correct_charge(payment, operation, outcome, now)
        if operation.kind is OperationKind.REFUND:
            return _correct_refund(payment, operation, outcome, now)
        return _correct_change(payment, operation, outcome, now)
    except (InvalidPaymentTransition, RefundExceedsCaptured):
        return None


def _correct_charge(
    payment: Payment, operation: Operation, outcome: Outcome, now: datetime
) -> Event:
    if isinstance(outcome, Succeeded):
        return _correct_failed_charge(payment, operation, outcome, now)
    code = outcome.code if isinstance(outcome, Failed) else ACTION_REQUIRED
    payment.correct_failure(code)
    operation.fail(code, now, outcome.reference)
    return _failed_event(payment, code)


def _correct_failed_charge(
    payment: Payment, operation: Operation, outcome: Succeeded, now: datetime
) -> Event:
    if operation.kind is OperationKind.AUTHORIZE:
        end = _authorization_end(outcome, now)
        payment.authorize_late(operation.operation_id, operation.provider, end)
        operation.succeed(outcome.reference, now)
        return status_changed_event(payment)
    payment.capture_late(operation.operation_id, operation.provider)
    operation.succeed(outcome.reference, now)
    return captured_event(payment)


def _correct_change(
    payment: Payment, operation: Operation, outcome: Outcome, now: datetime
) -> Event | None:
    """Apply the late success of a capture. A late success of a void is not applied.

    After such a void, the payment stays authorized here until it expires.
    """
    if operation.kind is OperationKind.VOID or not isinstance(outcome, Succeeded):
        return None
    payment.correct_capture(operation.amount, is_final=operation.is_final)
    operation.succeed(outcome.reference, now)
    return _capture_event(payment, operation)


def _correct_refund(
    payment: Payment, operation: Operation, outcome: Outcome, now: datetime
) -> Event | None:
    if not isinstance(outcome, Succeeded):
        return None
    payment.correct_refund(operation.amount)
    operation.succeed(outcome.reference, now)
    return _refunded_event(payment, operation)


def _settle_without_outcome(payment: Payment, operation: Operation) -> Event | None:
    operation.mark_unknown()
    if operation.kind in CHARGE_KINDS:
        payment.mark_unknown()
        return status_changed_event(payment)
    payment.await_outcome()
    return None


def _settle_charge(
    payment: Payment, operation: Operation, outcome: Outcome, now: datetime
) -> Event | None:
    match outcome:
        case Succeeded(reference):
            operation.succeed(reference, now)
            if operation.kind is OperationKind.AUTHORIZE:
                payment.authorize(operation.operation_id, _authorization_end(outcome, now))
                return status_changed_event(payment)
            payment.capture(operation.operation_id)
            return captured_event(payment)
        case Failed(code, reference):
            operation.fail(code, now, reference)
            payment.fail(code)
            return _failed_event(payment, code)
        case ActionRequired(next_action, reference, expires_at):
            operation.fail(ACTION_REQUIRED, now, reference)
            if outcome.is_cancellable:
                operation.follow_up_at = now + FIRST_FOLLOW_UP
            if outcome.lifetime is not None:
                expires_at = payment.created_at + outcome.lifetime
            payment.require_action(next_action, expires_at)
            return status_changed_event(payment)


def _settle_change(
    payment: Payment, operation: Operation, outcome: Outcome, now: datetime
) -> Event | None:
    """Settle a capture or void."""
    if not isinstance(outcome, Succeeded):
        code = outcome.code if isinstance(outcome, Failed) else ACTION_REQUIRED
        operation.fail(code, now, outcome.reference)
        payment.fail_change(code)
        return None
    operation.succeed(outcome.reference, now)
    if operation.kind is OperationKind.VOID:
        payment.complete_void()
        return ended_event(payment)
    payment.complete_capture(operation.amount, is_final=operation.is_final)
    return _capture_event(payment, operation)


def _settle_refund(
    payment: Payment, operation: Operation, outcome: Outcome, now: datetime
) -> Event | None:
    if not isinstance(outcome, Succeeded):
        code = outcome.code if isinstance(outcome, Failed) else ACTION_REQUIRED
        operation.fail(code, now, outcome.reference)
        payment.fail_refund(operation.amount)
        return None
    operation.succeed(outcome.reference, now)
    payment.complete_refund(operation.amount)
    return _refunded_event(payment, operation)


def captured_event(payment: Payment) -> PaymentCaptured:
    return PaymentCaptured(
        payment_id=payment.payment_id,
        order_id=payment.order_id,
        amount=payment.money(payment.captured),
    )


def _capture_event(payment: Payment, operation: Operation) -> Event:
    if payment.status is PaymentStatus.CAPTURED:
        return captured_event(payment)
    return PaymentPartiallyCaptured(
        payment_id=payment.payment_id,
        order_id=payment.order_id,
        capture_id=operation.operation_id,
        amount=operation.money,
        captured=payment.money(payment.captured),
    )


def ended_event(payment: Payment) -> Event:
    """Return the event about an ended authorization: captured in part, or without a capture."""
    is_captured = payment.status is PaymentStatus.CAPTURED
    return captured_event(payment) if is_captured else status_changed_event(payment)


def _authorization_end(outcome: Succeeded, now: datetime) -> datetime:
    return outcome.expires_at or now + _DEFAULT_AUTHORIZATION_LIFETIME


def _failed_event(payment: Payment, code: str) -> PaymentFailed:
    return PaymentFailed(
        payment_id=payment.payment_id,
        order_id=payment.order_id,
        failure_code=code,
        payment_version=payment.version,
    )


def status_changed_event(payment: Payment) -> PaymentStatusChanged:
    return PaymentStatusChanged(
        payment_id=payment.payment_id,
        order_id=payment.order_id,
        status=payment.status,
        payment_version=payment.version,
        expires_at=payment.expires_at,
    )


def dispute_changed_event(payment: Payment, dispute: PaymentDispute) -> DisputeChanged:
    return DisputeChanged(
        payment_id=payment.payment_id,
        order_id=payment.order_id,
        status=dispute.status,
        reason=dispute.reason,
        amount=dispute.amount,
        due_by=dispute.due_by,
        provider_reference=dispute.provider_reference,
        payment_version=payment.version,
    )


def _refunded_event(payment: Payment, operation: Operation) -> PaymentRefunded:
    return PaymentRefunded(
        payment_id=payment.payment_id,
        order_id=payment.order_id,
        refund_id=operation.operation_id,
        amount=operation.money,
        captured=payment.money(payment.captured),
        refunded=payment.money(payment.refunded),
    )
