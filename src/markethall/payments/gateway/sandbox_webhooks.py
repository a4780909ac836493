"""The sandbox's webhooks: signing, verification and parsing."""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Final, Literal
from uuid import UUID

from pydantic import Field, ValidationError

from markethall.payments.contract.api import RedirectAction
from markethall.payments.contract.statuses import OperationKind
from markethall.payments.domain.operation import ActionRequired, Failed, Outcome, Succeeded
from markethall.payments.gateway.webhook_signatures import invalid_event, sign, verify_signature
from markethall.payments.ports import PROVIDER_TIMEOUT, ProviderEvent, ProviderNews
from markethall.shared.kernel.errors import BodyTooLarge, MalformedRequest
from markethall.shared.kernel.key_derivation import KeyPurpose, derive_key
from markethall.shared.kernel.model import Dto, Id, Text
from markethall.shared.kernel.money import Money

SIGNATURE_HEADER: Final = "sandbox-signature"
MAX_WEBHOOK_BYTES: Final = 64 * 1024


class _EventData(Dto):
    operation_id: Id
    amount: Money | None = None
    reference: Annotated[Text, Field(max_length=255)] = ""
    failure_code: Annotated[Text, Field(max_length=100)] = PROVIDER_TIMEOUT
    next_action: Annotated[Text, Field(max_length=2000)] = ""


class _Event(Dto):
    event_id: Annotated[Text, Field(min_length=1, max_length=255)]


class _OperationEvent(_Event):
    type: Literal[
        "charge.succeeded",
        "charge.failed",
        "charge.requires_action",
        "authorize.succeeded",
        "authorize.failed",
        "authorize.requires_action",
        "capture.succeeded",
        "capture.failed",
        "void.succeeded",
        "void.failed",
        "refund.succeeded",
        "refund.failed",
    ]
    data: _EventData


class _OtherEvent(_Event):
    """An event of an unknown type. It is stored, but changes no payment."""

    type: Annotated[Text, Field(min_length=1, max_length=100)]


class SandboxWebhooks:
    """Signer and parser of sandbox webhooks.

    The signature is HMAC-SHA-256 over `<unix time>.<body>`, with a key derived from `secret`.
    """

    provider = "sandbox"

    def __init__(self, secret: bytes) -> None:
        self._key = derive_key(secret, KeyPurpose.SANDBOX_WEBHOOK)

    def compute_signature(self, body: bytes, sent_at: datetime) -> str:
        """Return the value of the Sandbox-Signature header."""
        timestamp = int(sent_at.timestamp())
        return f"t={timestamp},v1={sign(self._key, timestamp, body)}"

    def build_signed_event(
        self,
        operation_id: UUID,
        outcome: Outcome,
        sent_at: datetime,
        amount: Money | None = None,
        kind: OperationKind = OperationKind.CHARGE,
    ) -> tuple[dict[str, str], bytes]:
        """Return headers and body of the event about an operation."""
        result, data = _encode_outcome(outcome)
        event: dict[str, Any] = {
            "event_id": f"evt_{result}_{operation_id.hex}",
            "type": f"{kind}.{result}",
            "created": int(sent_at.timestamp()),
            "data": {"operation_id": str(operation_id)} | data,
        }
        if amount is not None:
            event["data"]["amount"] = amount.model_dump()
        body = json.dumps(event).encode()
        return {
            SIGNATURE_HEADER: self.compute_signature(body, sent_at),
            "content-type": "application/json",
        }, body

    def parse_event(self, headers: Mapping[str, str], body: bytes, now: datetime) -> ProviderEvent:
        """Raises WebhookSignatureInvalid, BodyTooLarge, MalformedRequest, ValidationFailed."""
        if len(body) > MAX_WEBHOOK_BYTES:
            raise BodyTooLarge(limit=MAX_WEBHOOK_BYTES)
        verify_signature(headers.get(SIGNATURE_HEADER, ""), body, [self._key], now)
        event = _parse_body(body)
        operation_id = event.data.operation_id if isinstance(event, _OperationEvent) else None
        return ProviderEvent(self.provider, event.event_id, event.type, operation_id, body.decode())

    def parse_news(self, event: ProviderEvent) -> ProviderNews:
        body = _OperationEvent.model_validate_json(event.body)
        kind, _, result = body.type.partition(".")
        return ProviderNews(
            OperationKind(kind), _parse_outcome(result, body.data), body.data.amount
        )


def _parse_body(body: bytes) -> _OperationEvent | _OtherEvent:
    """Raises MalformedRequest, ValidationFailed."""
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise MalformedRequest("The body is not UTF-8.") from None
    try:
        return _OperationEvent.model_validate_json(text)
    except ValidationError as error:
        return _parse_other_event(text, error)


def _parse_other_event(text: str, error: ValidationError) -> _OtherEvent:
    """Parse an event of an unknown type. Raises MalformedRequest, ValidationFailed."""
    if any(item["type"] == "literal_error" for item in error.errors()):
        try:
            return _OtherEvent.model_validate_json(text)
        except ValidationError as second:
            error = second
    raise invalid_event(error)


def _parse_outcome(result: str, data: _EventData) -> Outcome:
    match result:
        case "succeeded":
            return Succeeded(data.reference)
        case "requires_action":
            return ActionRequired(RedirectAction(url=data.next_action))
        case _:
            return Failed(data.failure_code)


def _encode_outcome(outcome: Outcome) -> tuple[str, dict[str, str]]:
    match outcome:
        case Succeeded(reference):
            return "succeeded", {"reference": reference}
        case Failed(code):
            return "failed", {"failure_code": code}
        case ActionRequired(next_action):
            url = next_action.url if isinstance(next_action, RedirectAction) else ""
            return "requires_action", {"next_action": url}
