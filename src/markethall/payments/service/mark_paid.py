"""Mark a payment as paid: staff record money that arrived outside of the shop.

No provider is called, so one transaction is enough. Partial amounts add up; when the sum reaches
the amount of the payment, the payment is captured. Money for an expired or cancelled payment is
recorded too: when the full amount has arrived, the context orders reinstates or refunds the order;
a job of payments refunds an incomplete amount.
"""

from datetime import datetime
from uuid import UUID

import structlog

from markethall.payments.contract.api import PaymentView
from markethall.payments.contract.errors import UnsupportedByProvider
from markethall.payments.contract.statuses import OperationKind, OperationStatus, PaymentStatus
from markethall.payments.domain.ledger import postings_of
from markethall.payments.domain.operation import Operation
from markethall.payments.domain.outcomes import captured_event
from markethall.payments.domain.payment import Payment
from markethall.payments.ports import Capability, ReadStore, Store
from markethall.payments.service.apply_outcome import add_postings, lock_payment
from markethall.payments.service.provider_client import ProviderClient
from markethall.payments.service.views import to_payment_view
from markethall.shared.idempotency.records import IdempotentCommand
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.clock import Clock
from markethall.shared.kernel.money import Money
from markethall.shared.persistence.database import Database

log = structlog.get_logger("markethall.security")

# maximum number of charges of one payment that are read; rate limits allow fewer
_MAX_CHARGES = 1000


class MarkPaid:
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
