"""Transfers the refunds that wait for staff."""

from collections.abc import Sequence

from markethall.payments.container import PaymentsContainer
from markethall.payments.contract import RefundStatus, RefundView
from markethall.payments.contract.manual_refunds import RefundQuery
from tests.payments.conftest import STAFF, attempt_without_key

DUE = RefundQuery(status=RefundStatus.PENDING, provider="manual")


async def pay_due_refunds(container: PaymentsContainer) -> Sequence[RefundView]:
    """Mark all refunds as paid that are due. Return them as they are then."""
    refunds = container.manual_refunds()
    due = await refunds.list_refunds(STAFF, DUE)
    return [
        await refunds.mark_refund_paid(
            STAFF, one.payment_id, one.refund_id, "bank 18", attempt_without_key()
        )
        for one in due.items
    ]
