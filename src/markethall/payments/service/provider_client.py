"""Call the card provider, and apply the outcome to the payment.

A charge or refund takes three steps: record the operation, call the provider, apply the outcome.
A crash between the steps leaves an open operation; a retry with the same key, a webhook or the
reconciliation job then applies the outcome. The first of them closes the operation, and the others
change nothing.
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
    """The time limit of a provider call, and the age at which an open operation is reconciled."""

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
        """Send the operation to the provider. Return its outcome, or None after a timeout."""
        return await self._outcome_or_none(self._call_gateway(operation))

    async def reconcile(self, operation: Operation) -> Outcome | None:
        """Look up the outcome of an open operation. Return None after a timeout.

        A charge that the provider never received is cancelled, because the customer may have left.
        A refund that it never received is submitted again, because the customer must get the money.
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
        """Return (result, True), or (None, False) after a timeout."""
        try:
            async with asyncio.timeout(self._timeouts.response.total_seconds()):
                return await gateway_call, True
        except (PaymentGatewayTimeout, TimeoutError):
            return None, False


async def apply_outcome(
    store: Store, ctx: CallContext, operation_id: UUID, outcome: Outcome | None, now: datetime
) -> tuple[Payment, Operation] | None:
    """Apply an outcome to an operation if it is open. A timeout has the outcome None.

    Return the payment and the operation, or None when the operation does not exist.
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
