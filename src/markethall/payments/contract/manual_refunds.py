"""Refunds of all payments, and those that staff transfer by hand."""

from typing import Annotated, Protocol
from uuid import UUID

from pydantic import Field

from markethall.payments.contract.internal import RefundView
from markethall.payments.contract.statuses import RefundStatus
from markethall.shared.idempotency.records import IdempotentCommand
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.model import Text
from markethall.shared.kernel.pagination import Page, PageQuery


class RefundQuery(PageQuery):
    """Filters of the list of refunds. `pending` refunds of `manual` wait for staff."""

    status: RefundStatus | None = None
    provider: Annotated[Text, Field(max_length=50, examples=["manual"])] | None = None


class ManualRefunds(Protocol):
    """The refunds that no provider executes. Staff only."""

    async def list_refunds(self, ctx: CallContext, query: RefundQuery) -> Page[RefundView]:
        """Return refunds of all payments, the oldest first. Raises CursorInvalid."""

    async def mark_refund_paid(
        self,
        ctx: CallContext,
        payment_id: UUID,
        refund_id: UUID,
        reference: str,
        attempt: IdempotentCommand,
    ) -> RefundView:
        """Record that staff have transferred the amount of a pending refund.

        Raises RefundNotFound, UnsupportedByProvider (the provider executes its refunds),
        InvalidPaymentTransition (the refund is settled).
        """
