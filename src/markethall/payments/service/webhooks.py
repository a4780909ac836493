"""News from the providers: stored as it came, then applied."""

from collections.abc import Mapping

from markethall.payments.contract import UnknownProvider, WebhookReceipt
from markethall.payments.ports import Database, ProviderEvent, WebhookReader, WebhookState
from markethall.payments.service.till import apply
from markethall.shared.call import Call, system_call
from markethall.shared.clock import Clock
from markethall.shared.errors import Unavailable

_BATCH = 100


class WebhookIntake:
    """An event for an operation that we do not know yet is parked until we do."""

    def __init__(
        self, database: Database, readers: Mapping[str, WebhookReader], clock: Clock
    ) -> None:
        self._database = database
        self._readers = readers
        self._clock = clock

    async def receive(
        self, call: Call, provider: str, headers: Mapping[str, str], body: bytes
    ) -> WebhookReceipt:
        """Raises UnknownProvider, WebhookSignatureInvalid, TooLarge, Malformed, Invalid."""
        reader = self._readers.get(provider)
        if reader is None:
            raise UnknownProvider(provider=provider)
        event = reader.verified(headers, body, self._clock())
        new = await self._keep(event)
        if new and event.operation_id:
            await self._apply_if_we_can(call, event)
        return WebhookReceipt(event_id=event.event_id, duplicate=not new)

    async def apply_parked(self) -> None:
        """Sweep: what was parked, and whose operation we know by now."""
        async with self._database.reading() as reading:
            events = await reading.ripe_events(_BATCH)
        for event in events:
            await self._apply(system_call("payments.webhooks"), event)

    async def _keep(self, event: ProviderEvent) -> bool:
        state: WebhookState = "parked" if event.operation_id else "ignored"
        async with self._database.transaction() as store:
            return await store.keep_event(event, state, self._clock())

    async def _apply_if_we_can(self, call: Call, event: ProviderEvent) -> None:
        try:
            await self._apply(call, event)
        except Unavailable:
            # the event is stored and parked: the sweep applies it
            return

    async def _apply(self, call: Call, event: ProviderEvent) -> None:
        if event.operation_id is None:
            return
        outcome = self._readers[event.provider].outcome(event)
        now = self._clock()
        async with self._database.transaction() as store:
            if await apply(store, call, event.operation_id, outcome, now):
                await store.mark_event(event, "applied", now)
