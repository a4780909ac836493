"""Charge a payment: record the operation, call the provider, record the outcome."""

import asyncio
from contextlib import suppress
from datetime import datetime
from typing import Literal
from uuid import UUID

from markethall.payments.contract.api import (
    PaymentMethodQuery,
    PaymentMethodsView,
    PaymentMethodView,
    PaymentView,
)
from markethall.payments.contract.errors import (
    PaymentNotFound,
    UnknownPaymentMethod,
    UnsupportedByProvider,
)
from markethall.payments.contract.statuses import OperationKind, PaymentStatus
from markethall.payments.domain.operation import FREE_METHOD, Operation, Outcome
from markethall.payments.domain.outcomes import status_changed_event
from markethall.payments.domain.payment import Payment
from markethall.payments.ports import Capability, ReadStore, Store
from markethall.payments.service.apply_outcome import store_outcome, try_settle_charge
from markethall.payments.service.provider_client import ProviderClient
from markethall.payments.service.saved_methods import ChosenMethod
from markethall.payments.service.views import to_payment_method_view, to_payment_view
from markethall.shared.idempotency.records import IdempotentCommand
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.clock import Clock
from markethall.shared.kernel.errors import Unavailable
from markethall.shared.kernel.scopes import PAYMENTS_MANAGE
from markethall.shared.persistence.database import Database

CaptureMode = Literal["automatic", "on_fulfilment"]


