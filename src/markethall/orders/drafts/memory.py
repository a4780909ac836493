"""The in-memory store of draft orders."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from markethall.orders.drafts.contract import DraftStatus
from markethall.orders.drafts.domain import DraftOrder, DraftRef
from markethall.shared.kernel.pagination import TimeKeyset
from markethall.shared.persistence.memory import Table


class MemoryDraftStore:
    """The part of the store for draft orders. `_drafts` is set by the whole store."""

    _drafts: Table[UUID, DraftOrder]

    async def get_draft(self, draft_order_id: UUID) -> DraftOrder | None:
        return self._drafts.get(draft_order_id)

    # transactions in memory run one at a time, so no row needs a lock
    get_draft_for_update = get_draft

    async def list_drafts(
        self, status: DraftStatus | None, after: TimeKeyset | None, limit: int
    ) -> Sequence[DraftOrder]:
        drafts = self._drafts.where(
            lambda draft: (
                status in {None, draft.status} and (after is None or _position(draft) < after)
            )
        )
        return sorted(drafts, key=_position, reverse=True)[:limit]

    async def add_draft(self, draft: DraftOrder) -> bool:
        return self._drafts.add(draft.draft_order_id, draft)

    async def save_draft(self, draft: DraftOrder) -> None:
        self._drafts.put(draft.draft_order_id, draft)

    async def delete_draft(self, draft_order_id: UUID) -> None:
        self._drafts.remove(draft_order_id)

    async def complete_draft(self, draft: DraftRef, order_id: UUID, now: datetime) -> bool:
        stored = self._drafts.get(draft.draft_order_id)
        if stored is None or stored.ref != draft or stored.status is not DraftStatus.OPEN:
            return False
        await self.save_draft(stored.complete(order_id, now))
        return True


def _position(draft: DraftOrder) -> tuple[datetime, UUID]:
    return draft.created_at, draft.draft_order_id
