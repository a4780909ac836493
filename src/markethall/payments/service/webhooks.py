"""Webhooks of the providers: store the event, then apply its outcome."""

from collections import Counter
from collections.abc import Mapping

import structlog

from markethall.payments.contract import (
    OperationKind,
    PaymentInProgress,
    WebhookReceipt,
)
from markethall.payments.domain import Operation, Outcome, Succeeded
from markethall.payments.ports import ProviderEvent, ReadStore, Store, WebhookState
from markethall.payments.service.apply_outcome import AppliedOutcome, apply_outcome
from markethall.payments.service.provider_client import ProviderClient
from markethall.shared.kernel.call_context import CallContext, system_context
from markethall.shared.kernel.clock import Clock
from markethall.shared.kernel.errors import Unavailable
from markethall.shared.kernel.ids import derive_uuid7
from markethall.shared.observability.metrics import PROVIDER_WEBHOOKS
from markethall.shared.persistence.database import Database

log = structlog.get_logger("markethall.payments")

_BATCH_SIZE = 100
# the number is small, because each call without an answer takes up to the timeout of the provider,
# and the other jobs wait meanwhile
_MAX_UNANSWERED = 3


class WebhookHandler:
    """Stores events and applies them. An event whose operation does not exist yet stays pending."""

    def __init__(
        self,
        database: Database[ReadStore, Store],
        provider: ProviderClient,
        clock: Clock,
    ) -> None:
        self._database = database
        self._provider = provider
        self._clock = clock

    async def receive(
        self, ctx: CallContext, provider: str, headers: Mapping[str, str], body: bytes
    ) -> WebhookReceipt:
        """Verify, store and apply an event. The names in `headers` are in lower case.

        Raises UnknownProvider, WebhookSignatureInvalid, BodyTooLarge, MalformedRequest,
        ValidationFailed.
        """
        event = self._provider.parse_event(provider, headers, body, self._clock())
        is_new = await self._store_event(event)
        if is_new and event.operation_id:
            await self._try_apply(ctx, event)
        return WebhookReceipt(event_id=event.event_id, duplicate=not is_new)

    async def apply_pending(self) -> None:
        """Apply pending events. An event stays pending while its operation does not exist.

        If a provider gives no outcome for _MAX_UNANSWERED events, its other events stay pending
        until the next run; the events of other providers are applied. One such event is not enough,
        because a single operation that the provider has not decided yet must not delay the others.
        """
        async with self._database.read_session() as store:
            events = await store.list_applicable_events(_BATCH_SIZE)
        unanswered: Counter[str] = Counter()
        for event in events:
            if unanswered[event.provider] >= _MAX_UNANSWERED:
                continue
            if not await self._try_apply(system_context("payments.webhooks"), event):
                unanswered[event.provider] += 1

    async def _store_event(self, event: ProviderEvent) -> bool:
        state: WebhookState = "pending" if event.operation_id else "ignored"
        async with self._database.transaction() as store:
            return await store.store_event(event, state, self._clock())

    async def _try_apply(self, ctx: CallContext, event: ProviderEvent) -> bool:
        """Apply the event, or leave it pending for the job.

        Return False if the provider is unavailable.
        """
        try:
            await self._apply(ctx, event)
        except (Unavailable, PaymentInProgress) as error:
            log.info("webhook.deferred", event_id=event.event_id, error=repr(error))
            return not isinstance(error, Unavailable)
        except Exception:  # an error of a gateway must not stop the events after this one
            log.exception("webhook.failed", event_id=event.event_id, provider=event.provider)
        return True

    async def _apply(self, ctx: CallContext, event: ProviderEvent) -> None:
        """Apply the outcome of the event's operation, and store the final state of the event."""
        operation = await self._get_operation(event)
        state = await self._apply_news(ctx, event, operation) if operation else None
        if state is None:
            return
        if state == "dead":
            log.error("webhook.dead", event_id=event.event_id, event_type=event.type)
        async with self._database.transaction() as store:
            await store.set_event_state(event, state, self._clock())
        PROVIDER_WEBHOOKS.labels(event.provider, state).inc()

    async def _get_operation(self, event: ProviderEvent) -> Operation | None:
        if event.operation_id is None:
            return None
        async with self._database.read_session() as store:
            return await store.get_operation(event.operation_id)

    async def _apply_news(
        self, ctx: CallContext, event: ProviderEvent, operation: Operation
    ) -> WebhookState | None:
        """Look up the operation at the provider, and apply the outcome that it has now.

        The outcome in the event is not applied, because events may be old or out of order. Return
        the new state of the event; None leaves the event pending.
        """
        news = self._provider.parse_news(event)
        is_about = event.provider == operation.provider and news.is_about(operation)
        outcome, was_answered = await self._provider.lookup(operation, news if is_about else None)
        if not was_answered:
            raise Unavailable(dependency=event.provider)
        if outcome is None and operation.is_open:
            return None
        async with self._database.transaction() as store:
            applied = await apply_outcome(
                store, ctx, operation.operation_id, outcome, self._clock()
            )
        if applied is None or outcome is None or not is_about:
            return "dead"
        if applied.is_conflict:
            return await self._refund_second_charge(applied, outcome)
        return "applied" if type(outcome) is type(news.outcome) else "superseded"

    async def _refund_second_charge(
        self, applied: AppliedOutcome, outcome: Outcome
    ) -> WebhookState | None:
        """Refund a charge that has succeeded although another charge had captured the payment.

        The ledger has no posting of this charge or of its refund, because it records only the
        charge that captured the payment. Return the new state of the event; None leaves the event
        pending.
        """
        operation = applied.operation
        if operation.kind is not OperationKind.CHARGE or not isinstance(outcome, Succeeded):
            return "dead"
        refund = await self._provider.refund_charge(
            operation, derive_uuid7(operation.operation_id, "second charge"), self._clock()
        )
        if refund is None:
            return None
        log.warning("payment.second_charge_refunded", operation_id=str(operation.operation_id))
        return "refunded" if isinstance(refund, Succeeded) else "dead"
