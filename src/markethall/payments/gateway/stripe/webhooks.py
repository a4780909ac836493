"""Stripe's webhooks: verification and parsing. docs/stripe.md lists the events to select."""

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Annotated, Any, Final
from uuid import UUID

import structlog
from pydantic import Field, ValidationError

from markethall.payments.contract.api import PaymentDispute
from markethall.payments.contract.statuses import OperationKind
from markethall.payments.gateway.stripe.amounts import AmountNotSupported, from_stripe_amount
from markethall.payments.gateway.stripe.api import StripeApi
from markethall.payments.gateway.stripe.objects import (
    CAPTURE_KEY,
    OPERATION_KEY,
    Dispute,
    DisputedIntent,
    Intent,
    Refund,
)
from markethall.payments.gateway.stripe.outcomes import PROVIDER, next_action_of
from markethall.payments.gateway.webhook_signatures import invalid_event, verify_signature
from markethall.payments.ports import (
    ActionRequired,
    Failed,
    Outcome,
    ProviderDispute,
    ProviderEvent,
    ProviderNews,
    Succeeded,
)
from markethall.shared.kernel.errors import BodyTooLarge, MalformedRequest, ValidationFailed
from markethall.shared.kernel.ids import parse_uuid
from markethall.shared.kernel.model import Dto, Text
from markethall.shared.kernel.money import Money

SIGNATURE_HEADER: Final = "stripe-signature"
MAX_WEBHOOK_BYTES: Final = 64 * 1024

# the id of an operation, and the content of an event about it
_News = tuple[UUID, ProviderNews]
log = structlog.get_logger("markethall.payments")

_EVENT_PREFIX: Final = "charge.dispute."
_ID: Final = re.compile(r"d[pu]_[A-Za-z0-9_]{1,250}")


class _EventData(Dto):
    object: dict[str, Any]


class _Event(Dto):
    id: Annotated[Text, Field(min_length=1, max_length=255)]
    type: Annotated[Text, Field(min_length=1, max_length=100)]
    data: _EventData


class StripeWebhooks:
    """Verifies and parses events.

    While the secret is rotated, there are two secrets, and Stripe signs each event with both.
    """

    def __init__(self, secrets: Sequence[bytes]) -> None:
        self._secrets = secrets

    def parse_event(self, headers: Mapping[str, str], body: bytes, now: datetime) -> ProviderEvent:
        """Raises WebhookSignatureInvalid, BodyTooLarge, MalformedRequest, ValidationFailed."""
        if len(body) > MAX_WEBHOOK_BYTES:
            raise BodyTooLarge(limit=MAX_WEBHOOK_BYTES)
        verify_signature(headers.get(SIGNATURE_HEADER, ""), body, self._secrets, now)
        try:
            event = _Event.model_validate_json(text := body.decode())
            news = _parse_news(event)
        except UnicodeDecodeError:
            raise MalformedRequest("The body is not UTF-8.") from None
        except ValidationError as error:
            raise invalid_event(error) from None
        except AmountNotSupported:
            raise ValidationFailed(errors=[_AMOUNT_ERROR]) from None
        dispute = dispute_reference(event.type, event.data.object)
        return ProviderEvent(
            PROVIDER, event.id, event.type, news[0] if news else None, text, dispute
        )

    def parse_news(self, event: ProviderEvent) -> ProviderNews:
        news = _parse_news(_Event.model_validate_json(event.body))
        if news is None:
            raise ValueError("the event is about no operation")
        return news[1]


def _parse_news(event: _Event) -> _News | None:
    """Return None for an event about no operation. Raises ValidationError, AmountNotSupported."""
    kind, _, change = event.type.rpartition(".")
    if kind == "payment_intent" and change in _INTENT_CHANGES:
        return _intent_news(change, Intent.model_validate(event.data.object))
    if kind == "refund" and change in _REFUND_CHANGES:
        return _refund_news(Refund.model_validate(event.data.object))
    return None


_INTENT_CHANGES: Final = frozenset(
    {"succeeded", "payment_failed", "requires_action", "amount_capturable_updated", "canceled"}
)
_REFUND_CHANGES: Final = frozenset({"created", "updated", "failed"})


