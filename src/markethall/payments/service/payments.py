"""What the neighbours may ask of payments."""

from datetime import timedelta
from typing import Any
from uuid import UUID

from markethall.payments import contract
from markethall.payments.contract import OpenPayment, RefundPayment
from markethall.payments.domain import Payment
from markethall.payments.ports import Database
from markethall.payments.service.refunds import Refunds
from markethall.payments.service.till import Till
from markethall.shared.call import Call
from markethall.shared.clock import Clock
from markethall.shared.idempotency import Answer, Attempt


class PaymentService:
    """Payments, for the neighbours."""

    def __init__(self, database: Database, till: Till, refunds: Refunds, clock: Clock) -> None:
        self._database = database
        self._till = till
        self._refunds = refunds
        self._clock = clock

    async def open(self, call: Call, command: OpenPayment) -> contract.Payment:  # noqa: ARG002 - it is the neighbour's own
        payment = Payment(
            payment_id=command.payment_id,
            order_id=command.order_id,
            user_id=command.user_id,
            currency=command.amount.currency,
            amount=command.amount.amount,
            expires_at=command.expires_at,
            created_at=self._clock(),
            provider=self._till.provider,
        )
        async with self._database.transaction() as store:
            return (await store.open(payment)).view()

    async def cancel(self, call: Call, payment_id: UUID) -> None:  # noqa: ARG002 - as above
        async with self._database.transaction() as store:
            if await store.forbid(payment_id, self._clock()):
                return
            payment = await store.locked(payment_id)
            if payment and payment.cancel():
                await store.save(payment)

    async def refund(self, call: Call, command: RefundPayment) -> contract.Refund:
        attempt = Attempt("", command.refund_id, timedelta(), _kept_by_nobody)
        return await self._refunds.refund(call, command, attempt)


def _kept_by_nobody(_: Any) -> Answer:
    raise AssertionError("an attempt without a key keeps no answer")
