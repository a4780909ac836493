"""The in-memory tables of payments."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from markethall.payments.contract.reconciliation import DifferenceView
from markethall.payments.contract.statuses import PostingKind
from markethall.payments.domain.ledger import ChainPosition, RecordedPosting
from markethall.payments.domain.operation import Operation
from markethall.payments.domain.payment import Payment
from markethall.payments.domain.saved_method import ProviderCustomer, SavedMethod
from markethall.payments.ports import (
    ProviderEvent,
    Reconciliation,
    SandboxCapture,
    SandboxCharge,
    SandboxRefund,
    SandboxSavedMethod,
    WebhookState,
)
from markethall.shared.composition.memory import ContextTables
from markethall.shared.persistence.memory import Table


@dataclass(frozen=True)
class StoredEvent:
    event: ProviderEvent
    state: WebhookState
    received_at: datetime
    due_at: datetime


class Tables(ContextTables):
    def __init__(self) -> None:
        super().__init__()
        self.payments: Table[UUID, Payment] = Table()
        self.payment_id_by_order_id: Table[UUID, UUID] = Table()
        self.tombstones: Table[UUID, datetime] = Table()
        self.operations: Table[UUID, Operation] = Table()
        self.postings: Table[tuple[UUID, PostingKind], RecordedPosting] = Table()
        # the last posting of each hash chain
        self.posting_chains: Table[int, ChainPosition] = Table()
        self.events: Table[tuple[str, str], StoredEvent] = Table()
        self.reconciliations: Table[UUID, Reconciliation] = Table()
        self.differences: Table[tuple[UUID, int], DifferenceView] = Table()
        self.sandbox_charges: Table[UUID, SandboxCharge] = Table()
        self.sandbox_captures: Table[UUID, SandboxCapture] = Table()
        self.provider_customers: Table[tuple[UUID, str], ProviderCustomer] = Table()
        # the user who has claimed a guest
        self.guest_owners: Table[UUID, UUID] = Table()
        self.saved_methods: Table[UUID, SavedMethod] = Table()
        self.sandbox_refunds: Table[UUID, SandboxRefund] = Table()
        self.sandbox_saved_methods: Table[str, SandboxSavedMethod] = Table()
