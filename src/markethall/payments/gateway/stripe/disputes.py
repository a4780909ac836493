"""Disputes at Stripe."""

import re
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

import structlog

from markethall.payments.contract.api import PaymentDispute
from markethall.payments.gateway.stripe.amounts import AmountNotSupported, from_stripe_amount
from markethall.payments.gateway.stripe.api import StripeApi
from markethall.payments.gateway.stripe.objects import OPERATION_KEY, Dispute, DisputedIntent
from markethall.payments.ports import ProviderDispute
from markethall.shared.kernel.money import Money

log = structlog.get_logger("markethall.payments")

_EVENT_PREFIX: Final = "charge.dispute."
_ID: Final = re.compile(r"d[pu]_[A-Za-z0-9_]{1,250}")


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
    try:
        return UUID(metadata.get(OPERATION_KEY, ""))
    except ValueError:
        return None
