"""Test the integrity checks of the inbox, the outbox and the unique keys, and their repairs."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from markethall.shared.composition.context_persistence import ContextPersistence
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.errors import Unavailable
from markethall.shared.kernel.ids import new_id
from markethall.shared.kernel.integrity import MAX_LISTED_ROWS, Findings, IntegrityCheck
from markethall.shared.messaging.events import EventEnvelope, RetryLater, wrap_event
from markethall.shared.messaging.integrity import MessagingChecks
from markethall.shared.persistence.postgres import Postgres
from markethall.shared.persistence.unique_keys import UniqueKeysCheck, list_unique_indexes
from tests.conftest import on_server
from tests.shared.conftest import ADD, COUNT, FakeClock, ThingHappened, metadata

HANDLER = "probe.on_thing_happened"
GRACE = timedelta(minutes=2)
LEASE = timedelta(seconds=30)


class Checks:
    def __init__(self, backend: ContextPersistence[Any], clock: FakeClock) -> None:
        messaging = MessagingChecks(backend.inbox, backend.outbox, clock)
        self._checks = {check.check_id: check for check in messaging.list_checks()}

    def __getitem__(self, check_id: str) -> IntegrityCheck:
        return self._checks[check_id]

    async def find(self, check_id: str) -> Findings:
        findings = Findings()
        await self[check_id].find(findings, GRACE)
        return findings

    async def repair(self, check_id: str) -> None:
        repair = self[check_id].repair
        assert repair is not None
        await repair.run()


@pytest.fixture
def checks(backend: ContextPersistence[Any], clock: FakeClock) -> Checks:
    return Checks(backend, clock)


async def enqueue(
    backend: ContextPersistence[Any], ctx: CallContext, clock: FakeClock, key: UUID | None = None
) -> EventEnvelope:
    envelope = wrap_event(ThingHappened(thing=key or new_id(), number=1), ctx, clock())
    await backend.inbox.enqueue([HANDLER], [envelope])
    return envelope


async def claim_and_fail(
    backend: ContextPersistence[Any], clock: FakeClock, error: str, delay: timedelta
) -> None:
    for delivery in await backend.inbox.claim(clock(), LEASE, 100):
        await backend.inbox.retry_later(delivery, error, clock() + delay, count_attempt=False)


async def test_event_that_no_leader_publishes_is_a_violation(
    backend: ContextPersistence[Any], checks: Checks, ctx: CallContext, clock: FakeClock
) -> None:
    async with backend.database.transaction() as store:
        await store.publish(ThingHappened(thing=new_id(), number=1), ctx)
    at_once = await checks.find("O8.events_published")
    clock.forward(minutes=3)

    later = await checks.find("O8.events_published")

    assert at_once.violations == 0
    assert later.violations == 1
    assert "probe.thing_happened" in later.rows[0].problem


async def test_delivery_that_no_worker_claims_is_stuck(
    backend: ContextPersistence[Any], checks: Checks, ctx: CallContext, clock: FakeClock
) -> None:
    envelope = await enqueue(backend, ctx, clock)
    at_once = await checks.find("O8.deliveries_processed")
    clock.forward(minutes=3)

    later = await checks.find("O8.deliveries_processed")

    assert at_once.violations == 0
    assert [row.row for row in later.rows] == [
        f"inbox handler={HANDLER} event_id={envelope.event_id}"
    ]


async def test_delivery_behind_another_of_its_key_is_not_stuck(
    backend: ContextPersistence[Any], checks: Checks, ctx: CallContext, clock: FakeClock
) -> None:
    key = new_id()
    await enqueue(backend, ctx, clock, key)
    await enqueue(backend, ctx, clock, key)
    clock.forward(hours=2)

    findings = await checks.find("O8.deliveries_processed")

    assert findings.violations == 1


@pytest.mark.parametrize(
    ("error", "is_stuck"),
    [(repr(Unavailable(dependency="x")), True), (repr(RetryLater("not on hand")), False)],
)
async def test_handler_that_fails_for_hours_is_stuck_unless_it_waits_on_purpose(
    backend: ContextPersistence[Any],
    checks: Checks,
    ctx: CallContext,
    clock: FakeClock,
    error: str,
    is_stuck: bool,
) -> None:
    await enqueue(backend, ctx, clock)
    clock.forward(hours=2)
    await claim_and_fail(backend, clock, error, timedelta(seconds=60))

    findings = await checks.find("O8.deliveries_processed")

    assert bool(findings.violations) is is_stuck


async def test_delivery_due_in_the_far_future_becomes_due_by_the_repair(
    backend: ContextPersistence[Any], checks: Checks, ctx: CallContext, clock: FakeClock
) -> None:
    """A clock that was far ahead and is then set back leaves such a due time in the table."""
    await enqueue(backend, ctx, clock)
    await claim_and_fail(backend, clock, "", timedelta(days=30))
    before = await checks.find("O8.deliveries_processed")

    await checks.repair("O8.deliveries_processed")
    await checks.repair("O8.deliveries_processed")

    assert before.violations == 1
    assert (await checks.find("O8.deliveries_processed")).violations == 0
    assert len(await backend.inbox.claim(clock(), LEASE, 10)) == 1


async def test_repair_does_not_touch_a_running_handler(
    backend: ContextPersistence[Any], checks: Checks, ctx: CallContext, clock: FakeClock
) -> None:
    await enqueue(backend, ctx, clock)
    clock.forward(hours=2)
    await claim_and_fail(backend, clock, "it broke", timedelta())
    assert len(await backend.inbox.claim(clock(), LEASE, 10)) == 1

    await checks.repair("O8.deliveries_processed")

    assert await backend.inbox.claim(clock(), LEASE, 10) == []


async def test_all_dead_letters_are_counted_and_the_repair_tries_them_again(
    backend: ContextPersistence[Any], checks: Checks, ctx: CallContext, clock: FakeClock
) -> None:
    count = MAX_LISTED_ROWS + 5
    for _ in range(count):
        envelope = wrap_event(ThingHappened(thing=new_id(), number=1), ctx, clock())
        await backend.inbox.enqueue_dead_letter(HANDLER, envelope, "it broke")
    before = await checks.find("O8.no_dead_letters")

    await checks.repair("O8.no_dead_letters")

    assert (before.violations, len(before.rows)) == (count, MAX_LISTED_ROWS)
    assert before.rows[0].problem == "tried 0 times: it broke"
    assert (await checks.find("O8.no_dead_letters")).violations == 0
    assert len(await backend.inbox.claim(clock(), LEASE, 100)) == count


@pytest.fixture
async def dropped_index(probe_url: str) -> AsyncIterator[str]:
    """The name of a unique index that does not exist during the test."""
    name = "pk_inbox"
    await on_server(probe_url, f"ALTER TABLE probe.inbox DROP CONSTRAINT {name}")
    yield name
    await on_server(
        probe_url, f"ALTER TABLE probe.inbox ADD CONSTRAINT {name} PRIMARY KEY (handler, event_id)"
    )


async def test_schema_with_all_unique_keys_has_no_violation(probe: Postgres) -> None:
    (check,) = UniqueKeysCheck(probe, metadata).list_checks()
    findings = Findings()

    await check.find(findings, GRACE)

    assert findings.rows == []
    assert findings.checked == len(list(list_unique_indexes(metadata))) > 0


async def test_missing_unique_key_is_named(probe: Postgres, dropped_index: str) -> None:
    (check,) = UniqueKeysCheck(probe, metadata).list_checks()
    findings = Findings()

    await check.find(findings, GRACE)

    assert [row.row for row in findings.rows] == [f"index {dropped_index} of inbox"]


async def test_snapshot_sees_one_state_and_cannot_write(probe: Postgres) -> None:
    async with probe.snapshot() as snapshot:
        before = await snapshot.fetch_value(COUNT)
        async with probe.transaction() as connection:
            await connection.execute(ADD, name="one", number=1)
        during = await snapshot.fetch_value(COUNT)
    with pytest.raises(Unavailable) as refused:
        async with probe.snapshot() as snapshot:
            await snapshot.execute(ADD, name="two", number=2)
    assert "read-only transaction" in str(refused.value.__cause__)

    async with probe.read_session() as connection:
        assert (before, during, await connection.fetch_value(COUNT)) == (0, 0, 1)
