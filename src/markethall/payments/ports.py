"""What payments needs from outside: a database, a card provider, and the provider's webhooks."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Protocol
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
from markethall.shared.kernel.money import Money
from markethall.shared.messaging.events import Delivery, Event


@dataclass(frozen=True)
class PaymentFilter:
    """`after` is the place where the page before ended: (created_at, payment_id)."""

    limit: int
    descending: bool = True
    user_id: UUID | None = None
    order_id: UUID | None = None
    status: PaymentStatus | None = None
    after: tuple[datetime, UUID] | None = None


@dataclass(frozen=True)
class OperationFilter:
    """`after` is the place where the page before ended: (created_at, operation_id)."""

    limit: int
    payment_id: UUID
    kind: OperationKind | None = None
    after: tuple[datetime, UUID] | None = None


@dataclass(frozen=True)
class ProviderEvent:
    """News from the provider. `operation_id` is None for news that we do not act on."""

    provider: str
    event_id: str
    type: str
    operation_id: UUID | None
    body: str


WebhookState = Literal["pending", "applied", "ignored"]


class ReadStore(Protocol):
    """Looks, takes no locks."""

    async def get_payment(self, payment_id: UUID) -> Payment | None: ...
    async def list_payments(self, payment_filter: PaymentFilter) -> Sequence[Payment]: ...
    async def get_operation(self, operation_id: UUID) -> Operation | None: ...
    async def list_operations(self, operation_filter: OperationFilter) -> Sequence[Operation]:
        """In the order they were made."""

    async def list_applicable_events(self, limit: int) -> Sequence[ProviderEvent]:
        """Parked events whose operation is known by now, the oldest first."""

    async def list_postings(
        self, payment_id: UUID | None, before: tuple[datetime, UUID] | None, limit: int
    ) -> Sequence[Posting]:
        """The newest first."""

    async def list_account_balances(self) -> Sequence[LedgerAccountBalance]: ...
    async def get_ledger_report(self) -> LedgerReport: ...
    async def count(self) -> int: ...


class Store(ReadStore, Protocol):
    """One transaction."""

    async def publish(self, event: Event, ctx: CallContext) -> None: ...
    async def mark_processed(self, delivery: Delivery) -> bool: ...
    async def store_response(self, attempt: IdempotentCommand, result: Any) -> None: ...

    async def open_payment(self, payment: Payment) -> Payment:
        """What stands under this id now: new, opened before, or cancelled before it was opened.

        Raises OrderHasPayment.
        """

    async def insert_tombstone(self, payment_id: UUID, now: datetime) -> bool:
        """Leave a tombstone, so that an open that comes later is cancelled already.

        False when there is something under this id.
        """

    async def get_payment_for_update(self, payment_id: UUID) -> Payment | None:
        """Nobody else changes it before this transaction ends. None for a tombstone too."""

    async def get_operation_for_update(
        self, operation_id: UUID
    ) -> tuple[Payment, Operation] | None:
        """The operation with its payment, both locked."""

    async def save_payment(self, payment: Payment) -> None: ...
    async def add_operation(self, payment: Payment, operation: Operation) -> None:
        """Save the payment and add the operation."""

    async def save_operation(self, payment: Payment, operation: Operation) -> None:
        """Save both."""

    async def add_posting(self, posting: Posting) -> None: ...
    async def claim_due_operations(
        self, now: datetime, next_due_at: datetime, limit: int
    ) -> Sequence[Operation]:
        """Open operations that are due to be asked for; they are due again at `until`."""

    async def expire_overdue_payments(self, now: datetime, limit: int) -> int: ...

    async def store_event(self, event: ProviderEvent, state: WebhookState, now: datetime) -> bool:
        """False when it is here already, by provider and event id."""

    async def set_event_state(
        self, event: ProviderEvent, state: WebhookState, now: datetime
    ) -> None: ...


class Database(Protocol):
    after_publish: Callable[[], None]

    def transaction(self) -> AbstractAsyncContextManager[Store]:
        """Commits when the block ends, rolls back when it raises."""

    def read_session(self) -> AbstractAsyncContextManager[ReadStore]:
        """Takes no locks."""


class PaymentGatewayTimeout(Exception):
    """The provider gave no answer: whether it did what was asked is unknown."""


class PaymentGateway(Protocol):
    """A card provider. Every command is idempotent by its operation id.

    All but `accepts` raise GatewayTimeout.
    """

    provider: str

    def accepts(self, method: str) -> bool:
        """Does it know this payment method?"""

    async def charge(self, operation_id: UUID, amount: Money, method: str) -> Outcome:
        """Whatever the answer, it is the last word on this operation id."""

    async def refund(
        self, operation_id: UUID, charge_operation_id: UUID, amount: Money
    ) -> Outcome: ...

    async def lookup(self, operation_id: UUID, kind: OperationKind) -> Outcome | None:
        """What became of it; None when it never arrived."""

    async def cancel_unknown(self, operation_id: UUID, kind: OperationKind) -> Outcome:
        """Forbid what has not arrived yet: Failed("provider_timeout"); else what became of it."""


PROVIDER_TIMEOUT = "provider_timeout"


class WebhookReader(Protocol):
    """Reads what one provider sends us."""

    provider: str

    def parse_event(self, headers: Mapping[str, str], body: bytes, now: datetime) -> ProviderEvent:
        """Raises WebhookSignatureInvalid, BodyTooLarge, MalformedRequest, ValidationFailed."""

    def parse_outcome(self, event: ProviderEvent) -> Outcome:
        """What an event with an operation id says about it."""


@dataclass(frozen=True)
class SandboxCharge:
    """`closed` forbids a charge that has not arrived; it has no amount."""

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


class SandboxLedger(Protocol):
    """The sandbox's own ledger. It outlives this process, as a real provider does."""

    async def record_charge(self, charge: SandboxCharge) -> SandboxCharge:
        """Write it down unless its id is known; what stands there now."""

    async def record_refund(self, refund: SandboxRefund) -> SandboxRefund:
        """The same; failed when the charge has not enough left in this currency."""

    async def get_charge(self, operation_id: UUID) -> SandboxCharge | None: ...
    async def get_refund(self, operation_id: UUID) -> SandboxRefund | None: ...
    async def list_charges(self) -> Sequence[SandboxCharge]:
        """All that ever arrived, for audits."""