def _intent_news(change: str, intent: Intent) -> _News | None:
    is_manual = intent.capture_method == "manual"
    if is_manual and change == "succeeded":
        return _news(
            intent.metadata.get(CAPTURE_KEY),
            OperationKind.CAPTURE,
            Succeeded(intent.id),
            (intent.amount_received, intent.currency),
        )
    if is_manual and change == "canceled" and intent.was_authorized:
        # The event follows a void or the expiry of an authorization. The request for the void has
        # returned its outcome, and an expiry is no operation.
        return None
    return _news(
        intent.metadata.get(OPERATION_KEY),
        OperationKind.AUTHORIZE if is_manual else OperationKind.CHARGE,
        _intent_outcome(change, intent),
        (intent.amount, intent.currency),
    )


def _intent_outcome(change: str, intent: Intent) -> Outcome | None:
    match change:
        case "succeeded" | "amount_capturable_updated":
            return Succeeded(intent.id)
        case "requires_action":
            next_action = next_action_of(intent)
            return ActionRequired(next_action, intent.id) if next_action else None
        case _:
            error = intent.last_payment_error
            return Failed(error.failure_code if error else intent.status, intent.id)


def _refund_news(refund: Refund) -> _News | None:
    has_failed = refund.status in {"failed", "canceled"}
    return _news(
        refund.metadata.get(OPERATION_KEY),
        OperationKind.REFUND,
        Failed(refund.failure_reason or refund.status, refund.id)
        if has_failed
        else Succeeded(refund.id),
        (refund.amount, refund.currency),
    )


def _news(
    operation_id: str | None, kind: OperationKind, outcome: Outcome | None, amount: tuple[int, str]
) -> _News | None:
    """Return None without an outcome, and for objects of other programs in the same account."""
    id_ = parse_uuid(operation_id or "")
    if id_ is None or outcome is None:
        return None
    return id_, ProviderNews(kind, outcome, from_stripe_amount(*amount))


_AMOUNT_ERROR: Final = {
    "field": "/data/object/amount",
    "code": "invalid",
    "message": "is no amount of this currency",
}


def dispute_reference(event_type: str, object_: dict[str, Any]) -> str | None:
    """Return the id of the dispute that an event is about, if it is about one."""
    id_ = object_.get("id")
    if not event_type.startswith(_EVENT_PREFIX) or not isinstance(id_, str):
        return None
    return id_ if _ID.fullmatch(id_) else None


async def lookup_dispute(api: StripeApi, reference: str) -> ProviderDispute | None:
    """Return None also for a dispute whose amount is not supported, which is logged for staff.

    Raises PaymentGatewayTimeout.
    """
    found = await api.find_dispute(reference)
    if found is None or found.id != reference:
        return None
    amount = _amount_of(found)
    return ProviderDispute(_to_dispute(found, amount), _operation_id(found)) if amount else None


def _amount_of(found: Dispute) -> Money | None:
    """Return None if the amount is not supported, which no later lookup would change."""
    # ValueError: the amount is too large
    with suppress(AmountNotSupported, LookupError, ValueError):
        return from_stripe_amount(found.amount, found.currency)
    log.error(
        "stripe.dispute_unsupported",
        provider_reference=found.id,
        amount=found.amount,
        currency=found.currency,
    )
    return None


def _to_dispute(found: Dispute, amount: Money) -> PaymentDispute:
    due_by = found.evidence_details.due_by if found.evidence_details else None
    return PaymentDispute(
        status=found.status,
        reason=found.reason,
        amount=amount,
        due_by=datetime.fromtimestamp(due_by, UTC) if due_by else None,
        opened_at=datetime.fromtimestamp(found.created, UTC),
        provider_reference=found.id,
    )


def _operation_id(found: Dispute) -> UUID | None:
    """Return None for a charge of another program in the same account."""
    intent = found.payment_intent
    metadata = intent.metadata if isinstance(intent, DisputedIntent) else {}
    return parse_uuid(metadata.get(OPERATION_KEY, ""))
