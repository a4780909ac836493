"""What an answer of the provider changes."""

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
from markethall.shared.events import Event

ACTION_REQUIRED = "action_required"


@dataclass(frozen=True)
class Settled:
    """What follows from an outcome: news for the neighbours, and how the money moved."""

    event: Event | None = None
    moved: PostingKind | None = None


def settle(
    payment: Payment, operation: Operation, outcome: Outcome | None, now: datetime
) -> Settled:
    """Apply what the provider said about an open operation; None means no answer."""
    if outcome is None:
        return _lost(payment, operation)
    if operation.kind is OperationKind.CHARGE:
        return _charged(payment, operation, outcome, now)
    return _refunded(payment, operation, outcome, now)


def _lost(payment: Payment, operation: Operation) -> Settled:
    operation.lose()
    if operation.kind is OperationKind.CHARGE:
        payment.lose()
    else:
        payment.refund_lost()
    return Settled()


def _charged(payment: Payment, operation: Operation, outcome: Outcome, now: datetime) -> Settled:
    ids = {"payment_id": payment.payment_id, "order_id": payment.order_id}
    match outcome:
        case Succeeded(reference):
            operation.succeed(reference, now)
            payment.capture(operation.operation_id)
            event = PaymentCaptured(**ids, amount=payment.money(payment.captured))
            return Settled(event, PostingKind.CAPTURE if operation.amount else None)
        case Failed(code):
            operation.fail(code, now)
            payment.fail(code)
            return Settled(PaymentFailed(**ids, failure_code=code))
        case ActionRequired(next_action):
            operation.fail(ACTION_REQUIRED, now)
            payment.ask(next_action)
            return Settled()


def _refunded(payment: Payment, operation: Operation, outcome: Outcome, now: datetime) -> Settled:
    if not isinstance(outcome, Succeeded):
        operation.fail(outcome.code if isinstance(outcome, Failed) else ACTION_REQUIRED, now)
        payment.refund_failed(operation.amount)
        return Settled()
    operation.succeed(outcome.reference, now)
    payment.refund_succeeded(operation.amount)
    event = PaymentRefunded(
        payment_id=payment.payment_id,
        order_id=payment.order_id,
        refund_id=operation.operation_id,
        amount=operation.money,
        captured=payment.money(payment.captured),
        refunded=payment.money(payment.refunded),
    )
    return Settled(event, PostingKind.REFUND)
