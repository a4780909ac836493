"""Ports of payments: storage, card provider, provider webhooks, the sandbox ledger."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal, Protocol
from uuid import UUID

from markethall.payments.contract import (
    LedgerAccountBalance,
    LedgerReport,
    OperationKind,
    PaymentStatus,
)
from markethall.payments.domain import Operation, Outcome, Payment, Posting
from markethall.shared.idempotency.records import IdempotentCommand
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.model import Dto
from markethall.shared.kernel.money import Money
from markethall.shared.kernel.pagination import TimeKeyset
from markethall.shared.messaging.events import Delivery, Event


@dataclass(frozen=True)
class PaymentFilter:
    """Selection of one page of payments, which begins after the position `after`."""

    limit: int
    descending: bool = True
    user_id: UUID | None = None
    order_id: UUID | None = None
    status: PaymentStatus | None = None
    after: TimeKeyset | None = None


@dataclass(frozen=True)
class OperationFilter:
    """Selection of one page of operations, which begins after the position `after`."""

    limit: int
    payment_id: UUID
    kind: OperationKind | None = None
    after: TimeKeyset | None = None


@dataclass(frozen=True)
class ProviderEvent:
    """A webhook event. An event that changes no payment has no `operation_id`."""

    provider: str
    event_id: str
    type: str
    operation_id: UUID | None
    body: str


@dataclass(frozen=True)
class ProviderNews:
    """The content of a webhook event about an operation. `amount` is None when it names none."""

    kind: OperationKind
    outcome: Outcome
    amount: Money | None = None

    def is_about(self, operation: Operation) -> bool:
        return self.kind is operation.kind and self.amount in {None, operation.money}


# superseded: the provider has newer news; refunded: a second charge went back; dead: for staff
WebhookState = Literal["pending", "applied", "ignored", "superseded", "refunded", "dead"]


class ReadStore(Protocol):
    """Reads without locks."""

    async def get_payment(self, payment_id: UUID) -> Payment | None: ...
    async def list_payments(self, payment_filter: PaymentFilter) -> Sequence[Payment]: ...
    async def get_operation(self, operation_id: UUID) -> Operation | None: ...
    async def list_operations(self, operation_filter: OperationFilter) -> Sequence[Operation]:
        """Return operations, the oldest first."""

    async def list_applicable_events(self, limit: int) -> Sequence[ProviderEvent]:
        """Return pending events whose operation exists, the oldest first."""

    async def list_postings(
        self, payment_id: UUID | None, before: TimeKeyset | None, limit: int
    ) -> Sequence[Posting]:
        """Return postings, the newest first."""

    async def list_account_balances(self) -> Sequence[LedgerAccountBalance]: ...
    async def get_ledger_report(self) -> LedgerReport: ...
    async def count(self) -> int: ...


class Store(ReadStore, Protocol):
    """Reads and writes of one transaction."""

    async def publish(self, event: Event, ctx: CallContext) -> None: ...
    async def mark_processed(self, delivery: Delivery) -> bool: ...
    async def store_response(self, attempt: IdempotentCommand, view: Dto) -> None: ...

    async def open_payment(self, payment: Payment) -> Payment:
        """Insert the payment unless its id exists; return the stored payment.

        If a tombstone has this id, store the payment as cancelled. Raises OrderHasPayment.
        """

    async def activate_payments(self, payment_ids: Sequence[UUID]) -> Sequence[Payment]:
        """Activate the payments in one statement. Return those that exist."""

    async def insert_tombstone(self, payment_id: UUID, now: datetime) -> bool:
        """Insert a tombstone: a later `open_payment` with this id stores a cancelled payment.

        Return False when a payment or a tombstone has this id already.
        """

    async def get_payment_for_update(self, payment_id: UUID) -> Payment | None:
        """Return the payment and lock its row. Return None for an unknown id or a tombstone."""

    async def get_payment_and_operation_for_update(
        self, operation_id: UUID
    ) -> tuple[Payment, Operation] | None:
        """Return the payment and the operation, and lock both rows."""

    async def save_payment(self, payment: Payment) -> None: ...
    async def add_operation(self, payment: Payment, operation: Operation) -> None:
        """Update the payment and insert the operation."""

    async def save_operation(self, payment: Payment, operation: Operation) -> None:
        """Update the payment and the operation, which was open."""

    async def save_corrected_operation(self, payment: Payment, operation: Operation) -> None:
        """Update the payment and the operation, which had failed."""

    async def add_posting(self, posting: Posting) -> None: ...
    async def claim_due_operations(
        self, now: datetime, next_due_at: datetime, limit: int
    ) -> Sequence[Operation]:
        """Return open operations due for reconciliation, and postpone them to `next_due_at`."""

    async def expire_overdue_payments(self, now: datetime, limit: int) -> int:
        """Expire up to `limit` payable payments past `expires_at`. Return their number."""

    async def store_event(self, event: ProviderEvent, state: WebhookState, now: datetime) -> bool:
        """Insert the event. Return False when its provider and event id exist already."""

    async def set_event_state(
        self, event: ProviderEvent, state: WebhookState, now: datetime
    ) -> None: ...


class PaymentGatewayTimeout(Exception):
    """The provider did not answer. It may have executed the command."""


class PaymentGateway(Protocol):
    """A card provider. Every command is idempotent by its operation id.

    All methods but `accepts` may raise PaymentGatewayTimeout.
    """

    provider: str

    def accepts(self, method: str) -> bool:
        """Return whether the provider supports this payment method."""

    async def charge(self, operation_id: UUID, amount: Money, method: str) -> Outcome:
        """Charge the amount. A call with a known operation id returns the first call's outcome."""

    async def refund(
        self, operation_id: UUID, charge_operation_id: UUID, amount: Money
    ) -> Outcome: ...

    async def lookup(self, operation_id: UUID, kind: OperationKind) -> Outcome | None:
        """Return the outcome of an operation, or None when the provider never received it."""

    async def cancel_unknown(self, operation_id: UUID, kind: OperationKind) -> Outcome:
        """Return the outcome of an operation. Block an operation that the provider never received.

        The outcome of a blocked operation is `Failed(PROVIDER_TIMEOUT)`, also if it arrives later.
        """


