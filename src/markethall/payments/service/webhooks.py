"""Webhooks of the providers: store the event, then apply its outcome."""

from collections.abc import Mapping

from markethall.payments.contract import UnknownProvider, WebhookReceipt
from markethall.payments.ports import ProviderEvent, ReadStore, Store, WebhookReader, WebhookState
from markethall.payments.service.provider_client import apply_outcome
from markethall.shared.kernel.call_context import CallContext, system_context
from markethall.shared.kernel.clock import Clock
from markethall.shared.kernel.errors import Unavailable
from markethall.shared.persistence.database import Database

_BATCH_SIZE = 100


class WebhookHandler:
    """Store events and apply them. An event whose operation does not exist yet stays pending."""

    def __init__(
        self,
        database: Database[ReadStore, Store],
        readers: Mapping[str, WebhookReader],
        clock: Clock,
    ) -> None:
        self._database = database
        self._readers = readers
        self._clock = clock

    async def receive(
        self, ctx: CallContext, provider: str, headers: Mapping[str, str], body: bytes
    ) -> WebhookReceipt:
        """Verify, store and apply an event. The names in `headers` are in lower case.

        Raises UnknownProvider, WebhookSignatureInvalid, BodyTooLarge, MalformedRequest,
        ValidationFailed.
        """
        reader = self._readers.get(provider)
        if reader is None:
            raise UnknownProvider(provider=provider)
        event = reader.parse_event(headers, body, self._clock())
        is_new = await self._store_event(event)
        if is_new and event.operation_id:
            await self._try_apply(ctx, event)
        return WebhookReceipt(event_id=event.event_id, duplicate=not is_new)

    async def apply_pending(self) -> None:
        """Apply pending events. An event stays pending while its operation does not exist."""
        async with self._database.read_session() as store:
            events = await store.list_applicable_events(_BATCH_SIZE)
        for event in events:
            await self._apply(system_context("payments.webhooks"), event)

    async def _store_event(self, event: ProviderEvent) -> bool:
        state: WebhookState = "pending" if event.operation_id else "ignored"
        async with self._database.transaction() as store:
            return await store.store_event(event, state, self._clock())

    async def _try_apply(self, ctx: CallContext, event: ProviderEvent) -> None:
        try:
            await self._apply(ctx, event)
        except Unavailable:
            # the event is stored as pending, so the periodic job applies it later
            return

    async def _apply(self, ctx: CallContext, event: ProviderEvent) -> None:
        if event.operation_id is None:
            return
        outcome = self._readers[event.provider].parse_outcome(event)
        now = self._clock()
        async with self._database.transaction() as store:
            if await apply_outcome(store, ctx, event.operation_id, outcome, now):
                await store.set_event_state(event, "applied", now)
