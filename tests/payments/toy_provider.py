"""A small provider with every capability, its gateway, and faults that a test can plant."""

import asyncio
import hmac
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from markethall.payments.contract.errors import WebhookSignatureInvalid
from markethall.payments.ports import (
    PROVIDER_TIMEOUT,
    ActionRequired,
    Capability,
    Failed,
    MethodDetails,
    OperationKind,
    OperationRequest,
    Outcome,
    PaymentDispute,
    PaymentGateway,
    PaymentGatewayTimeout,
    ProviderDispute,
    ProviderEvent,
    ProviderNews,
    RedirectAction,
    ReportKind,
    ReportLine,
    Succeeded,
)
from markethall.shared.kernel.errors import MalformedRequest
from markethall.shared.kernel.ids import new_id
from markethall.shared.kernel.money import Money
from markethall.testing import GatewayTestbed, ProviderTotals
from tests.payments.toy_faults import FAULTS

KEY = b"the key of the toy"
TOLERANCE = timedelta(minutes=5)
NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
BLOCKED = Failed(PROVIDER_TIMEOUT)


@dataclass
class Account:
    """A charge or authorization, as the provider stores it. Amounts are in minor units."""

    amount: int
    currency: str
    captured: int = 0
    refunded: int = 0
    is_voided: bool = False
    is_closed: bool = False
    is_declined: bool = False


@dataclass
class Books:
    accounts: dict[UUID, Account] = field(default_factory=dict)
    outcomes: dict[UUID, Outcome] = field(default_factory=dict)
    requests: dict[UUID, tuple[OperationRequest, Outcome]] = field(default_factory=dict)
    # maps the id of a dispute to its charge
    disputes: dict[str, UUID] = field(default_factory=dict)
    # maps the token of a saved method to its customer; None for a detached method
    saved: dict[str, str | None] = field(default_factory=dict)


