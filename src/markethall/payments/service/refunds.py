"""Giving money back: reserved first, then asked for, then booked."""

from markethall.payments import contract
from markethall.payments.contract import (
    OperationIdTaken,
    OperationKind,
    PaymentNotFound,
    RefundPayment,
)
from markethall.payments.domain import Operation, Outcome
from markethall.payments.ports import Database, Store
from markethall.payments.service.till import Till, apply
from markethall.shared.call import Call
from markethall.shared.clock import Clock
from markethall.shared.idempotency import Attempt


class Refunds:
    """The one way to refund, for neighbours and for staff."""

    def __init__(self, database: Database, till: Till, clock: Clock) -> None:
        self._database = database
        self._till = till
        self._clock = clock

    async def refund(self, call: Call, command: RefundPayment, attempt: Attempt) -> contract.Refund:
        """Raises PaymentNotFound, InvalidPaymentTransition, RefundExceedsCaptured, …"""
        operation = await self._begin(command)
        outcome = await self._till.ask(operation) if operation.open else None
        return await self._conclude(call, operation, outcome, attempt)

    async def _begin(self, command: RefundPayment) -> Operation:
        """Reserves the amount; who comes again finds what was reserved."""
        async with self._database.transaction() as store:
            payment = await store.locked(command.payment_id)
            if payment is None:
                raise PaymentNotFound(payment_id=str(command.payment_id))
            earlier = await _earlier(store, command)
            if earlier:
                return earlier
            now = self._clock()
            operation = Operation(
                operation_id=command.refund_id,
                payment_id=payment.payment_id,
                kind=OperationKind.REFUND,
                amount=payment.reserve_refund(command.amount),
                currency=payment.currency,
                charge_id=payment.charge_id,
                reason=command.reason,
                created_at=now,
                due_at=self._till.due_at(now),
            )
            await store.begin(payment, operation)
            return operation

    async def _conclude(
        self, call: Call, operation: Operation, outcome: Outcome | None, attempt: Attempt
    ) -> contract.Refund:
        async with self._database.transaction() as store:
            found = await apply(store, call, operation.operation_id, outcome, self._clock())
            if found is None:
                raise PaymentNotFound(payment_id=str(operation.payment_id))
            payment, settled = found
            refund = settled.refund_view(payment)
            await store.finish(attempt, refund)
            return refund


async def _earlier(store: Store, command: RefundPayment) -> Operation | None:
    """Raises OperationIdTaken."""
    operation = await store.operation(command.refund_id)
    if operation and not _is_the_same(operation, command):
        raise OperationIdTaken(operation_id=str(command.refund_id))
    return operation


def _is_the_same(operation: Operation, command: RefundPayment) -> bool:
    return operation.kind is OperationKind.REFUND and operation.payment_id == command.payment_id
