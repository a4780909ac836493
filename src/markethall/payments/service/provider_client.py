"""Calls of the payment provider with a time limit.

`ProviderClient` returns outcomes; `apply_outcome` applies them.
"""

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar
from uuid import UUID

from markethall.payments.contract import OperationKind
from markethall.payments.domain import FREE_METHOD, Operation, Outcome, Succeeded
from markethall.payments.ports import PaymentGateway, PaymentGatewayTimeout

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
        if operation.method == FREE_METHOD:
            return Succeeded(FREE_METHOD)
        return await self._outcome_or_none(self._call_gateway(operation))

    async def lookup(self, operation: Operation) -> tuple[Outcome | None, bool]:
        """Return (outcome, True), or (None, False) after a timeout.

        The outcome in (None, True) means that the provider never received the operation.
        """
        if operation.method == FREE_METHOD:
            return Succeeded(FREE_METHOD), True
        return await self._with_timeout(
            self._gateway.lookup(operation.operation_id, operation.kind)
        )

    async def reconcile(self, operation: Operation) -> Outcome | None:
        """Look up the outcome of an open operation. Return None after a timeout.

        A charge that the provider never received is cancelled, because the customer may have left.
        A refund that it never received is submitted again, because the customer must get the money.
        """
        outcome, was_answered = await self.lookup(operation)
        if outcome or not was_answered:
            return outcome
        if operation.kind is OperationKind.REFUND:
            return await self.submit(operation)
        return await self._outcome_or_none(
            self._gateway.cancel_unknown(operation.operation_id, operation.kind)
        )

    async def refund_charge(self, charge: Operation, refund_id: UUID) -> Outcome | None:
        """Refund the whole amount of a charge. Return the outcome, or None after a timeout."""
        return await self._outcome_or_none(
            self._gateway.refund(refund_id, charge.operation_id, charge.money)
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