class ToyGateway(PaymentGateway):
    provider = "toy"
    capabilities = frozenset(Capability)

    def __init__(self, fault: str = "") -> None:
        self.books = Books()
        self.fault = fault
        self.loses_answer = False
        if fault == "a capability is hidden":
            self.capabilities = frozenset(Capability) - {Capability.MULTIPLE_CAPTURES}

    def has(self, fault: str) -> bool:
        assert fault in FAULTS
        return self.fault == fault

    def accepts(self, method: str) -> bool:
        is_known = method in {"toy_ok", "toy_declined", "toy_action"}
        is_known = is_known or method in self.books.saved
        return is_known or self.has("every method is accepted")

    async def charge(self, request: OperationRequest) -> Outcome:
        return await self._execute(request)

    async def authorize(self, request: OperationRequest) -> Outcome:
        return await self._execute(request)

    async def capture(self, request: OperationRequest) -> Outcome:
        return await self._execute(request)

    async def void(self, request: OperationRequest) -> Outcome:
        return await self._execute(request)

    async def refund(self, request: OperationRequest) -> Outcome:
        return await self._execute(request)

    async def lookup(self, request: OperationRequest) -> Outcome | None:
        if self.has("lookup needs the reference") and not request.reference:
            return None
        if self.has("refunds are not found") and request.kind is OperationKind.REFUND:
            return None
        found = self.books.outcomes.get(request.operation_id)
        if self.has("a saved method is lost") and isinstance(found, Succeeded):
            return replace(found, saved_method=None)
        return found or (BLOCKED if self.has("an unknown operation is failed") else None)

    async def cancel_unknown(self, request: OperationRequest) -> Outcome:
        if self.has("a known operation is blocked"):
            return BLOCKED
        if self.has("a blocked operation arrives late"):
            return self.books.outcomes.get(request.operation_id, BLOCKED)
        return self.books.outcomes.setdefault(request.operation_id, BLOCKED)

    async def cancel_action(self, request: OperationRequest) -> Outcome:
        outcome = self.books.outcomes.get(request.operation_id, BLOCKED)
        if isinstance(outcome, Succeeded) and not self.has("a finished action is cancelled"):
            return outcome
        if not self.has("a cancelled action succeeds"):
            self.books.outcomes[request.operation_id] = BLOCKED
        return BLOCKED

    async def lookup_dispute(self, reference: str) -> ProviderDispute | None:
        charge_id = self.books.disputes.get(reference)
        account = self.books.accounts.get(charge_id) if charge_id else None
        if account is None and not self.has("an unknown dispute is found"):
            return None
        amount = account.amount if account else 0
        dispute = PaymentDispute(
            status="needs_response",
            reason="fraudulent",
            amount=Money(
                amount=amount + self.has("a dispute has another amount"),
                currency=account.currency if account else "EUR",
            ),
            opened_at=NOW,
            provider_reference=reference,
        )
        return ProviderDispute(
            dispute, None if self.has("a dispute names no operation") else charge_id
        )

    async def ensure_customer(self, user_id: UUID, known: str | None = None) -> str:
        return "customer" if self.has("users share a customer") else f"customer_{user_id}"

    async def detach_method(self, token: str) -> None:
        is_attached = self.books.saved.get(token) is not None
        if self.has("a second detach raises") and not is_attached:
            raise PaymentGatewayTimeout
        if not self.has("a detached method pays"):
            self.books.saved[token] = None

    def _may_charge(self, request: OperationRequest) -> bool:
        if request.method not in self.books.saved:
            return True
        if self.has("a saved method does not pay"):
            return False
        customer = self.books.saved[request.method]
        pays_for_others = customer is not None and self.has("a saved method pays for others")
        return pays_for_others or (customer is not None and customer == request.customer)

    def _save_method(self, request: OperationRequest, outcome: Outcome) -> Outcome:
        is_wanted = request.saves_method or self.has("every method is saved")
        if not isinstance(outcome, Succeeded) or not is_wanted:
            return outcome
        token = f"toy_saved_{new_id()}"
        self.books.saved[token] = request.customer
        return replace(outcome, saved_method=MethodDetails(token, "toy", "4242", 1, 2040))

    def finish_action(self, charge_id: UUID) -> None:
        if isinstance(self.books.outcomes[charge_id], ActionRequired):
            account = self.books.accounts[charge_id]
            account.captured = account.amount
            self.books.outcomes[charge_id] = Succeeded(f"toy_{charge_id}")

    async def report(self, start: datetime, end: datetime) -> AsyncIterator[ReportLine]:
        is_early = start > NOW and not self.has("the report ignores the start")
        if is_early or (end <= NOW and not self.has("the report ignores the end")):
            return
        for request, outcome in self.books.requests.values():
            if line := self._report_line(request, outcome):
                yield line
                if self.has("the report repeats a line"):
                    yield line

    def _report_line(self, request: OperationRequest, outcome: Outcome) -> ReportLine | None:
        if isinstance(outcome, Failed) and not self.has("the report has declined charges"):
            return None
        if request.kind is OperationKind.VOID:
            return None
        if request.kind is OperationKind.AUTHORIZE and not self.has(
            "the report has authorizations"
        ):
            return None
        is_refund = request.kind is OperationKind.REFUND
        if is_refund and self.has("the report lacks refunds"):
            return None
        is_named_payment = self.has("the report calls a refund a payment")
        names_nothing = self.has("the report names no operation")
        return ReportLine(
            kind=ReportKind.REFUND if is_refund and not is_named_payment else ReportKind.PAYMENT,
            amount=self._reported_amount(request),
            reference="" if names_nothing else outcome.reference or "",
            operation_id=None if names_nothing else request.operation_id,
            occurred_at=NOW,
        )

    def _reported_amount(self, request: OperationRequest) -> Money:
        if self.has("the report has another amount"):
            return Money(amount=1, currency=request.amount.currency)
        is_capture = request.kind is OperationKind.CAPTURE
        if is_capture and self.has("the report has authorized amounts"):
            account = self._account(request)
            assert account
            return Money(amount=account.amount, currency=account.currency)
        return request.amount

    def parse_event(self, headers: Mapping[str, str], body: bytes, now: datetime) -> ProviderEvent:
        if not self.has("signatures are not verified"):
            self._verify(headers.get("toy-signature", ""), body, now)
        try:
            event: dict[str, Any] = json.loads(body)
            operation_id = UUID(event["operation_id"])
        except (ValueError, KeyError, TypeError, RecursionError):
            if self.has("garbage raises"):
                raise
            raise MalformedRequest from None
        return ProviderEvent(
            self.provider,
            self._event_id(event["event_id"]),
            "charge",
            None if self.has("an event names no operation") else operation_id,
            body.decode(),
        )

    def parse_news(self, event: ProviderEvent) -> ProviderNews:
        return ProviderNews(OperationKind.CHARGE, Succeeded(json.loads(event.body)["reference"]))

    def _event_id(self, event_id: str) -> str:
        if self.has("an event id is random"):
            return str(new_id())
        return "1" if self.has("all events have one id") else event_id

    def _verify(self, signature: str, body: bytes, now: datetime) -> None:
        seconds, _, digest = signature.partition(".")
        if not seconds.isascii() or not seconds.isdigit() or not digest.isascii():
            raise WebhookSignatureInvalid
        age = now - datetime.fromtimestamp(int(seconds), UTC)
        is_old = age > TOLERANCE and not self.has("old webhooks are accepted")
        is_early = -age > TOLERANCE and not self.has("future webhooks are accepted")
        signed = b"" if self.has("the body is not signed") else body
        if is_old or is_early or not hmac.compare_digest(digest, sign(seconds, signed)):
            raise WebhookSignatureInvalid

    async def _execute(self, request: OperationRequest) -> Outcome:
        """Execute an operation once. A repeated call returns the stored outcome."""
        known = self.books.outcomes.get(request.operation_id)
        if self.has("concurrent charges all charge"):
            await asyncio.sleep(0)
        if known is None or self._repeats(request, known):
            known = self._effect(request)
            self.books.outcomes[request.operation_id] = known
            self.books.requests[request.operation_id] = request, known
        elif self.has("a repeated charge has another outcome"):
            return Failed("duplicate")
        if self.loses_answer:
            self.loses_answer = False
            if self.has("a lost answer is a decline"):
                return Failed("no answer")
            raise PaymentGatewayTimeout
        return known

    def _repeats(self, request: OperationRequest, known: Outcome) -> bool:
        repeated = {
            OperationKind.CHARGE: "a repeated charge charges again",
            OperationKind.REFUND: "a repeated refund refunds again",
            OperationKind.CAPTURE: "a capture after a lost answer captures again",
        }
        return known != BLOCKED and self.has(repeated.get(request.kind, "garbage raises"))

    def _effect(self, request: OperationRequest) -> Outcome:
        match request.kind:
            case OperationKind.CHARGE | OperationKind.AUTHORIZE:
                return self._open(request)
            case OperationKind.CAPTURE:
                return self._capture(request)
            case OperationKind.VOID:
                return self._void(request)
            case OperationKind.REFUND:
                return self._refund(request)

    def _open(self, request: OperationRequest) -> Outcome:
        amount, is_declined = request.amount.amount, request.method == "toy_declined"
        new = Account(amount, request.amount.currency, is_declined=is_declined)
        if not self._may_charge(request):
            return Failed("no_such_method")
        account = self.books.accounts.setdefault(request.operation_id, new)
        if request.method == "toy_action":
            action = RedirectAction(url="https://toy.example")
            return ActionRequired(action, f"toy_{new_id()}", is_cancellable=True)
        takes = request.kind is OperationKind.CHARGE or self.has("an authorization captures")
        if takes and (not is_declined or self.has("a decline takes the amount")):
            account.captured += amount
        if is_declined:
            return Failed("card_declined")
        return self._save_method(request, self._succeed(request))

    def _capture(self, request: OperationRequest) -> Outcome:
        account = self._account(request)
        if account is None:
            return Failed("no such authorization")
        has_ended = account.is_voided or account.is_closed
        if has_ended and not self.has("a voided authorization is captured"):
            return Failed("voided")
        earlier = 0 if self.has("captures ignore earlier captures") else account.captured
        is_too_much = earlier + request.amount.amount > account.amount
        if is_too_much and not self.has("captures exceed the authorization"):
            return Failed("too much")
        if self.has("a missing capability is declared") and request.amount.amount < account.amount:
            return Failed("only whole captures")
        account.captured += request.amount.amount
        if not self.has("a final capture keeps the rest"):
            account.is_closed = request.is_final or account.captured == account.amount
        return self._succeed(request)

    def _void(self, request: OperationRequest) -> Outcome:
        account = self._account(request)
        if account is None:
            return Failed("no such authorization")
        if account.is_closed and not self.has("a captured authorization is voided"):
            return Failed("captured")
        account.is_voided = not (account.captured and self.has("a void keeps the rest"))
        return self._succeed(request)

    def _refund(self, request: OperationRequest) -> Outcome:
        account = self._account(request)
        if account is None or account.is_declined:
            return Failed("nothing to refund")
        is_other_currency = account.currency != request.amount.currency
        if is_other_currency and not self.has("a refund ignores the currency"):
            return Failed("currency")
        limit = account.amount if self.has("refunds exceed the captures") else account.captured
        earlier = 0 if self.has("refunds ignore earlier refunds") else account.refunded
        is_too_much = earlier + request.amount.amount > limit
        is_limited = self.fault not in {
            "refunds exceed the capture",
            "a repeated refund refunds again",
        }
        if is_too_much and is_limited:
            return Failed("too much")
        account.refunded += request.amount.amount
        return self._succeed(request)

    def _account(self, request: OperationRequest) -> Account | None:
        return self.books.accounts.get(request.charge_id) if request.charge_id else None

    def _succeed(self, request: OperationRequest) -> Outcome:
        return Succeeded("toy" if self.has("references are shared") else f"toy_{new_id()}")


