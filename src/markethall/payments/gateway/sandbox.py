"""The built-in sandbox provider. The payment method selects its outcome."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Final, Literal
from uuid import UUID

from markethall.payments.contract import OperationKind
from markethall.payments.domain import ActionRequired, Failed, Operation, Outcome, Succeeded
from markethall.payments.gateway.sandbox_webhooks import SandboxWebhooks
from markethall.payments.ports import (
    PROVIDER_TIMEOUT,
    PaymentGatewayTimeout,
    SandboxCharge,
    SandboxLedger,
    SandboxRefund,
)
from markethall.shared.kernel.clock import Clock
from markethall.shared.kernel.errors import DomainError
from markethall.shared.kernel.money import Money

Sleep = Callable[[float], Awaitable[None]]
DeliverWebhook = Callable[[Mapping[str, str], bytes], Awaitable[object]]
SandboxOutcome = Literal["succeeded", "failed", "requires_action"]

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


class SandboxGateway:
    """A simulated card provider and its client in one class. The sandbox ledger holds its state."""

    provider = "sandbox"

    def __init__(
        self,
        ledger: SandboxLedger,
        webhooks: SandboxWebhooks,
        deliver: DeliverWebhook,
        clock: Clock,
        sleep: Sleep,
    ) -> None:
        self._ledger = ledger
        self._webhooks = webhooks
        self._deliver = deliver
        self._clock = clock
        self._sleep = sleep

    def accepts(self, method: str) -> bool:
        return method in SANDBOX_METHODS

    async def charge(self, operation_id: UUID, amount: Money, method: str) -> Outcome:
        if method == TIMEOUT_BEFORE:
            raise PaymentGatewayTimeout
        if method == SLOW:
            await self._sleep(SLOW_SECONDS)
        outcome = _charge_outcome(
            await self._ledger.record_charge(self._new_charge(operation_id, amount, method))
        )
        if method == TIMEOUT_AFTER:
            raise PaymentGatewayTimeout
        if method == WEBHOOK_FIRST:
            await self._send_webhook(operation_id, outcome, amount)
        return outcome

    async def refund(self, operation_id: UUID, charge_operation_id: UUID, amount: Money) -> Outcome:
        refund = SandboxRefund(
            operation_id=operation_id,
            status="succeeded",
            created_at=self._clock(),
            charge_operation_id=charge_operation_id,
            amount=amount.amount,
            currency=amount.currency,
        )
        return _refund_outcome(await self._ledger.record_refund(refund))

    async def lookup(self, operation_id: UUID, kind: OperationKind) -> Outcome | None:
        if kind is OperationKind.REFUND:
            refund = await self._ledger.get_refund(operation_id)
            return _refund_outcome(refund) if refund else None
        charge = await self._ledger.get_charge(operation_id)
        return _charge_outcome(charge) if charge else None

    async def cancel_unknown(self, operation_id: UUID, kind: OperationKind) -> Outcome:
        now = self._clock()
        if kind is OperationKind.REFUND:
            return _refund_outcome(
                await self._ledger.record_refund(SandboxRefund(operation_id, "closed", now))
            )
        return _charge_outcome(
            await self._ledger.record_charge(SandboxCharge(operation_id, "closed", now))
        )

    def _new_charge(self, operation_id: UUID, amount: Money, method: str) -> SandboxCharge:
        status, code = SANDBOX_METHODS[method]
        return SandboxCharge(
            operation_id=operation_id,
            status=status,
            created_at=self._clock(),
            amount=amount.amount,
            currency=amount.currency,
            method=method,
            failure_code=code,
        )

    async def _send_webhook(self, operation_id: UUID, outcome: Outcome, amount: Money) -> None:
        """Send the webhook. Ignore an error of the receiver, as a real provider would."""
        headers, body = self._webhooks.build_signed_event(
            operation_id, outcome, self._clock(), amount
        )
        try:
            await self._deliver(headers, body)
        except DomainError:
            return


class SandboxNews:
    """The part of the sandbox that follows signed webhooks, as a tool for tests and demonstrations.

    A signed `charge.succeeded` stands for a customer who has finished the required action.
    """

    def __init__(self, ledger: SandboxLedger, clock: Clock) -> None:
        self._ledger = ledger
        self._clock = clock

    async def adopt(self, operation: Operation, outcome: Outcome) -> None:
        if operation.kind is not OperationKind.CHARGE:
            return
        status, code = _charge_status(outcome)
        await self._ledger.advance_charge(
            SandboxCharge(
                operation_id=operation.operation_id,
                status=status,
                created_at=self._clock(),
                amount=operation.amount,
                currency=operation.currency,
                method=operation.method or "",
                failure_code=code,
            )
        )


def _charge_status(outcome: Outcome) -> tuple[SandboxOutcome, str | None]:
    match outcome:
        case Succeeded():
            return "succeeded", None
        case Failed(code):
            return "failed", code
        case ActionRequired():
            return "requires_action", None


def _charge_outcome(charge: SandboxCharge) -> Outcome:
    match charge.status:
        case "succeeded":
            return Succeeded(f"ch_{charge.operation_id.hex}")
        case "requires_action":
            return ActionRequired(f"https://sandbox.example/actions/{charge.operation_id.hex}")
        case "failed" | "closed":
            return Failed(charge.failure_code or PROVIDER_TIMEOUT)


def _refund_outcome(refund: SandboxRefund) -> Outcome:
    match refund.status:
        case "succeeded":
            return Succeeded(f"re_{refund.operation_id.hex}")
        case "failed":
            return Failed("refund_exceeds_charge")
        case "closed":
            return Failed(PROVIDER_TIMEOUT)
