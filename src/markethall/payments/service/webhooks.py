"""Webhooks of the providers: store the event, then apply its outcome."""

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from enum import Enum, auto
from typing import Final

import structlog

from markethall.payments.contract.api import WebhookReceipt
from markethall.payments.contract.errors import PaymentInProgress
from markethall.payments.domain.operation import Operation, Outcome, Succeeded
from markethall.payments.domain.outcomes import CHARGE_KINDS, dispute_changed_event
from markethall.payments.domain.payment import Payment
from markethall.payments.ports import ProviderDispute, ProviderEvent, ReadStore, Store, WebhookState
from markethall.payments.service.apply_outcome import (
    AppliedOutcome,
    apply_outcome,
    refund_second_charge,
)
from markethall.payments.service.provider_client import ProviderClient
from markethall.shared.kernel.call_context import CallContext, system_context
from markethall.shared.kernel.card_numbers import (
    may_contain_card_number,
    redact_card_numbers,
    redact_card_numbers_in,
)
from markethall.shared.kernel.clock import Clock
from markethall.shared.kernel.errors import Unavailable
from markethall.shared.kernel.strict_json import parse_strict_json
from markethall.shared.observability.metrics import DISPUTE_CHANGES, PROVIDER_WEBHOOKS
from markethall.shared.persistence.database import Database

log = structlog.get_logger("markethall.payments")

_BATCH_SIZE = 100  # events of one provider in one run
_IGNORE_BATCH_SIZE = 1000
# the number is small, because each call without an answer takes up to the timeout of the provider,
# and the other jobs wait meanwhile
_MAX_UNANSWERED = 3
# The delay before an event that could not be applied is tried again. It is as long as the event is
# old, within these limits.
_MIN_RETRY_DELAY = timedelta(seconds=5)
_MAX_RETRY_DELAY = timedelta(minutes=10)
# Each operation is committed before the provider receives it. So an event without operation belongs
# to another shop with the same account, or the database was lost; a week leaves time to restore it.
_MAX_UNMATCHED_AGE = timedelta(days=7)


class _Attempt(Enum):
    FINISHED = auto()
    UNFINISHED = auto()
    UNANSWERED = auto()  # the provider is unavailable


class WebhookHandler:
    """Stores events and applies them. An event whose operation does not exist yet stays pending."""

    def __init__(
        self, database: Database[ReadStore, Store], provider: ProviderClient, clock: Clock
    ) -> None:
        self._database = database
        self._provider = provider
        self._disputes = DisputeUpdates(database, provider)
        self._clock = clock

    async def receive(
        self, ctx: CallContext, provider: str, headers: Mapping[str, str], body: bytes
    ) -> WebhookReceipt:
        """Verify, store and apply an event. The names in `headers` are in lower case.

        Raises UnknownProvider, WebhookSignatureInvalid, BodyTooLarge, MalformedRequest,
        ValidationFailed.

        An event with a card number is not refused, because the provider would send it again and
        again; the number is replaced before the event is stored.
        """
        event = _without_card_numbers(
            self._provider.parse_event(provider, headers, body, self._clock())
        )
        is_new = await self._store_event(event)
        if is_new and _is_applicable(event):
            await self._try_apply(ctx, event)
        return WebhookReceipt(event_id=event.event_id, duplicate=not is_new)

    async def apply_pending(self) -> None:
        """Apply the pending events of the enabled providers.

        An event stays pending while its operation does not exist, but at most _MAX_UNMATCHED_AGE.
        """
        await self._ignore_unmatched()
        for provider in self._provider.list_webhook_providers():
            await self._apply_pending_of(provider)

    async def _apply_pending_of(self, provider: str) -> None:
        """Apply the events of one provider, until it gives no outcome for _MAX_UNANSWERED events.

        Its other events stay pending until the next run. One such event is not enough, because a
        single operation that the provider has not decided yet must not delay the others.
        """
        async with self._database.read_session() as store:
            events = await store.list_applicable_events(provider, self._clock(), _BATCH_SIZE)
        unanswered = 0
        for event in events:
            attempt = await self._try_apply(system_context("payments.webhooks"), event)
            if attempt is not _Attempt.FINISHED:
                await self._postpone(event)
            unanswered += attempt is _Attempt.UNANSWERED
            if unanswered >= _MAX_UNANSWERED:
                return

    async def _postpone(self, event: ProviderEvent) -> None:
        async with self._database.autocommit() as store:
            await store.postpone_event(event, self._clock(), _MIN_RETRY_DELAY, _MAX_RETRY_DELAY)

    async def _ignore_unmatched(self) -> None:
        now = self._clock()
        async with self._database.autocommit() as store:
            count = await store.ignore_unmatched_events(
                now, now - _MAX_UNMATCHED_AGE, _IGNORE_BATCH_SIZE
            )
        if count:
            log.warning("webhook.unmatched", count=count)

    async def _store_event(self, event: ProviderEvent) -> bool:
        state: WebhookState = "pending" if _is_applicable(event) else "ignored"
        async with self._database.autocommit() as store:
            return await store.store_event(event, state, self._clock())

    async def _try_apply(self, ctx: CallContext, event: ProviderEvent) -> _Attempt:
        """Apply the event, or leave it pending for the job."""
        try:
            is_finished = await self._apply(ctx, event)
        except (Unavailable, PaymentInProgress) as error:
            log.info("webhook.deferred", event_id=event.event_id, error=repr(error))
            is_unavailable = isinstance(error, Unavailable)
            return _Attempt.UNANSWERED if is_unavailable else _Attempt.UNFINISHED
        except Exception:  # an error of a gateway must not stop the events after this one
            log.exception("webhook.failed", event_id=event.event_id, provider=event.provider)
            return _Attempt.UNFINISHED
        return _Attempt.FINISHED if is_finished else _Attempt.UNFINISHED

    async def _apply(self, ctx: CallContext, event: ProviderEvent) -> bool:
        """Apply the outcome of the event's operation, and store the final state of the event.

        Return False if the event stays pending.
        """
        state = await self._apply_event(ctx, event)
        if state is None:
            return False
        if state == "dead":
            log.error("webhook.dead", event_id=event.event_id, event_type=event.type)
        async with self._database.autocommit() as store:
            await store.set_event_state(event, state, self._clock())
        PROVIDER_WEBHOOKS.labels(event.provider, state).inc()
        return True

    async def _apply_event(self, ctx: CallContext, event: ProviderEvent) -> WebhookState | None:
        """Return the new state of the event; None leaves the event pending."""
        if event.dispute_reference:
            return await self._disputes.apply(ctx, event.provider, event.dispute_reference)
        operation = await self._get_operation(event)
        return await self._apply_news(ctx, event, operation) if operation else None

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
        """Return the new state of the event; None leaves the event pending."""
        operation = applied.operation
        if operation.kind not in CHARGE_KINDS or not isinstance(outcome, Succeeded):
            return "dead"
        refund = await refund_second_charge(
            self._provider, operation, outcome.reference, self._clock()
        )
        if refund is None:
            return None
        return "refunded" if isinstance(refund, Succeeded) else "dead"


