"""The outbox: published events of one context, relayed by one leader."""

from collections.abc import Collection, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Protocol
from uuid import UUID

from markethall.shared.messaging.events import EventEnvelope


class LeaderSession(Protocol):
    """The access to the outbox that the leader has, for as long as it leads."""

    async def get_unpublished(self, limit: int) -> Sequence[EventEnvelope]:
        """Return unpublished envelopes in the order of seq, late commits included."""

    async def mark_published(
        self,
        envelopes: Sequence[EventEnvelope],
        now: datetime,
        awaiting_confirmation: Collection[UUID] = (),
    ) -> None:
        """Mark them published, and confirmed unless the id is in `awaiting_confirmation`."""

    async def get_unconfirmed(self, after_seq: int, limit: int) -> Sequence[EventEnvelope]:
        """Return envelopes that are published and not confirmed, in the order of seq."""

    async def mark_confirmed(self, event_ids: Sequence[UUID], now: datetime) -> None: ...


class Outbox(Protocol):
    def acquire_leadership(self) -> AbstractAsyncContextManager[LeaderSession | None]:
        """Become the leader of this context; None while another process leads."""

    async def purge(self, before: datetime) -> int:
        """Delete a bounded number of events confirmed before then; return how many."""
