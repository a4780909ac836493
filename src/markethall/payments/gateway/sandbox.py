"""The built-in sandbox provider. The payment method selects the outcome of a charge."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final, Literal
from uuid import UUID

from markethall.payments.contract.api import RedirectAction
from markethall.payments.contract.statuses import OperationKind
from markethall.payments.domain.operation import ActionRequired, Failed, Outcome, Succeeded
from markethall.payments.domain.outcomes import CHARGE_KINDS
from markethall.payments.domain.saved_method import MethodDetails
from markethall.payments.gateway.sandbox_webhooks import SandboxWebhooks
from markethall.payments.ports import (
    PROVIDER_TIMEOUT,
    Capability,
    GatewayTools,
    OperationRequest,
    PaymentGateway,
    PaymentGatewayTimeout,
    PaymentMethod,
    ProviderEvent,
    ProviderNews,
    ReportKind,
    ReportLine,
    SandboxCapture,
    SandboxCharge,
    SandboxLedger,
    SandboxMovement,
    SandboxRefund,
    SandboxSavedMethod,
)
from markethall.shared.kernel.errors import DomainError
from markethall.shared.kernel.money import Money

TOKEN_PREFIX: Final = "sandbox_saved_"
SandboxOutcome = Literal["succeeded", "failed", "requires_action", "authorized"]
_CAPTURE_KINDS: Final = frozenset({OperationKind.CAPTURE, OperationKind.VOID})

TIMEOUT_BEFORE: Final = "sandbox_timeout_before"
TIMEOUT_AFTER: Final = "sandbox_timeout_after"
SLOW: Final = "sandbox_slow"
WEBHOOK_FIRST: Final = "sandbox_webhook_first"

# payment method -> outcome and failure code
SANDBOX_METHODS: Final[Mapping[str, tuple[SandboxOutcome, str | None]]] = {
    "sandbox_ok": ("succeeded", None),
    "sandbox_declined": ("failed", "card_declined"),
    "sandbox_insufficient_funds": ("failed", "insufficient_funds"),
    "sandbox_action_required": ("requires_action", None),
    TIMEOUT_BEFORE: ("succeeded", None),
    TIMEOUT_AFTER: ("succeeded", None),
    SLOW: ("succeeded", None),
    WEBHOOK_FIRST: ("succeeded", None),
}
SLOW_SECONDS: Final = 5.0
_REPORT_PAGE_SIZE: Final = 500
_NO_SUCH_METHOD: Final[tuple[SandboxOutcome, str]] = ("failed", "no_such_method")


class SandboxSavedMethods:
    def __init__(self, ledger: SandboxLedger) -> None:
        self._ledger = ledger

    async def resolve(self, request: OperationRequest) -> OperationRequest | None:
        """Replace the token of a saved method by the method that was saved.

        Return None if the method does not exist, is detached or belongs to another customer.
        """
        if not request.method.startswith(TOKEN_PREFIX):
            return request
        saved = await self._ledger.get_saved_method(request.method)
        if saved is None or not saved.is_attached or saved.customer != request.customer:
            return None
        return replace(request, method=saved.method)

    async def save(self, request: OperationRequest, outcome: Outcome) -> Outcome:
        """Save the method of a charge that has succeeded, if the customer wants it."""
        if not isinstance(outcome, Succeeded) or not request.saves_method or not request.customer:
            return outcome
        token = f"{TOKEN_PREFIX}{request.operation_id.hex}"
        await self._ledger.record_saved_method(
            SandboxSavedMethod(token, request.customer, request.method)
        )
        details = MethodDetails(token, brand="sandbox", last4="4242", exp_month=12, exp_year=2099)
        return replace(outcome, saved_method=details)


class SandboxGateway(PaymentGateway):
    """A simulated card provider and its client in one class. The sandbox ledger holds its state."""

    provider = "sandbox"
    capabilities = frozenset(
        {
            Capability.AUTHORIZE,
            Capability.PARTIAL_CAPTURE,
            Capability.MULTIPLE_CAPTURES,
            Capability.REFUND,
            Capability.PARTIAL_REFUND,
            Capability.WEBHOOKS,
            Capability.REPORT,
            Capability.SAVED_METHODS,
        }
    )

    def __init__(
        self,
        tools: GatewayTools,
        webhook_secret: bytes,
        authorization_lifetime: timedelta = timedelta(days=7),
    ) -> None:
        self._authorization_lifetime = authorization_lifetime
        self._ledger = tools.sandbox_ledger
        self._saved_methods = SandboxSavedMethods(tools.sandbox_ledger)
        self._webhooks = SandboxWebhooks(webhook_secret)
        self._deliver = tools.deliver_webhook
        self._clock = tools.clock
        self._sleep = tools.sleep

    def accepts(self, method: str) -> bool:
        return method in SANDBOX_METHODS or method.startswith(TOKEN_PREFIX)

    def list_methods(self) -> Sequence[PaymentMethod]:
        return [
            PaymentMethod(method=method, name=method.replace("_", " ").capitalize())
            for method in SANDBOX_METHODS
        ]

    async def charge(self, request: OperationRequest) -> Outcome:
        if request.method == TIMEOUT_BEFORE:
            raise PaymentGatewayTimeout
        if request.method == SLOW:
            await self._sleep(SLOW_SECONDS)
        payable = await self._saved_methods.resolve(request)
        charge = self._new_charge(payable or request, None if payable else _NO_SUCH_METHOD)
        outcome = await self._outcome_of(request, await self._ledger.record_charge(charge))
        if request.method == TIMEOUT_AFTER:
            raise PaymentGatewayTimeout
        if request.method == WEBHOOK_FIRST:
            await self._send_webhook(request, outcome)
        return outcome

    # `_new_charge` makes an authorization of it
    authorize = charge

    async def capture(self, request: OperationRequest) -> Outcome:
        return await self._change(request, "capture")

    async def void(self, request: OperationRequest) -> Outcome:
        return await self._change(request, "void")

    async def _change(self, request: OperationRequest, kind: Literal["capture", "void"]) -> Outcome:
        capture = SandboxCapture(
            operation_id=request.operation_id,
            kind=kind,
            status="succeeded",
            created_at=self._clock(),
            charge_operation_id=request.charge_id,
            amount=request.amount.amount,
            currency=request.amount.currency,
            is_final=request.is_final,
        )
        return _capture_outcome(await self._ledger.record_capture(capture))

    async def refund(self, request: OperationRequest) -> Outcome:
        refund = SandboxRefund(
            operation_id=request.operation_id,
            status="succeeded",
            created_at=self._clock(),
            charge_operation_id=request.charge_id,
            amount=request.amount.amount,
            currency=request.amount.currency,
        )
        return _refund_outcome(await self._ledger.record_refund(refund))

    async def lookup(self, request: OperationRequest) -> Outcome | None:
        if request.kind is OperationKind.REFUND:
            refund = await self._ledger.get_refund(request.operation_id)
            return _refund_outcome(refund) if refund else None
        if request.kind in _CAPTURE_KINDS:
            capture = await self._ledger.get_capture(request.operation_id)
            return _capture_outcome(capture) if capture else None
        charge = await self._ledger.get_charge(request.operation_id)
        return await self._outcome_of(request, charge) if charge else None

    async def _outcome_of(self, request: OperationRequest, charge: SandboxCharge) -> Outcome:
        return await self._saved_methods.save(request, _charge_outcome(charge))

    async def ensure_customer(self, user_id: UUID, known: str | None = None) -> str:
        return f"sandbox_customer_{user_id.hex}"

    async def detach_method(self, token: str) -> None:
        await self._ledger.detach_saved_method(token)

    async def cancel_unknown(self, request: OperationRequest) -> Outcome:
        now = self._clock()
        if request.kind is OperationKind.REFUND:
            return _refund_outcome(
                await self._ledger.record_refund(SandboxRefund(request.operation_id, "closed", now))
            )
        if request.kind in _CAPTURE_KINDS:
            kind: Literal["capture", "void"] = (
                "void" if request.kind is OperationKind.VOID else "capture"
            )
            return _capture_outcome(
                await self._ledger.record_capture(
                    SandboxCapture(request.operation_id, kind, "closed", now)
                )
            )
        closed = SandboxCharge(request.operation_id, "closed", now)
        return await self._outcome_of(request, await self._ledger.record_charge(closed))

    def parse_event(self, headers: Mapping[str, str], body: bytes, now: datetime) -> ProviderEvent:
        return self._webhooks.parse_event(headers, body, now)

    def parse_news(self, event: ProviderEvent) -> ProviderNews:
        return self._webhooks.parse_news(event)

    async def lookup_after_news(
        self, request: OperationRequest, news: ProviderNews
    ) -> Outcome | None:
        """Store the outcome of the event as that of the charge, for tests and demonstrations.

        A signed `charge.succeeded` simulates a customer who has finished the required action.
        """
        if request.kind in CHARGE_KINDS:
            await self._ledger.advance_charge(
                self._new_charge(request, _charge_status(news.outcome))
            )
        return await self.lookup(request)

    async def report(self, start: datetime, end: datetime) -> AsyncIterator[ReportLine]:
        after: tuple[datetime, UUID] | None = None
        while page := await self._ledger.list_movements(start, end, after, _REPORT_PAGE_SIZE):
            for movement in page:
                yield _report_line(movement)
            after = page[-1].created_at, page[-1].operation_id

    def _new_charge(
        self, request: OperationRequest, result: tuple[SandboxOutcome, str | None] | None = None
    ) -> SandboxCharge:
        status, code = result or SANDBOX_METHODS[request.method]
        if request.kind is OperationKind.AUTHORIZE and status == "succeeded":
            status = "authorized"
        now = self._clock()
        return SandboxCharge(
            operation_id=request.operation_id,
            status=status,
            created_at=now,
            amount=request.amount.amount,
            currency=request.amount.currency,
            method=request.method,
            failure_code=code,
            captured=request.amount.amount if status == "succeeded" else 0,
            expires_at=now + self._authorization_lifetime if status == "authorized" else None,
        )

    async def _send_webhook(self, request: OperationRequest, outcome: Outcome) -> None:
        """Send the webhook. Ignore an error of the receiver, as a real provider would."""
        headers, body = self._webhooks.build_signed_event(
            request.operation_id, outcome, self._clock(), request.amount, request.kind
        )
        try:
            await self._deliver(self.provider, headers, body)
        except DomainError:
            return


def _charge_status(outcome: Outcome) -> tuple[SandboxOutcome, str | None]:
    match outcome:
        case Succeeded():
            return "succeeded", None
        case Failed(code):
            return "failed", code
        case ActionRequired():
            return "requires_action", None


def _report_line(movement: SandboxMovement) -> ReportLine:
    prefix = {"charge": "ch", "capture": "cp", "refund": "re"}[movement.kind]
    return ReportLine(
        kind=ReportKind.REFUND if movement.kind == "refund" else ReportKind.PAYMENT,
        reference=f"{prefix}_{movement.operation_id.hex}",
        operation_id=movement.operation_id,
        amount=Money(amount=movement.amount, currency=movement.currency),
        occurred_at=movement.created_at,
    )


def _charge_outcome(charge: SandboxCharge) -> Outcome:
    match charge.status:
        case "succeeded" | "authorized" | "voided":
            return Succeeded(f"ch_{charge.operation_id.hex}", charge.expires_at)
        case "requires_action":
            url = f"https://sandbox.example/actions/{charge.operation_id.hex}"
            return ActionRequired(RedirectAction(url=url))
        case "failed" | "closed":
            return Failed(charge.failure_code or PROVIDER_TIMEOUT)


def _capture_outcome(capture: SandboxCapture) -> Outcome:
    match capture.status:
        case "succeeded":
            return Succeeded(f"cp_{capture.operation_id.hex}")
        case "failed":
            return Failed(f"{capture.kind}_not_possible")
        case "closed":
            return Failed(PROVIDER_TIMEOUT)


def _refund_outcome(refund: SandboxRefund) -> Outcome:
    match refund.status:
        case "succeeded":
            return Succeeded(f"re_{refund.operation_id.hex}")
        case "failed":
            return Failed("refund_exceeds_charge")
        case "closed":
            return Failed(PROVIDER_TIMEOUT)
