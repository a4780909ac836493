"""Implementation of the contract `Payments` in this process."""

from uuid import UUID

from markethall.payments.contract.internal import (
    ActivatePayments,
    CapturePayment,
    ListPaymentStates,
    OpenPayment,
    PaymentList,
    PaymentStates,
    PaymentSummary,
    RefundPayment,
    RefundView,
    VoidPayment,
)
from markethall.payments.ports import ReadStore, Store
from markethall.payments.service.change_authorization import ChangeAuthorization
from markethall.payments.service.issue_refund import IssueRefund
from markethall.payments.service.open_payment import OpenPayments
from markethall.payments.service.views import to_payment_summary
from markethall.shared.idempotency.records import IdempotentCommand
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.clock import Clock
from markethall.shared.persistence.database import Database


class InternalPaymentService:
    """The commands that other contexts call."""

    def __init__(
        self,
        database: Database[ReadStore, Store],
        open_payments: OpenPayments,
        issue_refund: IssueRefund,
        change_authorization: ChangeAuthorization,
        clock: Clock,
    ) -> None:
        self._database = database
        self._open_payments = open_payments
        self._issue_refund = issue_refund
        self._change_authorization = change_authorization
        self._clock = clock

    async def open(self, ctx: CallContext, command: OpenPayment) -> PaymentSummary:
        return await self._open_payments.open(ctx, command)

    async def list_payment_states(self, ctx: CallContext, page: ListPaymentStates) -> PaymentStates:
        async with self._database.read_session() as store:
            states = await store.list_payment_states(page.after_payment_id, page.limit)
        return PaymentStates(items=tuple(states))

    async def activate(self, ctx: CallContext, command: ActivatePayments) -> PaymentList:
        async with self._database.autocommit() as store:
            payments = await store.activate_payments(command.payment_ids)
        return PaymentList(items=tuple(map(to_payment_summary, payments)))

    async def cancel(self, ctx: CallContext, payment_id: UUID) -> None:
        async with self._database.transaction() as store:
            if await store.insert_tombstone(payment_id, self._clock()):
                return
            payment = await store.get_payment_for_update(payment_id)
            if payment and payment.cancel():
                await store.save_payment(payment)

    async def capture_due(self, ctx: CallContext, command: CapturePayment) -> PaymentSummary:
        return await self._change_authorization.capture_due(ctx, command)

    async def void(self, ctx: CallContext, command: VoidPayment) -> PaymentSummary:
        return await self._change_authorization.void_payment(ctx, command)

    async def refund(self, ctx: CallContext, command: RefundPayment) -> RefundView:
        attempt = IdempotentCommand.without_key(command.refund_id)
        return await self._issue_refund.refund(ctx, command, attempt)
