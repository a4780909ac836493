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
from markethall.payments.domain import Operation, Outcome, Payment, build_posting, settle_operation
from markethall.payments.ports import PaymentGateway, PaymentGatewayTimeout, Store
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.ids import new_id

T = TypeVar("T")


@dataclass(frozen=True)
class ProviderTimeouts:
    """How long we wait for an answer, and how long until we ask what became of an operation."""

    response: timedelta = timedelta(seconds=8)
    reconcile_after: timedelta = timedelta(seconds=15)


class ProviderClient:
    def __init__(self, gateway: PaymentGateway, timeouts: ProviderTimeouts) -> None:
        self._gateway = gateway
        self._timeouts = timeouts

    @property
    def provider(self) -> str:
        return self._gateway.provider

    def accepts(self, method: str) -> bool:
        return self._gateway.accepts(method)

    def next_reconcile_at(self, now: datetime) -> datetime:
        return now + self._timeouts.reconcile_after

    async def submit(self, operation: Operation) -> Outcome | None:
        """The provider's answer, None without one. Asking again changes nothing there."""
        return await self._outcome_or_none(self._call_gateway(operation))

    async def reconcile(self, operation: Operation) -> Outcome | None:
        """What became of it, None without an answer.

        A charge that never arrived is forbidden: its customer may be gone. A refund that never
        arrived is asked for again: it is owed.
        """
        lookup = self._gateway.lookup(operation.operation_id, operation.kind)
        outcome, was_answered = await self._with_timeout(lookup)
        if outcome or not was_answered:
            return outcome
        if operation.kind is OperationKind.REFUND:
            return await self.submit(operation)
        return await self._outcome_or_none(
            self._gateway.cancel_unknown(operation.operation_id, operation.kind)
        )

    def _call_gateway(self, operation: Operation) -> Awaitable[Outcome]:
        if operation.charge_id:
            return self._gateway.refund(
                operation.operation_id, operation.charge_id, operation.money
            )
        return self._gateway.charge(operation.operation_id, operation.money, operation.method or "")

    async def _outcome_or_none(self, gateway_call: Awaitable[Outcome]) -> Outcome | None:
        outcome, _ = await self._with_timeout(gateway_call)
        return outcome

    async def _with_timeout(self, gateway_call: Awaitable[T]) -> tuple[T | None, bool]:
        """The answer, and whether there was one."""
        try:
            async with asyncio.timeout(self._timeouts.response.total_seconds()):
                return await gateway_call, True
        except (PaymentGatewayTimeout, TimeoutError):
            return None, False


async def apply_outcome(
    store: Store, ctx: CallContext, operation_id: UUID, outcome: Outcome | None, now: datetime
) -> tuple[Payment, Operation] | None:
    """Apply an answer (None: there was none) to an open operation, and only to an open one.

    The payment and the operation as they stand then; None when we do not know the operation.
    """
    locked = await store.get_operation_for_update(operation_id)
    if locked is None or _is_already_applied(locked[1], outcome):
        return locked
    payment, operation = locked
    effects = settle_operation(payment, operation, outcome, now)
    await store.save_operation(payment, operation)
    if effects.posting_kind:
        await store.add_posting(
            build_posting(payment, operation, effects.posting_kind, new_id(), now)
        )
    if effects.event:
        await store.publish(effects.event, ctx)
    return locked


def _is_already_applied(operation: Operation, outcome: Outcome | None) -> bool:
    is_still_unknown = outcome is None and operation.status is OperationStatus.UNKNOWN
    return not operation.is_open or is_still_unknown
