"""Return the money of an order: cancel, void or refund its payment.

An order whose payment succeeds after it has expired is reinstated if its stock and its promotions
are still available. Otherwise, and for a cancelled order, the money is returned.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from uuid import UUID

import structlog

from markethall.inventory.contract import OutOfStock, ProductNotFound, ReservationStatus, Reserve
from markethall.orders.domain import Order
from markethall.orders.promotions.domain import RedemptionFailed
from markethall.orders.service.checkout import ContextClients, ReservationPolicy
from markethall.orders.service.handled_orders import HandledOrders
from markethall.orders.service.order_events import paid_event
from markethall.orders.service.quotes import to_requested_lines
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
from markethall.shared.kernel.clock import Clock
from markethall.shared.kernel.ids import derive_uuid7
from markethall.shared.kernel.money import Money
from markethall.shared.messaging.events import Delivery, RetryLater

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
        """Void the payment; refund its captured amount. A rejected void is logged.

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
        """Refund the whole refundable amount.

        The payment id determines the refund id, so a repeated call returns the same refund.
        """
        command = RefundPayment(
            payment_id=payment_id, refund_id=derive_uuid7(payment_id, "refund"), reason=reason
        )
        # RefundExceedsCaptured means here that nothing is left to refund
        with suppress(RefundExceedsCaptured):
            await self._submit(ctx, command)

    async def refund_up_to(self, ctx: CallContext, command: RefundPayment) -> int:
        """Refund the amount, at most the refundable one. Return the refunded amount."""
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


class LatePayments:
    def __init__(
        self,
        clients: ContextClients,
        orders: HandledOrders,
        policy: ReservationPolicy,
        clock: Clock,
    ) -> None:
        self._inventory = clients.inventory
        self._returns = PaymentReturns(clients.payments)
        self._orders = orders
        self._policy = policy
        self._clock = clock

    async def reinstate(
        self, delivery: Delivery, order: Order, authorized_version: int | None = None
    ) -> bool:
        """Reserve the stock with a new reservation, and take the uses of promotions again.

        If stock or a use is missing, return the money, and return False. `authorized_version` is
        the version of the payment if the payment is only authorized.
        """
        reservation_id = derive_uuid7(order.order_id, "reinstatement")
        ctx, reason = delivery.call_context(), "out of stock by now"
        if await self._reserve_again(ctx, order, reservation_id):
            audit = self._orders.audit(delivery, "paid after it had expired")
            reinstated = replace(order)
            reinstated.reinstate(reservation_id, audit, authorized_version)
            try:
                await self._orders.save(delivery, reinstated, paid_event(reinstated))
            except RedemptionFailed:
                reason = "the promotion is used up by now"
            else:
                return True
        # a `reserve` request of an earlier run may arrive after this release; it then has no effect
        await self._inventory.release(ctx, reservation_id)
        if authorized_version is None:
            await self.refund(delivery, order, f"{reason}: refunded")
        else:
            await self.void(delivery, order, reason)
        return False

    async def _reserve_again(self, ctx: CallContext, order: Order, reservation_id: UUID) -> bool:
        command = Reserve(
            reservation_id=reservation_id,
            order_id=order.order_id,
            customer_id=order.user_id,
            lines=to_requested_lines(order.lines),
            expires_at=self._clock() + self._policy.reservation_ttl,
        )
        try:
            reservation = await self._inventory.reserve(ctx, command)
        except (OutOfStock, ProductNotFound):
            return False
        return reservation.status is not ReservationStatus.RELEASED

    async def refund(self, delivery: Delivery, order: Order, reason: str) -> None:
        await self._returns.refund(delivery.call_context(), order.payment_id, reason)
        order.record_late_payment(self._orders.audit(delivery, reason))
        await self._orders.save(delivery, order)

    async def void(self, delivery: Delivery, order: Order, reason: str) -> None:
        """Void the payment. The handler of the resulting event changes the order."""
        await self._returns.void(delivery.call_context(), order.payment_id, reason)
        await self._orders.mark_processed(delivery)
