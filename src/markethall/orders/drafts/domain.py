"""The draft order."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from markethall.orders.drafts.contract import DraftOrderCompleted, DraftStatus, NewDraftOrder


class DraftRef(NamedTuple):
    """A version of a draft order."""

    draft_order_id: UUID
    version: int


@dataclass(frozen=True)
class DraftOrder:
    draft_order_id: UUID
    fields: NewDraftOrder
    created_by: str
    created_at: datetime
    updated_at: datetime
    status: DraftStatus = DraftStatus.OPEN
    # the order that the completion has placed
    order_id: UUID | None = None
    version: int = 1

    @property
    def ref(self) -> DraftRef:
        return DraftRef(self.draft_order_id, self.version)

    def check_open(self) -> None:
        """Raises DraftOrderCompleted."""
        if self.status is not DraftStatus.OPEN:
            raise self.completed_error()

    def completed_error(self) -> DraftOrderCompleted:
        return DraftOrderCompleted(
            draft_order_id=str(self.draft_order_id), order_id=str(self.order_id)
        )

    def change(self, fields: NewDraftOrder, now: datetime) -> "DraftOrder":
        """Return the changed draft, or the same if the fields are the same."""
        if fields == self.fields:
            return self
        return replace(self, fields=fields, updated_at=now, version=self.version + 1)

    def complete(self, order_id: UUID, now: datetime) -> "DraftOrder":
        return replace(
            self,
            status=DraftStatus.COMPLETED,
            order_id=order_id,
            updated_at=now,
            version=self.version + 1,
        )
