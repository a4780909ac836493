"""What happens by itself: nothing unpaid, unknown or parked stays so for ever."""

import asyncio
from collections.abc import Sequence

from markethall.payments.domain import Operation
from markethall.payments.ports import Database
from markethall.payments.service.till import Till, apply
from markethall.payments.service.webhooks import WebhookIntake
from markethall.shared.call import system_call
from markethall.shared.clock import Clock

_EXPIRED_AT_ONCE = 500
# side by side at the provider; each takes a connection for a moment
_ASKED_AT_ONCE = 8


class Sweeps:
    def __init__(
        self, database: Database, till: Till, webhooks: WebhookIntake, clock: Clock
    ) -> None:
        self._database = database
        self._till = till
        self._webhooks = webhooks
        self._clock = clock

    async def expire_overdue(self) -> None:
        """What was not confirmed in time expires."""
        async with self._database.transaction() as store:
            await store.expire_overdue(self._clock(), _EXPIRED_AT_ONCE)

    async def reconcile(self) -> None:
        """Ask the provider what became of operations that have been open for too long."""
        while due := await self._due():
            answers = await asyncio.gather(*map(self._find_out, due), return_exceptions=True)
            for answer in answers:
                if answer is not None:
                    raise answer

    async def apply_parked_webhooks(self) -> None:
        await self._webhooks.apply_parked()

    async def _due(self) -> Sequence[Operation]:
        now = self._clock()
        async with self._database.transaction() as store:
            return await store.claim_due(now, self._till.due_at(now), _ASKED_AT_ONCE)

    async def _find_out(self, operation: Operation) -> None:
        outcome = await self._till.find_out(operation)
        call = system_call("payments.reconcile")
        async with self._database.transaction() as store:
            await apply(store, call, operation.operation_id, outcome, self._clock())