PROVIDER_TIMEOUT = "provider_timeout"


class WebhookReader(Protocol):
    """Parser of the webhooks of one provider."""

    provider: str

    def parse_event(self, headers: Mapping[str, str], body: bytes, now: datetime) -> ProviderEvent:
        """Raises WebhookSignatureInvalid, BodyTooLarge, MalformedRequest, ValidationFailed."""

    def parse_news(self, event: ProviderEvent) -> ProviderNews:
        """Parse an event that has an operation id."""


class SimulatedProvider(Protocol):
    """A provider in this process, which follows the news that are signed in its name."""

    async def adopt(self, operation: Operation, outcome: Outcome) -> None:
        """Record the outcome of a charge, unless a later one is recorded."""


@dataclass(frozen=True)
class SandboxCharge:
    """A charge at the sandbox. The status `closed` blocks an operation id that never arrived."""

    operation_id: UUID
    status: Literal["succeeded", "failed", "requires_action", "closed"]
    created_at: datetime
    amount: int = 0
    currency: str = ""
    method: str = ""
    failure_code: str | None = None
    refunded: int = 0


@dataclass(frozen=True)
class SandboxRefund:
    operation_id: UUID
    status: Literal["succeeded", "failed", "closed"]
    created_at: datetime
    charge_operation_id: UUID | None = None
    amount: int = 0
    currency: str = ""


# the statuses from which news moves a charge to this one
EARLIER_CHARGE_STATUSES: Final[Mapping[str, tuple[str, ...]]] = {
    "requires_action": (),
    "failed": ("requires_action",),
    "succeeded": ("requires_action", "failed"),
}


class SandboxLedger(Protocol):
    """The charges and refunds of the sandbox provider."""

    async def record_charge(self, charge: SandboxCharge) -> SandboxCharge:
        """Insert the charge unless its id exists. Return the stored charge."""

    async def record_refund(self, refund: SandboxRefund) -> SandboxRefund:
        """Insert the refund unless its id exists. Return the stored refund.

        Store it as failed when it exceeds the rest of the charge or has another currency.
        """

    async def advance_charge(self, charge: SandboxCharge) -> None:
        """Insert the charge, or move it on: requires_action to failed, either to succeeded."""

    async def get_charge(self, operation_id: UUID) -> SandboxCharge | None: ...
    async def get_refund(self, operation_id: UUID) -> SandboxRefund | None: ...
    async def list_charges(self) -> Sequence[SandboxCharge]:
        """Return all charges."""