class ChargePayment:
    def __init__(
        self,
        database: Database[ReadStore, Store],
        provider: ProviderClient,
        clock: Clock,
        capture_mode: CaptureMode,
    ) -> None:
        self._capture_mode = capture_mode
        self._database = database
        self._provider = provider
        self._clock = clock

    def list_methods(self, query: PaymentMethodQuery) -> PaymentMethodsView:
        """Return the methods that this shop offers for the query."""
        if query.total == 0:
            free = PaymentMethodView(
                method=FREE_METHOD, provider=FREE_METHOD, name="Free of charge"
            )
            return PaymentMethodsView(items=(free,))
        offered = self._provider.list_methods(query.currency, query.country, query.total)
        return PaymentMethodsView(
            items=tuple(to_payment_method_view(provider, method) for provider, method in offered)
        )

    async def confirm(
        self, ctx: CallContext, payment_id: UUID, chosen: ChosenMethod, attempt: IdempotentCommand
    ) -> PaymentView:
        """Charge the payment; authorize it if the shop captures on fulfilment.

        Raises UnknownPaymentMethod, PaymentNotFound, UnsupportedByProvider,
        InvalidPaymentTransition, PaymentInProgress; Unavailable or Overloaded when the provider
        cannot be called.
        """
        # take the slot first, so that a rejected request has recorded no operation
        with self._provider.slot(chosen.provider):
            payment, operation = await self._record_intent(ctx, payment_id, chosen, attempt.id)
            outcome = await self._submit(ctx, operation) if operation.is_pending else None
        return await try_settle_charge(
            self._database, ctx, (payment, operation), outcome, attempt, self._clock()
        ) or await store_outcome(
            self._database,
            ctx,
            (operation, outcome),
            attempt,
            self._clock,
            lambda applied: to_payment_view(applied.payment),
        )

    async def _record_intent(
        self, ctx: CallContext, payment_id: UUID, chosen: ChosenMethod, operation_id: UUID
    ) -> tuple[Payment, Operation]:
        """Insert the operation, or return the one that an earlier attempt inserted.

        Nothing is locked: the operation is inserted only if the payment is still as it was read.
        """
        async with self._database.autocommit() as store:
            found, existing = await store.get_payment_for_operation(payment_id, operation_id)
            payment = self._require_payable(ctx, payment_id, found, chosen)
            if existing:
                return payment, existing
            operation = self._confirm(payment, chosen, operation_id)
            if await store.try_add_operation(payment, operation):
                return payment, operation
        return await self._record_intent_with_lock(ctx, payment_id, chosen, operation_id)

    async def _record_intent_with_lock(
        self, ctx: CallContext, payment_id: UUID, chosen: ChosenMethod, operation_id: UUID
    ) -> tuple[Payment, Operation]:
        async with self._database.transaction() as store:
            found = await store.get_payment_for_update(payment_id)
            payment = self._require_payable(ctx, payment_id, found, chosen)
            existing = await store.get_operation(operation_id)
            if existing:
                return payment, existing
            operation = self._confirm(payment, chosen, operation_id)
            await store.add_operation(payment, operation)
            return payment, operation

    def _require_payable(
        self, ctx: CallContext, payment_id: UUID, payment: Payment | None, chosen: ChosenMethod
    ) -> Payment:
        """Return the payment if the caller may confirm it with this method.

        Staff may confirm it, for an order by phone or in the shop, if the method takes no money.
        Raises PaymentNotFound, also if the payment cannot be confirmed yet;
        UnsupportedByProvider.
        """
        if payment is None or not payment.is_activated:
            raise PaymentNotFound(payment_id=str(payment_id))
        if ctx.actor.acts_for_owner(payment.order_id, payment.user_id):
            return payment
        if not ctx.actor.has_scope(PAYMENTS_MANAGE):
            raise PaymentNotFound(payment_id=str(payment_id))
        if payment.amount and not self._provider.can(chosen.provider, Capability.MARK_PAID):
            raise UnsupportedByProvider(provider=chosen.provider, capability=Capability.MARK_PAID)
        return payment

    def _confirm(self, payment: Payment, chosen: ChosenMethod, operation_id: UUID) -> Operation:
        """Change the payment, and return its new operation."""
        self._check_offered(payment, chosen.method)
        now = self._clock()
        operation = self._build_charge(payment, chosen, operation_id, now)
        payment.confirm(now, operation.provider)
        return operation

    def _check_offered(self, payment: Payment, method: str) -> None:
        """Raises UnknownPaymentMethod. A payment of zero accepts any method."""
        if not payment.amount:
            return
        if method == FREE_METHOD:
            raise UnknownPaymentMethod(payment_method=method)
        self._provider.check_offered(method, payment.money(payment.amount), payment.country)

    def _build_charge(
        self, payment: Payment, chosen: ChosenMethod, operation_id: UUID, now: datetime
    ) -> Operation:
        if not payment.amount:
            chosen = ChosenMethod(FREE_METHOD, FREE_METHOD)
        return Operation(
            operation_id=operation_id,
            payment_id=payment.payment_id,
            kind=self._kind_of_confirm(chosen.provider),
            amount=payment.amount,
            currency=payment.currency,
            provider=chosen.provider,
            method=chosen.method,
            customer=chosen.customer,
            saves_method=chosen.saves_method,
            created_at=now,
            due_at=self._provider.next_reconcile_at(now),
        )

    def _kind_of_confirm(self, provider: str) -> OperationKind:
        """Return `authorize` if the shop captures on fulfilment and the provider can authorize."""
        can_authorize = self._provider.can(provider, Capability.AUTHORIZE)
        is_deferred = self._capture_mode == "on_fulfilment" and can_authorize
        return OperationKind.AUTHORIZE if is_deferred else OperationKind.CHARGE

    async def _submit(self, ctx: CallContext, operation: Operation) -> Outcome | None:
        """Call the provider. If the response is slow, publish that the payment is being processed.

        A fast charge publishes no such event, because the event would cost as much as the charge.
        """
        response = asyncio.ensure_future(self._provider.submit_in_slot(operation))
        try:
            done, _ = await asyncio.wait([response], timeout=self._provider.announce_after_seconds)
            if not done:
                with suppress(Unavailable):  # a failed event must not end the charge
                    await self._announce(ctx, operation.payment_id)
            return await response
        finally:
            response.cancel()

    async def _announce(self, ctx: CallContext, payment_id: UUID) -> None:
        async with self._database.transaction() as store:
            payment = await store.get_payment_for_update(payment_id)
            if payment and payment.status is PaymentStatus.PROCESSING:
                await store.publish(status_changed_event(payment), ctx)
