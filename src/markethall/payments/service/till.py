"""Where the provider is asked, outside any transaction, and its answers are applied, inside one.

A charge or refund takes three steps: its operation is written down, the provider is asked, the
answer is applied. Who dies between the steps leaves an open operation; a retry with the same key,
a webhook or the reconciler applies the answer then. Only the first of them finds it open.
"""

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar
from uuid import UUID

from markethall.payments.contract import OperationKind, OperationStatus
from markethall.payments.domain import Operation, Outcome, Payment, posting_of, settle
from markethall.payments.ports import Gateway, GatewayTimeout, Store
from markethall.shared.call import Call
from markethall.shared.ids import new_id

T = TypeVar("T")


@dataclass(frozen=True)
class Patience:
    """How long we wait for an answer, and how long until we ask what became of an operation."""

    answer: timedelta = timedelta(seconds=8)
    reconcile: timedelta = timedelta(seconds=15)


class Till:
    def __init__(self, gateway: Gateway, patience: Patience) -> None:
        self._gateway = gateway
        self._patience = patience

    @property
    def provider(self) -> str:
        return self._gateway.provider

    def accepts(self, method: str) -> bool:
        return self._gateway.accepts(method)

    def due_at(self, now: datetime) -> datetime:
        return now + self._patience.reconcile

    async def ask(self, operation: Operation) -> Outcome | None:
        """The provider's answer, None without one. Asking again changes nothing there."""
        return await self._answer(self._asked(operation))

    async def find_out(self, operation: Operation) -> Outcome | None:
        """What became of it, None without an answer.

        A charge that never arrived is forbidden: its customer may be gone. A refund that never
        arrived is asked for again: it is owed.
        """
        lookup = self._gateway.lookup(operation.operation_id, operation.kind)
        found, answered = await self._within_patience(lookup)
        if found or not answered:
            return found
        if operation.kind is OperationKind.REFUND:
            return await self.ask(operation)
        return await self._answer(self._gateway.close(operation.operation_id, operation.kind))

    def _asked(self, operation: Operation) -> Awaitable[Outcome]:
        if operation.charge_id:
            return self._gateway.refund(
                operation.operation_id, operation.charge_id, operation.money
            )
        return self._gateway.charge(operation.operation_id, operation.money, operation.method or "")

    async def _answer(self, question: Awaitable[Outcome]) -> Outcome | None:
        outcome, _ = await self._within_patience(question)
        return outcome

    async def _within_patience(self, question: Awaitable[T]) -> tuple[T | None, bool]:
        """The answer, and whether there was one."""
        try:
            async with asyncio.timeout(self._patience.answer.total_seconds()):
                return await question, True
        except (GatewayTimeout, TimeoutError):
            return None, False


async def apply(
    store: Store, call: Call, operation_id: UUID, outcome: Outcome | None, now: datetime
) -> tuple[Payment, Operation] | None:
    """Apply an answer (None: there was none) to an open operation, and only to an open one.

    The payment and the operation as they stand then; None when we do not know the operation.
    """
    found = await store.locked_operation(operation_id)
    if found is None or _is_told_already(found[1], outcome):
        return found
    payment, operation = found
    settled = settle(payment, operation, outcome, now)
    await store.settle(payment, operation)
    if settled.moved:
        await store.post(posting_of(payment, operation, settled.moved, new_id(), now))
    if settled.event:
        await store.publish(settled.event, call)
    return found


def _is_told_already(operation: Operation, outcome: Outcome | None) -> bool:
    silent_again = outcome is None and operation.status is OperationStatus.UNKNOWN
    return not operation.open or silent_again