def sign(seconds: str, body: bytes) -> str:
    return hmac.digest(KEY, f"{seconds}.".encode() + body, "sha256").hex()


class ToyTestbed(GatewayTestbed):
    method = "toy_ok"
    declined_method = "toy_declined"
    action_method = "toy_action"

    def __init__(self, fault: str = "") -> None:
        self.gateway: ToyGateway = ToyGateway(fault)

    async def totals(self, charge_id: UUID) -> ProviderTotals:
        account = self.gateway.books.accounts.get(charge_id)
        return ProviderTotals(account.captured, account.refunded) if account else ProviderTotals()

    def lose_next_answer(self) -> None:
        self.gateway.loses_answer = True

    def finish_action(self, charge_id: UUID) -> None:
        self.gateway.finish_action(charge_id)

    def open_dispute(self, charge_id: UUID) -> str:
        self.gateway.books.disputes["dispute"] = charge_id
        return "dispute"

    def webhook_body(self, request: OperationRequest, outcome: Outcome) -> bytes:
        event = {
            "event_id": f"evt_{request.operation_id}",
            "operation_id": str(request.operation_id),
            "reference": outcome.reference,
        }
        return json.dumps(event).encode()

    def sign_webhook(self, body: bytes, sent_at: datetime) -> Mapping[str, str]:
        seconds = str(int(sent_at.timestamp()))
        body = b"" if self.gateway.has("the body is not signed") else body
        return {"toy-signature": f"{seconds}.{sign(seconds, body)}"}
