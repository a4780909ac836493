"""Ports of draft orders: the storage."""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol
from uuid import UUID

from markethall.orders.drafts.contract import DraftStatus
from markethall.orders.drafts.domain import DraftOrder, DraftRef
from markethall.shared.idempotency.records import ResponseStore
from markethall.shared.kernel.pagination import TimeKeyset


class ReadStore(Protocol):
    """Reads without locks."""

    async def get_draft(self, draft_order_id: UUID) -> DraftOrder | None: ...

    async def list_drafts(
        self, status: DraftStatus | None, after: TimeKeyset | None, limit: int
    ) -> Sequence[DraftOrder]:
        """Return at most `limit` drafts that follow `after`, the newest first."""


class Store(ReadStore, ResponseStore, Protocol):
    """Reads and writes of one transaction."""

    async def get_draft_for_update(self, draft_order_id: UUID) -> DraftOrder | None: ...

    async def add_draft(self, draft: DraftOrder) -> bool:
        """Insert the draft. Return False if its id exists."""

    async def save_draft(self, draft: DraftOrder) -> None:
        """Update the draft, which the transaction has locked."""

    async def delete_draft(self, draft_order_id: UUID) -> None: ...

    async def complete_draft(self, draft: DraftRef, order_id: UUID, now: datetime) -> bool:
        """Complete the draft if it is open and has this version. Else return False."""
