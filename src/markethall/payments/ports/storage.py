"""The port to the storage of payments."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, Protocol
from uuid import UUID

from markethall.payments.contract.api import RefundQuery
from markethall.payments.contract.internal import PaymentState
from markethall.payments.contract.statuses import OperationKind, PaymentStatus
from markethall.payments.domain.ledger import Posting
from markethall.payments.domain.operation import Operation
from markethall.payments.domain.payment import Payment
from markethall.payments.domain.saved_method import ProviderCustomer, SavedMethod
from markethall.payments.ports.gateway import ProviderEvent
from markethall.payments.ports.ledger import LedgerReadStore, LedgerStore
from markethall.payments.ports.reconciliation import ReconciliationReadStore, ReconciliationStore
from markethall.shared.idempotency.records import IdempotentCommand
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.model import Dto
from markethall.shared.kernel.pagination import TimeKeyset
from markethall.shared.messaging.events import Delivery, Event


class SavedMethodReads(Protocol):
    async def get_saved_method(self, saved_method_id: UUID) -> SavedMethod | None:
        """Return the method, also if it is deleted."""

    async def find_saved_method(self, provider: str, token: str) -> SavedMethod | None:
        """Return the method with this token, also if it is deleted."""

    async def list_saved_methods(
        self, user_id: UUID, after: TimeKeyset | None, limit: int
    ) -> Sequence[SavedMethod]:
        """Return methods that are not deleted, the newest first."""

    async def get_provider_customer(
        self, user_id: UUID, provider: str
    ) -> ProviderCustomer | None: ...


class SavedMethodWrites(Protocol):
    async def add_provider_customer(
        self, customer: ProviderCustomer, replaced: str | None = None
    ) -> ProviderCustomer:
        """Insert the customer unless the user has one at the provider. Return the stored one.

        A stored customer with the reference `replaced` is replaced.
        """

    async def add_saved_method(self, method: SavedMethod) -> None:
        """Insert the method unless one with its provider and token exists, even a deleted one."""

    async def delete_saved_methods(
        self, user_id: UUID, saved_method_id: UUID | None, now: datetime, limit: int
    ) -> Sequence[SavedMethod]:
        """Delete one method of the user, or up to `limit` of them; return those that existed.

        From `now` on, they are due to be detached at the provider.
        """

    async def claim_methods_to_detach(
        self, now: datetime, next_at: datetime, limit: int
    ) -> Sequence[SavedMethod]:
        """Return deleted methods due to be detached, and postpone them to `next_at`."""

    async def finish_detaching(self, saved_method_id: UUID) -> None:
        """Record that the method is detached, and erase its details except for the token."""


class GuestWrites(Protocol):
    async def get_guest_owner_for_update(self, guest_id: UUID) -> UUID | None:
        """Return the user who has claimed the guest, or None; lock the guest until the commit."""

    async def set_guest_owner(self, guest_id: UUID, user_id: UUID) -> None:
        """Store that the user has claimed the guest, and lock the guest until the commit."""

    async def move_saved_methods(self, guest_id: UUID, user_id: UUID) -> None:
        """Change the owner of the guest's saved payment methods, also of deleted ones, to the user.

        The guest's customers at payment providers are moved to the user as well. If the user
        already has a customer at a provider, the guest's customer is deleted.
        """


@dataclass(frozen=True)
class PaymentFilter:
    """Selection of one page of payments, which begins after the position `after`."""

    limit: int
    descending: bool = True
    user_id: UUID | None = None
    order_id: UUID | None = None
    status: PaymentStatus | None = None
    disputed: bool | None = None
    after: TimeKeyset | None = None


@dataclass(frozen=True)
class Settlement:
    """A charge with its outcome: the changed payment and operation, the event and the posting."""

    payment: Payment
    operation: Operation
    event: Event
    posting: Posting


# pending: not applied yet; ignored: the event concerns no operation of this shop; superseded: the
# provider has another outcome by now; refunded: the event reported a second charge of a captured
# payment, which was refunded; dead: the event cannot be applied, so staff must handle it
WebhookState = Literal["pending", "applied", "ignored", "superseded", "refunded", "dead"]


class ReadStore(LedgerReadStore, ReconciliationReadStore, SavedMethodReads, Protocol):
    """Reads without locks."""

    async def get_payment(self, payment_id: UUID) -> Payment | None: ...
    async def list_payments(self, payment_filter: PaymentFilter) -> Sequence[Payment]: ...
    async def get_operation(self, operation_id: UUID) -> Operation | None: ...
    async def get_payment_for_operation(
        self, payment_id: UUID, operation_id: UUID
    ) -> tuple[Payment | None, Operation | None]:
        """Return the payment, and the operation if it exists, in one statement."""

    async def list_operations(
        self, payment_id: UUID, kind: OperationKind | None, after: TimeKeyset | None, limit: int
    ) -> Sequence[Operation]:
        """Return operations, the oldest first."""

    async def list_payment_states(self, after: UUID | None, limit: int) -> Sequence[PaymentState]:
        """Return states of payments after this id, sorted by payment id, without tombstones."""

    async def list_refunds(
        self, query: RefundQuery, after: TimeKeyset | None
    ) -> Sequence[tuple[Payment, Operation]]:
        """Return `query.limit` + 1 refunds with their payments, the oldest first."""

    async def list_payments_to_refund(self, after: UUID | None, limit: int) -> Sequence[UUID]:
        """Return the ids of voided, cancelled or expired payments whose money must be refunded.

        They are the first after the id `after`, by payment id.
        """

    async def list_overdue_authorizations(self, now: datetime, limit: int) -> Sequence[UUID]:
        """Return the ids of authorized payments past `expires_at`, the longest overdue first.

        Payments with a capture or void whose outcome is not known yet are left out.
        """

    async def list_applicable_events(
        self, provider: str, now: datetime, limit: int
    ) -> Sequence[ProviderEvent]:
        """Return due pending events of the provider, sorted by their due time.

        Events about neither a known operation nor a dispute are left out.
        """

    async def count(self) -> int: ...


class Store(ReadStore, LedgerStore, ReconciliationStore, SavedMethodWrites, GuestWrites, Protocol):
    """Reads and writes of one transaction."""

    async def publish(self, event: Event, ctx: CallContext) -> None: ...
    async def mark_processed(self, delivery: Delivery) -> bool: ...
    async def store_response(self, attempt: IdempotentCommand, view: Dto) -> None: ...

    async def open_payment(self, payment: Payment) -> Payment:
        """Insert the payment unless its id exists; return the stored payment.

        If a tombstone has this id, store the payment as cancelled. Raises OrderHasPayment.
        """

    async def activate_payments(self, payment_ids: Sequence[UUID]) -> Sequence[Payment]:
        """Activate the payments in one statement. Return the payments that exist."""

    async def insert_tombstone(self, payment_id: UUID, now: datetime) -> bool:
        """Record by a tombstone that a payment was cancelled before it was opened.

        A later `open_payment` with this id stores a cancelled payment.

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

    async def try_add_operation(self, payment: Payment, operation: Operation) -> bool:
        """Update the payment, which is not locked, and insert the operation, in one statement.

        Return False and write nothing if the stored payment has changed meanwhile.
        """

    async def try_settle(
        self, settlement: Settlement, ctx: CallContext, attempt: IdempotentCommand, view: Dto
    ) -> bool:
        """Save the settlement and the response in one statement. The payment is not locked.

        Return False and write nothing if the stored payment has changed meanwhile, if the operation
        is not open, or if another attempt with this key has finished first.
        """

    async def save_operation(self, payment: Payment, operation: Operation) -> None:
        """Update the payment and the operation, whose stored status must be pending or unknown."""

    async def save_corrected_operation(self, payment: Payment, operation: Operation) -> None:
        """Update the payment and the operation, whose stored status must be `failed`."""

    async def claim_due_operations(
        self, now: datetime, next_due_at: datetime, limit: int
    ) -> Sequence[Operation]:
        """Return open operations due for reconciliation, and postpone them to `next_due_at`.

        So no other process reconciles them at the same time.
        """

    async def hand_to_staff(self, operation_id: UUID) -> bool:
        """Make an open operation pending without `due_at`, so that no job reconciles it.

        Return False if it is settled, or if staff settle it already.
        """

    async def claim_follow_ups(
        self, now: datetime, next_at: datetime, limit: int
    ) -> Sequence[Operation]:
        """Return charges whose `follow_up_at` has passed, and set it to `next_at`.

        So no other process follows them up at the same time.
        """

    async def set_follow_up(self, operation_id: UUID, follow_up_at: datetime | None) -> None:
        """Set the time of the next follow-up; None ends the follow-up of the charge."""

    async def expire_overdue_payments(
        self, now: datetime, followed_until: datetime, limit: int
    ) -> Sequence[Payment]:
        """Expire up to `limit` payable payments past `expires_at`, and return them.

        A payment with a charge that is followed up expires only if its `expires_at` is not after
        `followed_until`.
        """

    async def store_event(self, event: ProviderEvent, state: WebhookState, now: datetime) -> bool:
        """Insert the event. Return False when its provider and event id exist already."""

    async def set_event_state(
        self, event: ProviderEvent, state: WebhookState, now: datetime
    ) -> None: ...
    async def postpone_event(
        self, event: ProviderEvent, now: datetime, min_delay: timedelta, max_delay: timedelta
    ) -> None:
        """Postpone a pending event by its age, but at least `min_delay` and at most `max_delay`."""

    async def ignore_unmatched_events(
        self, now: datetime, received_before: datetime, limit: int
    ) -> int:
        """Set old pending events without an operation to `ignored`. Return their number."""
