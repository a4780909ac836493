"""Return the money of an order: cancel, void or refund its payment."""

from collections.abc import Sequence
from contextlib import suppress
from uuid import UUID

import structlog

from markethall.payments.contract import (
    InvalidPaymentTransition,
    PaymentInProgress,
    Payments,
    PaymentStatus,
    RefundExceedsCaptured,
    RefundPayment,
    RefundStatus,
    VoidPayment,
)
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.ids import derive_uuid7
from markethall.shared.kernel.money import Money
from markethall.shared.messaging.events import RetryLater

log = structlog.get_logger("markethall.orders")


class RefundFailed(Exception):
    """The provider rejected a refund."""


class PaymentReturns:
    def __init__(self, payments: Payments) -> None:
        self._payments = payments

    async def end(self, ctx: CallContext, payment_id: UUID, reason: str) -> bool:
        """Cancel the payment; void it if it is authorized, refund it if it is captured.

        Return whether it was cancelled. Raises RetryLater while an outcome is not known.
        """
        try:
            await self._payments.cancel(ctx, payment_id)
        except InvalidPaymentTransition as error:
            if error.details["status"] == PaymentStatus.AUTHORIZED:
                await self.void(ctx, payment_id, reason)
            else:
                await self.refund(ctx, payment_id, reason)
            return False
        except PaymentInProgress as error:
            # retry until the outcome of the charge is known
            raise RetryLater("the payment is being decided") from error
        return True

    async def void(self, ctx: CallContext, payment_id: UUID, reason: str) -> None:
        """Void the payment; refund what is captured already. A rejected void is logged.

        The authorization then ends when it expires. Raises RetryLater while an outcome is not
        known.
        """
        command = VoidPayment(payment_id=payment_id, void_id=derive_uuid7(payment_id, "void"))
        try:
            payment = await self._payments.void(ctx, command)
        except PaymentInProgress as error:
            raise RetryLater("the payment is being decided") from error
        if payment.status is PaymentStatus.CAPTURED:
            await self.refund(ctx, payment_id, reason)
        elif payment.status is PaymentStatus.AUTHORIZED:
            log.error("order.void_failed", payment_id=str(payment_id), reason=payment.failure_code)

    async def refund(self, ctx: CallContext, payment_id: UUID, reason: str) -> None:
        """Refund all that is refundable.

        The payment id determines the refund id, so a repeated call returns the same refund.
        """
        command = RefundPayment(
            payment_id=payment_id, refund_id=derive_uuid7(payment_id, "refund"), reason=reason
        )
        # RefundExceedsCaptured means here that nothing is left to refund
        with suppress(RefundExceedsCaptured):
            await self._submit(ctx, command)

    async def refund_up_to(self, ctx: CallContext, command: RefundPayment) -> int:
        """Refund the amount, but at most what is refundable. Return the refunded amount."""
        try:
            return await self._submit(ctx, command)
        except RefundExceedsCaptured as error:
            left = Money.model_validate(error.details["refundable"])
            if not left.amount:
                return 0
            return await self._submit(ctx, command.model_copy(update={"amount": left}))

    async def refund_over(
        self, ctx: CallContext, command: RefundPayment, additional_payment_ids: Sequence[UUID]
    ) -> int:
        """Refund the amount from the payment, and the rest of it from the additional payments.

        The ids of the refunds are derived from the id of the command, and a known refund keeps its
        amount. So a repeated call makes the same refunds. Return the refunded amount.
        """
        refunded = await self.refund_up_to(ctx, command)
        for payment_id in additional_payment_ids:
            left = command.amount.amount - refunded if command.amount else 0
            if left <= 0:
                break
            refund_id = derive_uuid7(command.refund_id, f"payment {payment_id}")
            update = {
                "payment_id": payment_id,
                "refund_id": refund_id,
                "amount": command.amount and command.amount.model_copy(update={"amount": left}),
            }
            refunded += await self.refund_up_to(ctx, command.model_copy(update=update))
        return refunded

    async def _submit(self, ctx: CallContext, command: RefundPayment) -> int:
        refund = await self._payments.refund(ctx, command)
        if refund.status is RefundStatus.FAILED:
            # the event becomes a dead letter, because staff must settle this refund
            raise RefundFailed(refund.failure_code)
        return refund.amount.amount
