"""The sandbox's webhooks: how it signs them, and how we read them."""

import hmac
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, Literal
from uuid import UUID

from pydantic import Field, ValidationError

from markethall.payments.contract import WebhookSignatureInvalid
from markethall.payments.domain import ActionRequired, Failed, Outcome, Succeeded
from markethall.payments.ports import NEVER_ARRIVED, ProviderEvent
from markethall.shared.errors import Invalid, Malformed, TooLarge
from markethall.shared.model import Dto, Id, Text

SIGNATURE: Final = "sandbox-signature"
TOLERANCE: Final = timedelta(minutes=5)
LIMIT: Final = 64 * 1024
# t=<unix>,v1=<hex of SHA-256>, with room for a second signature while a key is changed
_LONGEST_SIGNATURE: Final = 300


class _Data(Dto):
    operation_id: Id
    reference: Annotated[Text, Field(max_length=255)] = ""
    failure_code: Annotated[Text, Field(max_length=100)] = NEVER_ARRIVED
    next_action: Annotated[Text, Field(max_length=2000)] = ""


class _News(Dto):
    event_id: Annotated[Text, Field(min_length=1, max_length=255)]


class _OperationNews(_News):
    type: Literal[
        "charge.succeeded",
        "charge.failed",
        "charge.requires_action",
        "refund.succeeded",
        "refund.failed",
    ]
    data: _Data


class _OtherNews(_News):
    """A type that we do not act on: stored all the same."""

    type: Annotated[Text, Field(min_length=1, max_length=100)]


class SandboxWebhooks:
    """HMAC-SHA-256 over "<unix time>.<body>", with a key of its own derived from the secret."""

    provider = "sandbox"

    def __init__(self, secret: bytes) -> None:
        self._key = hmac.digest(secret, b"markethall sandbox webhook", "sha256")

    def signature(self, body: bytes, at: datetime) -> str:
        """The value of the Sandbox-Signature header."""
        unix = int(at.timestamp())
        return f"t={unix},v1={self._digest(unix, body)}"

    def signed(
        self, operation_id: UUID, outcome: Outcome, at: datetime
    ) -> tuple[dict[str, str], bytes]:
        """The headers and the body of the news about a charge. The same event id every time."""
        kind, data = _told(outcome)
        event = {
            "event_id": f"evt_{operation_id.hex}",
            "type": f"charge.{kind}",
            "created": int(at.timestamp()),
            "data": {"operation_id": str(operation_id)} | data,
        }
        body = json.dumps(event).encode()
        return {SIGNATURE: self.signature(body, at), "content-type": "application/json"}, body

    def verified(self, headers: Mapping[str, str], body: bytes, now: datetime) -> ProviderEvent:
        """Raises WebhookSignatureInvalid, TooLarge, Malformed, Invalid."""
        if len(body) > LIMIT:
            raise TooLarge(limit=LIMIT)
        self._check(headers.get(SIGNATURE, ""), body, now)
        news = _read(body)
        about = news.data.operation_id if isinstance(news, _OperationNews) else None
        return ProviderEvent(self.provider, news.event_id, news.type, about, body.decode())

    def outcome(self, event: ProviderEvent) -> Outcome:
        news = _OperationNews.model_validate_json(event.body)
        match news.type.partition(".")[2]:
            case "succeeded":
                return Succeeded(news.data.reference)
            case "requires_action":
                return ActionRequired(news.data.next_action)
            case _:
                return Failed(news.data.failure_code)

    def _check(self, header: str, body: bytes, now: datetime) -> None:
        unix, signatures = _parsed(header)
        sent_at = datetime.fromtimestamp(unix, UTC)
        good = self._digest(unix, body).encode()
        genuine = [hmac.compare_digest(good, given.encode()) for given in signatures]
        if not any(genuine) or abs(now - sent_at) > TOLERANCE:
            raise WebhookSignatureInvalid

    def _digest(self, unix: int, body: bytes) -> str:
        return hmac.digest(self._key, f"{unix}.".encode() + body, "sha256").hex()


def _parsed(header: str) -> tuple[int, list[str]]:
    """Raises WebhookSignatureInvalid."""
    pairs = [part.strip().partition("=") for part in header[:_LONGEST_SIGNATURE].split(",")]
    times = [value for name, _, value in pairs if name == "t"]
    if len(times) != 1 or not (times[0].isascii() and times[0].isdigit() and len(times[0]) < 12):  # noqa: PLR2004 - digits of unix time
        raise WebhookSignatureInvalid
    return int(times[0]), [value for name, _, value in pairs if name == "v1"]


def _read(body: bytes) -> _OperationNews | _OtherNews:
    """Raises Malformed, Invalid."""
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise Malformed("The body is not UTF-8.") from None
    try:
        return _OperationNews.model_validate_json(text)
    except ValidationError as error:
        return _other(text, error)


def _other(text: str, error: ValidationError) -> _OtherNews:
    """News of a type that we do not know; everything else is refused."""
    first = error.errors(include_url=False)[0]
    if first["type"] == "json_invalid":
        raise Malformed("The body is not JSON.")
    if any(item["type"] == "literal_error" for item in error.errors()):
        try:
            return _OtherNews.model_validate_json(text)
        except ValidationError as second:
            error = second
    raise Invalid(errors=[_field_error(item) for item in error.errors()[:20]])


def _field_error(item: Any) -> dict[str, str]:
    pointer = "".join(f"/{part}" for part in item["loc"])
    return {"field": pointer, "code": item["type"], "message": item["msg"]}


def _told(outcome: Outcome) -> tuple[str, dict[str, str]]:
    match outcome:
        case Succeeded(reference):
            return "succeeded", {"reference": reference}
        case Failed(code):
            return "failed", {"failure_code": code}
        case ActionRequired(next_action):
            return "requires_action", {"next_action": next_action}
