"""The outbox: the events that one context has published, in its database, for its subscribers.

An event is published when the transaction that writes it to the outbox commits. It is relayed when
the leader has passed it to every transport; the column `published_at` contains this time, not the
time of the commit. An event is confirmed when every subscriber has received it: over a lossy
transport when all have acknowledged it, otherwise as soon as it is relayed.
"""

from collections.abc import Collection, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Protocol
from uuid import UUID

from markethall.shared.kernel.errors import Unavailable
from markethall.shared.messaging.events import EventEnvelope


class ClocksDiffer(Unavailable):
    """The clock of this process differs too much from the clock of the database.

    Details: seconds, which is positive if the clock of this process is ahead.
    """

    code = "system.clocks_differ"
    title = "The clock of this process is wrong"


class LeaderSession(Protocol):
    """The operations of the leader on the outbox, usable as long as it is the leader."""

    async def heartbeat(self) -> None:
        """Signal that this leader works. Raises Unavailable if it has lost the leadership."""

    async def get_unrelayed(self, limit: int) -> Sequence[EventEnvelope]:
        """Return envelopes that are not relayed yet, in the order of `seq`.

        A result may have a lower `seq` than an envelope that is already relayed, because
        transactions may commit in another order than their `seq`.
        """

    async def mark_relayed(
        self,
        envelopes: Sequence[EventEnvelope],
        now: datetime,
        awaiting_confirmation: Collection[UUID] = (),
    ) -> None:
        """Mark envelopes as relayed.

        They are marked as confirmed too, unless their event id is in `awaiting_confirmation`.
        """

    async def get_unconfirmed(self, after_seq: int, limit: int) -> Sequence[EventEnvelope]:
        """Return relayed, unconfirmed envelopes in the order of `seq`."""

    async def mark_confirmed(self, event_ids: Sequence[UUID], now: datetime) -> None: ...


class Outbox(Protocol):
    def acquire_leadership(self) -> AbstractAsyncContextManager[LeaderSession | None]:
        """Become the leader of this context. Yields None if another process is the leader.

        A leader without a recent heartbeat loses the leadership. Raises ClocksDiffer if the clock
        of this process is wrong, because such a leader would expire and delete entities too early.
        """

    async def list_unpublished(
        self, occurred_before: datetime, after_seq: int | None, limit: int
    ) -> Sequence[EventEnvelope]:
        """Return envelopes of events before this time that are not relayed, in order of `seq`."""

    async def purge(self, before: datetime) -> int:
        """Delete a bounded number of events confirmed before `before`; return how many."""