def _is_applicable(event: ProviderEvent) -> bool:
    return event.operation_id is not None or event.dispute_reference is not None


def _without_card_numbers(event: ProviderEvent) -> ProviderEvent:
    """Replace the card numbers in an event, except in its id.

    The id comes from the provider. Some providers number their events, so an id may have the form
    of a card number; two events must not get the same id, or the second one would be dropped.
    """
    if not may_contain_card_number(event.body):
        return event
    return replace(
        event,
        type=redact_card_numbers(event.type),
        body=json.dumps(redact_card_numbers_in(parse_strict_json(event.body))),
    )


_MAX_ATTEMPTS: Final = 3


class DisputeUpdates:
    """Records the disputes of payments.

    A webhook says only that a dispute has changed. Its current state is looked up at the provider,
    so the webhooks may arrive late, twice and in any sequence.
    """

    def __init__(self, database: Database[ReadStore, Store], provider: ProviderClient) -> None:
        self._database = database
        self._provider = provider

    async def apply(self, ctx: CallContext, provider: str, reference: str) -> WebhookState:
        """Record the state that the dispute has now, and return the new state of the event.

        The state is looked up after the payment was read, and is stored only if the dispute of the
        payment has not changed since. So a slow lookup never replaces a newer state.
        Raises Unavailable if the provider gives no answer; then the event stays pending.
        """
        found = await self._lookup(provider, reference)
        for _ in range(_MAX_ATTEMPTS):
            payment = await self._get_payment(provider, found)
            if payment is None:
                return "ignored"
            if (found := await self._lookup(provider, reference)) is None:
                return "ignored"
            changed = await self._save(ctx, payment, found)
            if changed is not None:
                return "applied" if changed else "superseded"
        raise Unavailable(dependency=provider)

    async def _lookup(self, provider: str, reference: str) -> ProviderDispute | None:
        found, was_answered = await self._provider.lookup_dispute(provider, reference)
        if not was_answered:
            raise Unavailable(dependency=provider)
        return found

    async def _get_payment(self, provider: str, found: ProviderDispute | None) -> Payment | None:
        """Return the disputed payment. None for a dispute that concerns no payment of this shop."""
        operation_id = found.operation_id if found else None
        if operation_id is None:
            return None
        async with self._database.read_session() as store:
            operation = await store.get_operation(operation_id)
            if operation is None or operation.provider != provider:
                return None
            return await store.get_payment(operation.payment_id)

    async def _save(self, ctx: CallContext, read: Payment, found: ProviderDispute) -> bool | None:
        """Return whether the dispute has changed; None if the payment was changed since `read`."""
        async with self._database.transaction() as store:
            payment = await store.get_payment_for_update(read.payment_id)
            if payment is None or payment.dispute != read.dispute:
                return None
            if not payment.update_dispute(found.dispute):
                return False
            await store.save_payment(payment)
            await store.publish(dispute_changed_event(payment, found.dispute), ctx)
        _report(payment, found)
        return True


def _report(payment: Payment, found: ProviderDispute) -> None:
    """Log the change for staff, who answer the dispute at the provider."""
    dispute = found.dispute
    DISPUTE_CHANGES.labels(payment.provider, dispute.status).inc()
    log.warning(
        "payment.dispute_changed",
        payment_id=str(payment.payment_id),
        provider_reference=dispute.provider_reference,
        status=dispute.status,
        reason=dispute.reason,
        due_by=dispute.due_by.isoformat() if dispute.due_by else None,
    )
