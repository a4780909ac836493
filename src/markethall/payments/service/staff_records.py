"""Money that moves outside of the shop, and that staff record: payments, and refunds by hand."""

from datetime import datetime
from uuid import UUID

import structlog

from markethall.payments.contract.api import PaymentView, RefundQuery
from markethall.payments.contract.errors import (
    InvalidPaymentTransition,
    RefundNotFound,
    UnsupportedByProvider,
)
from markethall.payments.contract.internal import RefundView
from markethall.payments.contract.statuses import OperationKind, OperationStatus, PaymentStatus
from markethall.payments.domain.ledger import postings_of
from markethall.payments.domain.operation import Operation, Succeeded
from markethall.payments.domain.outcomes import captured_event
from markethall.payments.domain.payment import Payment
from markethall.payments.ports import Capability, ReadStore, Store
from markethall.payments.service.apply_outcome import add_postings, apply_outcome, lock_payment
from markethall.payments.service.provider_client import ProviderClient
from markethall.payments.service.views import to_payment_view, to_refund_view
from markethall.shared.idempotency.records import IdempotentCommand
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.clock import Clock
from markethall.shared.kernel.money import Money
from markethall.shared.kernel.pagination import TIME_KEYSET, Cursors, Page, TimeKeyset
from markethall.shared.persistence.database import Database

log = structlog.get_logger("markethall.security")

# maximum number of charges of one payment that are read; rate limits allow fewer
_MAX_CHARGES = 1000


class MarkPaid:
    """Marks a payment as paid.

    No provider is called, so one transaction is enough. Partial amounts add up; when the sum
    reaches the amount of the payment, the payment is captured. Money for an expired or cancelled
    payment is recorded too: when the full amount has arrived, the context orders reinstates or
    refunds the order; a job of payments refunds an incomplete amount.
    """

    def __init__(
        self, database: Database[ReadStore, Store], provider: ProviderClient, clock: Clock
    ) -> None:
        self._database = database
        self._provider = provider
        self._clock = clock

    async def mark_paid(
        self,
        ctx: CallContext,
        payment_id: UUID,
        amount: Money,
        reference: str,
        attempt: IdempotentCommand,
    ) -> PaymentView:
        """Record the amount. A retry of the same attempt records nothing more.

        Raises PaymentNotFound, UnsupportedByProvider, PaymentInProgress, InvalidPaymentTransition,
        AmountExceedsDue, CurrencyMismatch.
        """
        async with self._database.transaction() as store:
            payment = await lock_payment(store, payment_id)
            if await store.get_operation(attempt.id) is None:
                charge = await self._get_charge(store, payment)
                receipt = _build_receipt(charge, amount, reference, attempt.id, self._clock())
                payment.receive(charge.operation_id, charge.provider, amount)
                await _save(store, ctx, payment, receipt)
                fields = ctx.security_fields | receipt.log_fields()
                log.info("security.payment_marked_paid", **fields)
            view = to_payment_view(payment)
            await store.store_response(attempt, view)
            return view

    async def _get_charge(self, store: Store, payment: Payment) -> Operation:
        """Return the charge that gave the customer the instructions to pay."""
        charges = await store.list_operations(
            payment.payment_id, OperationKind.CHARGE, None, _MAX_CHARGES
        )
        for charge in charges:
            if self._provider.can(charge.provider, Capability.MARK_PAID):
                return charge
        raise UnsupportedByProvider(provider=payment.provider, capability=Capability.MARK_PAID)


def _build_receipt(
    charge: Operation, amount: Money, reference: str, operation_id: UUID, now: datetime
) -> Operation:
    return Operation(
        operation_id=operation_id,
        payment_id=charge.payment_id,
        kind=OperationKind.CAPTURE,
        amount=amount.amount,
        currency=charge.currency,
        provider=charge.provider,
        charge_id=charge.operation_id,
        status=OperationStatus.SUCCEEDED,
        provider_reference=reference,
        created_at=now,
        due_at=now,
        settled_at=now,
    )


async def _save(store: Store, ctx: CallContext, payment: Payment, receipt: Operation) -> None:
    await store.add_operation(payment, receipt)
    if payment.status is PaymentStatus.CAPTURED:
        await store.publish(captured_event(payment), ctx)
    await add_postings(store, postings_of(receipt))


class ManualRefundService:
    """Refunds by hand: lists which are due, and records that staff have transferred the money.

    The amount is reserved when the refund is recorded. It counts as refunded, in the payment and in
    the ledger, when staff have transferred it.
    """

    def __init__(
        self,
        database: Database[ReadStore, Store],
        provider: ProviderClient,
        cursors: Cursors,
        clock: Clock,
    ) -> None:
        self._database = database
        self._provider = provider
        self._cursors = cursors
        self._clock = clock

    async def list_refunds(self, ctx: CallContext, query: RefundQuery) -> Page[RefundView]:
        listing = f"refunds {query.status} {query.provider}"
        after = self._cursors.decode(listing, query.cursor, TIME_KEYSET)
        async with self._database.read_session() as store:
            found = await store.list_refunds(query, after)
        views = [to_refund_view(operation, payment) for payment, operation in found]
        return self._cursors.build_page(listing, views, query.limit, _keyset)

    async def mark_refund_paid(
        self,
        ctx: CallContext,
        payment_id: UUID,
        refund_id: UUID,
        reference: str,
        attempt: IdempotentCommand,
    ) -> RefundView:
        async with self._database.transaction() as store:
            locked = await store.get_payment_and_operation_for_update(refund_id)
            if locked is None or not locked[1].is_refund_of(payment_id):
                raise RefundNotFound(refund_id=str(refund_id))
            self._check_can_be_marked(locked[1])
            paid = Succeeded(reference)
            applied = await apply_outcome(store, ctx, refund_id, paid, self._clock())
            if applied is None:
                raise RefundNotFound(refund_id=str(refund_id))
            view = to_refund_view(applied.operation, applied.payment)
            await store.store_response(attempt, view)
        fields = ctx.security_fields | applied.operation.log_fields("refund_id")
        log.info("security.refund_marked_paid", **fields)
        return view

    def _check_can_be_marked(self, refund: Operation) -> None:
        """Raises UnsupportedByProvider, InvalidPaymentTransition."""
        if not self._provider.is_refunded_by_hand(refund.provider):
            raise UnsupportedByProvider(
                provider=refund.provider, capability=Capability.MARK_PAID.value
            )
        if not refund.is_open:
            raise InvalidPaymentTransition(
                f"The refund is {refund.status.value}.", status=refund.status.value, allowed=[]
            )


def _keyset(refund: RefundView) -> TimeKeyset:
    return TimeKeyset(refund.created_at, refund.refund_id)
