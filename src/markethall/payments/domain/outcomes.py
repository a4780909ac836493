"""Apply the outcome of an operation to its payment."""

from dataclasses import dataclass
from datetime import datetime

from markethall.payments.contract import (
    OperationKind,
    PaymentCaptured,
    PaymentFailed,
    PaymentRefunded,
    PostingKind,
)
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


@dataclass(frozen=True)
class OutcomeEffects:
    """Effects of an outcome: the event to publish and the posting to add."""

    event: Event | None = None
    posting_kind: PostingKind | None = None


def settle_operation(
    payment: Payment, operation: Operation, outcome: Outcome | None, now: datetime
) -> OutcomeEffects:
    """Apply an outcome to an open operation and its payment. A timeout has the outcome None."""
    if outcome is None:
        return _settle_without_outcome(payment, operation)
    if operation.kind is OperationKind.CHARGE:
        return _settle_charge(payment, operation, outcome, now)
    return _settle_refund(payment, operation, outcome, now)


def _settle_without_outcome(payment: Payment, operation: Operation) -> OutcomeEffects:
    operation.mark_unknown()
    if operation.kind is OperationKind.CHARGE:
        payment.mark_unknown()
    else:
        payment.mark_refund_unknown()
    return OutcomeEffects()


def _settle_charge(
    payment: Payment, operation: Operation, outcome: Outcome, now: datetime
) -> OutcomeEffects:
    ids = {"payment_id": payment.payment_id, "order_id": payment.order_id}
    match outcome:
        case Succeeded(reference):
            operation.succeed(reference, now)
            payment.capture(operation.operation_id)
            event = PaymentCaptured(**ids, amount=payment.money(payment.captured))
            return OutcomeEffects(event, PostingKind.CAPTURE if operation.amount else None)
        case Failed(code):
            operation.fail(code, now)
            payment.fail(code)
            return OutcomeEffects(PaymentFailed(**ids, failure_code=code))
        case ActionRequired(next_action):
            operation.fail(ACTION_REQUIRED, now)
            payment.require_action(next_action)
            return OutcomeEffects()


def _settle_refund(
    payment: Payment, operation: Operation, outcome: Outcome, now: datetime
) -> OutcomeEffects:
    if not isinstance(outcome, Succeeded):
        operation.fail(outcome.code if isinstance(outcome, Failed) else ACTION_REQUIRED, now)
        payment.fail_refund(operation.amount)
        return OutcomeEffects()
    operation.succeed(outcome.reference, now)
    payment.complete_refund(operation.amount)
    event = PaymentRefunded(
        payment_id=payment.payment_id,
        order_id=payment.order_id,
        refund_id=operation.operation_id,
        amount=operation.money,
        captured=payment.money(payment.captured),
        refunded=payment.money(payment.refunded),
    )
    return OutcomeEffects(event, PostingKind.REFUND)
