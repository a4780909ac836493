"""Convert entities of payments to DTOs of the contract."""

from markethall.payments.contract.api import (
    OperationView,
    PaymentMethodView,
    PaymentView,
    SavedPaymentMethodView,
)
from markethall.payments.contract.internal import PaymentSummary, RefundView
from markethall.payments.contract.ledger import PostingEntryView, PostingView
from markethall.payments.contract.statuses import RefundStatus
from markethall.payments.domain.ledger import RecordedPosting
from markethall.payments.domain.operation import Operation
from markethall.payments.domain.payment import Payment
from markethall.payments.domain.saved_method import SavedMethod
from markethall.payments.ports import PaymentMethod
from markethall.shared.kernel.money import Money


def to_payment_view(payment: Payment) -> PaymentView:
    summary = to_payment_summary(payment)
    return PaymentView(
        **dict(summary) | {"next_action": payment.next_action, "dispute": payment.dispute}
    )


def to_payment_summary(payment: Payment) -> PaymentSummary:
    return PaymentSummary(
        payment_id=payment.payment_id,
        order_id=payment.order_id,
        user_id=payment.user_id,
        status=payment.status,
        amount=payment.money(payment.amount),
        authorized=payment.money(payment.authorized),
        captured=payment.money(payment.captured),
        refunded=payment.money(payment.refunded),
        provider=payment.provider,
        failure_code=payment.failure_code,
        expires_at=payment.expires_at,
        created_at=payment.created_at,
        version=payment.version,
    )


def to_payment_method_view(provider: str, method: PaymentMethod) -> PaymentMethodView:
    return PaymentMethodView(
        method=method.method, provider=provider, name=method.name, instructions=method.instructions
    )


def to_operation_view(operation: Operation, *, with_fee: bool = False) -> OperationView:
    names = OperationView.model_fields.keys() - {"amount", "fee"}
    return OperationView(
        **{name: getattr(operation, name) for name in names},
        amount=operation.money,
        fee=operation.fee if with_fee else None,
    )


def to_refund_view(operation: Operation, payment: Payment) -> RefundView:
    """Build the view of a refund operation. The operation id is the refund id."""
    return RefundView(
        refund_id=operation.operation_id,
        payment_id=operation.payment_id,
        order_id=payment.order_id,
        amount=operation.money,
        status=RefundStatus(operation.status.value),
        reason=operation.reason,
        failure_code=operation.failure_code,
        created_at=operation.created_at,
        provider=operation.provider,
        provider_reference=operation.provider_reference,
    )


def to_saved_method_view(method: SavedMethod) -> SavedPaymentMethodView:
    details = method.details
    return SavedPaymentMethodView(
        saved_payment_method_id=method.saved_method_id,
        provider=method.provider,
        brand=details.brand,
        last4=details.last4,
        exp_month=details.exp_month,
        exp_year=details.exp_year,
        created_at=method.created_at,
    )


def to_posting_view(recorded: RecordedPosting) -> PostingView:
    posting, position = recorded.posting, recorded.position
    return PostingView(
        posting_id=posting.posting_id,
        payment_id=posting.payment_id,
        operation_id=posting.operation_id,
        kind=posting.kind,
        entries=tuple(
            PostingEntryView(
                account=account, amount=Money(amount=amount, currency=posting.currency)
            )
            for account, amount in posting.entries
        ),
        created_at=posting.created_at,
        chain=position.chain,
        sequence=position.sequence,
        hash=position.hash.hex(),
    )
