"""Taking money: written down first, then asked for, then booked."""

from datetime import datetime
from uuid import UUID

from markethall.payments import contract
from markethall.payments.contract import OperationKind, PaymentNotFound, UnknownMethod
from markethall.payments.domain import Operation, Outcome, Payment
from markethall.payments.ports import Database
from markethall.payments.service.till import Till, apply
from markethall.shared.call import Call
from markethall.shared.clock import Clock
from markethall.shared.idempotency import Attempt


class Charges:
    def __init__(self, database: Database, till: Till, clock: Clock) -> None:
        self._database = database
        self._till = till
        self._clock = clock

    async def confirm(
        self, call: Call, payment_id: UUID, method: str, attempt: Attempt
    ) -> contract.Payment:
        """Raises UnknownMethod, PaymentNotFound, InvalidPaymentTransition, PaymentInProgress."""
        if not self._till.accepts(method):
            raise UnknownMethod(payment_method=method)
        operation = await self._begin(call, payment_id, method, attempt.id)
        outcome = await self._till.ask(operation) if operation.open else None
        return await self._conclude(call, operation, outcome, attempt)

    async def _begin(
        self, call: Call, payment_id: UUID, method: str, operation_id: UUID
    ) -> Operation:
        """Writes down what the provider will be asked; who comes again finds it."""
        async with self._database.transaction() as store:
            payment = await store.locked(payment_id)
            if payment is None or payment.user_id != call.user_id:
                raise PaymentNotFound(payment_id=str(payment_id))
            earlier = await store.operation(operation_id)
            if earlier:
                return earlier
            now = self._clock()
            payment.confirm(now)
            operation = self._charge(payment, method, operation_id, now)
            await store.begin(payment, operation)
            return operation

    def _charge(
        self, payment: Payment, method: str, operation_id: UUID, now: datetime
    ) -> Operation:
        return Operation(
            operation_id=operation_id,
            payment_id=payment.payment_id,
            kind=OperationKind.CHARGE,
            amount=payment.amount,
            currency=payment.currency,
            method=method,
            created_at=now,
            due_at=self._till.due_at(now),
        )

    async def _conclude(
        self, call: Call, operation: Operation, outcome: Outcome | None, attempt: Attempt
    ) -> contract.Payment:
        async with self._database.transaction() as store:
            found = await apply(store, call, operation.operation_id, outcome, self._clock())
            if found is None:
                raise PaymentNotFound(payment_id=str(operation.payment_id))
            payment = found[0].view()
            await store.finish(attempt, payment)
            return payment
