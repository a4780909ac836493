"""Marks pending refunds as paid, as staff do after a transfer."""

from collections.abc import Sequence

from markethall.payments.container import PaymentsContainer
from markethall.payments.contract import RefundStatus
from markethall.payments.contract.api import RefundQuery
from markethall.payments.contract.internal import RefundView
from tests.payments.conftest import STAFF, attempt_without_key

DUE = RefundQuery(status=RefundStatus.PENDING, provider="manual")


async def pay_due_refunds(container: PaymentsContainer) -> Sequence[RefundView]:
    """Mark the first page of pending refunds as paid. Return them with their new status."""
    refunds = container.manual_refunds()
    due = await refunds.list_refunds(STAFF, DUE)
    return [
        await refunds.mark_refund_paid(
            STAFF, one.payment_id, one.refund_id, "bank 18", attempt_without_key()
        )
        for one in due.items
    ]
