"""The outbox: the events that one context has published, in its database, for its subscribers.

An event is published when the transaction that writes it to the outbox commits. It is relayed when
the leader has passed it to every transport; the column `published_at` contains this time, not the
time of the commit. An event is confirmed when every subscriber has received it: over a lossy
transport when all have acknowledged it, otherwise as soon as it is relayed.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from uuid import UUID

from markethall.shared.kernel.errors import Unavailable
from markethall.shared.messaging.backlog import Backlog
from markethall.shared.messaging.events import EventEnvelope
from markethall.shared.messaging.inbox import Inbox


class ClocksDiffer(Unavailable):
    """The clock of this process differs too much from the clock of the database.

    Details: seconds, which is positive if the clock of this process is ahead.
    """

    code = "system.clocks_differ"
    title = "The clock of this process is wrong"


@dataclass(frozen=True)
class InboxRoute:
    """An inbox, and the handlers in it for each type of event."""

    inbox: Inbox
    handlers_by_type: Mapping[str, Sequence[str]]


class LeaderSession(Protocol):
    """The operations of the leader on the outbox, usable as long as it is the leader."""

    async def heartbeat(self) -> bool:
        """Signal that this leader works. Tell whether the outbox has unrelayed events.

        Raises Unavailable if it has lost the leadership.
        """

    async def listen(self, on_outbox: Callable[[], None], on_inbox: Callable[[], None]) -> None:
        """Call these functions after `notify_outbox` and `notify_inbox` in another process."""

    async def relay_to_inboxes(
        self, routes: Sequence[InboxRoute], now: datetime, limit: int
    ) -> Sequence[str]:
        """Insert unrelayed events into inboxes of the same database, and mark them as relayed.

        All this is one statement. Returns the type of each event. Use this only for inboxes for
        which `Outbox.is_beside` is true.
        """

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
    def is_beside(self, inbox: Inbox) -> bool:
        """Tell whether the leader can write to this inbox in the statement that reads the outbox.

        This is so if both use the same database with the same role.
        """

    async def notify_outbox(self) -> None:
        """Notify the leader, which may be any process, that the outbox has new events.

        A notification may be lost; the heartbeats of the leader also find events. Raises
        Unavailable.
        """

    async def notify_inbox(self) -> None:
        """Notify the leader, which may be any process, that the inbox has new deliveries.

        A notification may be lost; the leader also polls. Raises Unavailable.
        """

    def acquire_leadership(self) -> AbstractAsyncContextManager[LeaderSession | None]:
        """Become the leader of this context. Yields None if another process is the leader.

        A leader without a recent heartbeat loses the leadership. Raises ClocksDiffer if the clock
        of this process is wrong, because such a leader would expire and delete entities too early.
        """

    async def list_unpublished(
        self, occurred_before: datetime, after_seq: int | None, limit: int
    ) -> Sequence[EventEnvelope]:
        """Return envelopes of events before this time that are not relayed, in order of `seq`."""

    async def measure_backlog(self) -> Backlog:
        """Return the backlog of events that are not relayed."""

    async def purge(self, before: datetime) -> int:
        """Delete a bounded number of events confirmed before `before`; return how many."""
