"""Implementation of the contract `Payments` in this process."""

from uuid import UUID

from markethall.payments.contract.errors import UnknownPaymentMethod
from markethall.payments.contract.internal import (
    ActivatePayments,
    ListPaymentStates,
    OpenPayment,
    PaymentList,
    PaymentStates,
    PaymentSummary,
    RefundPayment,
    RefundView,
)
from markethall.payments.domain.operation import FREE_METHOD
from markethall.payments.domain.payment import Payment
from markethall.payments.ports import ReadStore, Store
from markethall.payments.service.api import PaymentCommands
from markethall.payments.service.provider_client import ProviderClient
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
        provider: ProviderClient,
        commands: PaymentCommands,
        clock: Clock,
    ) -> None:
        self._database = database
        self._provider = provider
        self._saved_methods = commands.saved_methods
        self._issue_refund = commands.issue_refund
        self._clock = clock
        # the use case implements these methods of the contract
        self.capture_due = commands.change_authorization.capture_due
        self.void = commands.change_authorization.void_payment

    async def open(self, ctx: CallContext, command: OpenPayment) -> PaymentSummary:
        """Raises OrderHasPayment, UnknownPaymentMethod."""
        await self._check_method(ctx, command)
        payment = Payment(
            payment_id=command.payment_id,
            order_id=command.order_id,
            replaces=command.replaces,
            is_additional=command.is_additional,
            user_id=command.user_id,
            currency=command.amount.currency,
            country=command.country,
            amount=command.amount.amount,
            expires_at=command.expires_at,
            created_at=self._clock(),
            provider=self._provider.default_provider if command.amount.amount else FREE_METHOD,
        )
        if ctx.actor.is_guest:
            return to_payment_summary(await self._open_for_guest(payment))
        async with self._database.autocommit() as store:
            return to_payment_summary(await store.open_payment(payment))

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

    async def refund(self, ctx: CallContext, command: RefundPayment) -> RefundView:
        attempt = IdempotentCommand.without_key(command.refund_id)
        return await self._issue_refund.refund(ctx, command, attempt)

    async def _check_method(self, ctx: CallContext, command: OpenPayment) -> None:
        """Raise UnknownPaymentMethod if the customer could not confirm with the named method.

        A payment of zero accepts any method.
        """
        method = command.payment_method
        if method is None or not command.amount.amount:
            return
        chosen = await self._saved_methods.choose(
            ctx, method, save_method=False, operation_id=command.payment_id
        )
        if chosen.provider == FREE_METHOD:
            raise UnknownPaymentMethod(payment_method=method)
        self._provider.check_offered(chosen.method, command.amount, command.country)

    async def _open_for_guest(self, payment: Payment) -> Payment:
        async with self._database.transaction() as store:
            # the owner is the user if the guest was claimed after the checkout began
            owner = await store.get_guest_owner_for_update(payment.user_id)
            payment.user_id = owner or payment.user_id
            return await store.open_payment(payment)
