"""The integrity checks of the outbox and the inbox, which every context has."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from markethall.shared.kernel.clock import Clock
from markethall.shared.kernel.integrity import (
    MAX_LISTED_ROWS,
    Findings,
    IntegrityCheck,
    OffendingRow,
    Repair,
    scan_pages,
)
from markethall.shared.messaging.events import EventEnvelope
from markethall.shared.messaging.inbox import (
    DeadLetter,
    Inbox,
    StuckDelivery,
    StuckLimits,
    WorkerConfig,
)
from markethall.shared.messaging.outbox import Outbox

# A handler that fails because another context does not answer is tried without a limit of attempts.
# After this time it counts as stuck.
_MAX_FAILING_TIME: Final = timedelta(hours=1)


class MessagingChecks:
    """Finds events that were not published, and deliveries that were not processed."""

    def __init__(
        self, inbox: Inbox, outbox: Outbox, clock: Clock, config: WorkerConfig | None = None
    ) -> None:
        config = config or WorkerConfig()
        self._inbox = inbox
        self._outbox = outbox
        self._clock = clock
        self._max_backoff = timedelta(seconds=config.max_backoff)
        self._lease = timedelta(seconds=config.delivery_lease)

    def list_checks(self) -> Sequence[IntegrityCheck]:
        return [
            IntegrityCheck(
                "O8.events_published",
                "Every event of the outbox is published.",
                self._find_unpublished_events,
            ),
            IntegrityCheck(
                "O8.deliveries_processed",
                "No delivery of the inbox is stuck.",
                self._find_stuck_deliveries,
                Repair("Make stuck deliveries due", self._make_due),
            ),
            IntegrityCheck(
                "O8.no_dead_letters",
                "No event handler has failed for the last time.",
                self._find_dead_letters,
                Repair("Try dead letters again", self._inbox.requeue_dead_letters),
            ),
        ]

    async def _find_unpublished_events(self, findings: Findings, grace: timedelta) -> None:
        before = self._clock() - grace
        await scan_pages(
            lambda after, limit: self._outbox.list_unpublished(before, after, limit),
            lambda envelope: envelope.seq,
            lambda envelope: [_unpublished_row(envelope)],
            findings,
        )

    async def _find_stuck_deliveries(self, findings: Findings, grace: timedelta) -> None:
        limits = self._limits(grace)
        await scan_pages(
            lambda after, limit: self._inbox.list_stuck(limits, after, limit),
            lambda delivery: delivery.position,
            lambda delivery: [_stuck_row(delivery)],
            findings,
        )

    async def _find_dead_letters(self, findings: Findings, _: timedelta) -> None:
        findings.add(*map(_dead_row, await self._inbox.get_dead_letters(MAX_LISTED_ROWS)))
        if findings.violations == MAX_LISTED_ROWS:
            findings.violations = await self._inbox.count_dead_letters()

    async def _make_due(self) -> int:
        now = self._clock()
        return await self._inbox.make_due(self._limits(timedelta()), now, self._lease)

    def _limits(self, grace: timedelta) -> StuckLimits:
        now = self._clock()
        return StuckLimits(
            due_before=now - grace,
            # twice the longest back-off, because the clock of the process that stored `due_at` may
            # be ahead of this one
            due_after=now + 2 * self._max_backoff,
            failing_since=now - _MAX_FAILING_TIME,
        )


def _unpublished_row(envelope: EventEnvelope) -> OffendingRow:
    return OffendingRow(
        row=f"outbox seq={envelope.seq} event_id={envelope.event_id}",
        problem=f"{envelope.type} of {envelope.occurred_at.isoformat()} is not published",
    )


def _stuck_row(delivery: StuckDelivery) -> OffendingRow:
    problem = f"received {delivery.received_at.isoformat()}, due {delivery.due_at.isoformat()}"
    if delivery.error:
        problem += f", tried {delivery.attempts} times: {delivery.error}"
    return OffendingRow(
        row=f"inbox handler={delivery.handler} event_id={delivery.event_id}", problem=problem
    )


def _dead_row(dead_letter: DeadLetter) -> OffendingRow:
    return OffendingRow(
        row=f"inbox handler={dead_letter.handler} event_id={dead_letter.event_id}",
        problem=f"tried {dead_letter.attempts} times: {dead_letter.error}",
    )
