"""Test outbox, inbox and consumer: each event is applied once, and those of a key in order."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from sqlalchemy import bindparam
from structlog.testing import capture_logs

from markethall.shared.composition.context_persistence import ContextPersistence
from markethall.shared.composition.sql import build_sql_persistence
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.clock import utc_now
from markethall.shared.kernel.errors import MalformedRequest, Unavailable
from markethall.shared.kernel.ids import new_id
from markethall.shared.messaging.events import Delivery, EventEnvelope, RetryLater, wrap_event
from markethall.shared.messaging.inbox import InboxConsumer, WorkerConfig
from markethall.shared.messaging.outbox import ClocksDiffer
from markethall.shared.messaging.outbox_relay import InProcessTransport, OutboxRelay
from markethall.shared.messaging.sql.outbox import SqlOutbox
from markethall.shared.persistence.postgres import PoolSize, Postgres, Statement
from tests.conftest import on_server
from tests.shared.conftest import STATEMENTS, FakeClock, ProbeSqlStore, ThingHappened

HANDLER = "probe.on_thing_happened"
WORKER_CONFIG = WorkerConfig(max_attempts=3, delivery_lease=30)


class Subscriber:
    """A context that handles its own events. A test can make its handler fail."""

    def __init__(self, backend: ContextPersistence[Any], clock: FakeClock) -> None:
        self.backend = backend
        self.clock = clock
        self.handled: list[int] = []
        self.fails: dict[int, BaseException] = {}
        self.fails_after_writing = False
        self.transport = InProcessTransport(backend.inbox, {ThingHappened.type: [HANDLER]})
        self.relay = OutboxRelay("probe", [self.transport], clock, outbox=backend.outbox)
        self.consumer = InboxConsumer(backend.inbox, {HANDLER: self.handle}, clock, WORKER_CONFIG)

    async def handle(self, delivery: Delivery, event: ThingHappened) -> None:
        error = self.fails.get(event.number)
        if error and not self.fails_after_writing:
            raise error
        async with self.backend.database.transaction() as store:
            if not await store.mark_processed(delivery):
                return
            await store.add(str(new_id()), event.number)
            if error:
                raise error
        self.handled.append(event.number)

    async def publish(self, ctx: CallContext, *events: ThingHappened) -> None:
        for event in events:
            async with self.backend.database.transaction() as store:
                await store.publish(event, ctx)

    async def relay_all(self) -> int:
        async with self.backend.outbox.acquire_leadership() as leader:
            assert leader is not None
            relayed = 0
            while count := await self.relay.relay_batch(leader, 100):
                relayed += count
            return relayed

    async def process(self) -> int:
        """Run handlers until no delivery is due. Return the number of attempts."""
        attempts = 0
        while count := await self.process_once():
            attempts += count
        return attempts

    async def process_once(self) -> int:
        async with asyncio.TaskGroup() as tasks:
            return await self.consumer.dispatch_due(tasks)

    async def effects(self) -> int:
        async with self.backend.database.read_session() as store:
            count: int = await store.count()
            return count


@pytest.fixture
def subscriber(backend: ContextPersistence[Any], clock: FakeClock) -> Subscriber:
    return Subscriber(backend, clock)


def happened(number: int, thing: UUID | None = None) -> ThingHappened:
    return ThingHappened(thing=thing or new_id(), number=number)


# Outbox


async def test_event_is_published_only_on_commit(subscriber: Subscriber, ctx: CallContext) -> None:
    with pytest.raises(MalformedRequest):
        await publish_and_raise(subscriber, ctx)
    await subscriber.publish(ctx, happened(1))

    relayed = await subscriber.relay_all()
    await subscriber.process()

    assert relayed == 1
    assert subscriber.handled == [1]


async def test_worker_is_notified_after_commit(subscriber: Subscriber, ctx: CallContext) -> None:
    notifications: list[str] = []
    subscriber.backend.database.after_publish = lambda: notifications.append("notified")

    async with subscriber.backend.database.transaction() as store:
        await store.publish(happened(1), ctx)
        during = list(notifications)
    with pytest.raises(MalformedRequest):
        await publish_and_raise(subscriber, ctx)
    async with subscriber.backend.database.transaction() as store:
        await store.add("no event")

    assert (during, notifications) == ([], ["notified"])


async def test_event_carries_request_id_and_trace(
    backend: ContextPersistence[Any], subscriber: Subscriber, ctx: CallContext, clock: FakeClock
) -> None:
    event = happened(7)
    await subscriber.publish(ctx, event)
    await subscriber.relay_all()

    (delivery,) = await backend.inbox.claim(clock(), timedelta(seconds=1), 5)

    assert delivery.envelope.decode() == event
    assert delivery.envelope.key == event.thing
    assert delivery.call_context().request_id == ctx.request_id
    assert delivery.call_context().actor.name == f"system:{HANDLER}"


async def test_interrupted_relay_resends_without_duplicate_effect(
    subscriber: Subscriber, ctx: CallContext
) -> None:
    class Lossy:
        """A transport that delivers and then raises, as if the response was lost."""

        async def deliver(self, envelopes: Sequence[EventEnvelope]) -> None:
            await subscriber.transport.deliver(envelopes)
            raise Unavailable(dependency="transport")

    await subscriber.publish(ctx, *(happened(number) for number in range(5)))
    lossy = OutboxRelay("probe", [Lossy()], subscriber.clock)
    async with subscriber.backend.outbox.acquire_leadership() as leader:
        assert leader is not None
        for _ in range(3):
            with pytest.raises(Unavailable):
                await lossy.relay_batch(leader, 100)

    await subscriber.relay_all()
    await subscriber.process()

    assert sorted(subscriber.handled) == list(range(5))
    assert await subscriber.effects() == 5


async def test_old_published_events_are_purged_and_pending_kept(
    backend: ContextPersistence[Any], subscriber: Subscriber, ctx: CallContext, clock: FakeClock
) -> None:
    await subscriber.publish(ctx, happened(1))
    await subscriber.relay_all()
    await subscriber.publish(ctx, happened(2))
    clock.forward(days=8)

    await backend.outbox.purge(clock() - timedelta(days=7))

    assert await subscriber.relay_all() == 1
    await subscriber.process()
    assert sorted(subscriber.handled) == [1, 2]


# Leadership


async def test_only_one_process_leads(backend: ContextPersistence[Any]) -> None:
    async with backend.outbox.acquire_leadership() as first:
        async with backend.outbox.acquire_leadership() as second:
            while_leading = second
        leads = first is not None
    async with backend.outbox.acquire_leadership() as third:
        afterwards = third is not None

    assert (leads, while_leading, afterwards) == (True, None, True)


async def test_concurrent_leader_election_has_one_winner(probe_url: str) -> None:
    async with own_pool(probe_url) as one, own_pool(probe_url) as two:
        for _ in range(20):
            barrier = asyncio.Barrier(2)
            leads = await asyncio.gather(try_to_lead(one, barrier), try_to_lead(two, barrier))

            # Possibly neither is the leader: each process briefly takes the lock to test whether it
            # is free, so both may find it taken.
            assert leads.count(True) <= 1


async def test_lost_connection_loses_leadership(
    probe_url: str, clock: FakeClock, ctx: CallContext
) -> None:
    async with own_pool(probe_url) as one, own_pool(probe_url) as two:
        subscriber = Subscriber(build_sql_persistence(two, STATEMENTS, ProbeSqlStore, clock), clock)
        with pytest.raises(Unavailable):  # noqa: PT012 - the last statement raises
            async with SqlOutbox(one, STATEMENTS.outbox).acquire_leadership() as old:
                assert old is not None
                await subscriber.publish(ctx, happened(1))
                await on_server(probe_url, KILL_LEADER)

                assert await subscriber.relay_all() == 1
                await old.get_unrelayed(10)


async def test_leader_that_hangs_is_replaced(probe_url: str) -> None:
    async with own_pool(probe_url) as one, own_pool(probe_url) as two:
        with pytest.raises(Unavailable):  # noqa: PT012 - the last statement raises
            async with SqlOutbox(one, STATEMENTS.outbox).acquire_leadership() as hanging:
                assert hanging is not None
                impatient = SqlOutbox(two, STATEMENTS.outbox, leader_timeout_seconds=0)
                async with impatient.acquire_leadership() as first_try:
                    assert first_try is None

                assert await wait_until_unlocked(two)
                async with impatient.acquire_leadership() as leader:
                    assert leader is not None
                await hanging.heartbeat()


async def test_leader_with_recent_heartbeat_is_not_replaced(probe_url: str) -> None:
    async with (
        own_pool(probe_url) as one,
        own_pool(probe_url) as two,
        SqlOutbox(one, STATEMENTS.outbox).acquire_leadership() as leader,
    ):
        assert leader is not None
        await leader.heartbeat()
        async with SqlOutbox(two, STATEMENTS.outbox).acquire_leadership() as other:
            assert other is None

        await leader.heartbeat()


async def test_connection_of_another_program_is_not_ended(probe_url: str) -> None:
    """A relocation holds the leader's lock during the copy, so its connection must stay open."""
    relocation = Postgres(probe_url, PoolSize(), application_name="relocation")
    async with (
        own_pool(probe_url) as two,
        SqlOutbox(relocation, STATEMENTS.outbox).acquire_leadership() as holder,
    ):
        assert holder is not None
        impatient = SqlOutbox(two, STATEMENTS.outbox, leader_timeout_seconds=0)
        async with impatient.acquire_leadership() as leader:
            assert leader is None

        await holder.heartbeat()
    await relocation.close()


@pytest.mark.parametrize("seconds", [-6, 6, 32 * 24 * 3600])
async def test_process_with_wrong_clock_does_not_lead(probe: Postgres, seconds: int) -> None:
    wrong = partial(shifted_now, seconds)
    with pytest.raises(ClocksDiffer) as refused:
        async with SqlOutbox(probe, STATEMENTS.outbox, system_clock=wrong).acquire_leadership():
            pass

    assert abs(refused.value.details["seconds"] - seconds) < 3
    assert await wait_until_unlocked(probe)


async def test_leader_whose_clock_jumps_stops_at_its_heartbeat(probe: Postgres) -> None:
    shift = 0
    outbox = SqlOutbox(probe, STATEMENTS.outbox, system_clock=lambda: shifted_now(shift))
    async with outbox.acquire_leadership() as leader:
        assert leader is not None
        await leader.heartbeat()
        shift = 3600
        with pytest.raises(ClocksDiffer):
            await leader.heartbeat()


def shifted_now(seconds: int) -> datetime:
    return utc_now() + timedelta(seconds=seconds)


async def test_leader_uses_no_pool_connection(probe_url: str, clock: FakeClock) -> None:
    postgres = Postgres(probe_url, PoolSize(min_size=1, max_size=1, timeout=5))
    backend = build_sql_persistence(postgres, STATEMENTS, ProbeSqlStore, clock)

    async with (
        backend.outbox.acquire_leadership() as leader,
        backend.database.transaction() as store,
    ):
        assert leader is not None
        await store.add("a")

    await postgres.close()


async def test_cancelled_leader_releases_lock(probe: Postgres) -> None:
    leading = asyncio.Event()

    async def lead_for_ever() -> None:
        async with SqlOutbox(probe, STATEMENTS.outbox).acquire_leadership() as leader:
            assert leader is not None
            leading.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(lead_for_ever())
    await leading.wait()
    task.cancel()
    await asyncio.wait([task])

    assert await wait_until_unlocked(probe)


# Order


@pytest.mark.parametrize("writers", [8])
async def test_late_commits_are_delivered_and_key_order_is_kept(
    probe: Postgres, clock: FakeClock, ctx: CallContext, writers: int
) -> None:
    subscriber = Subscriber(build_sql_persistence(probe, STATEMENTS, ProbeSqlStore, clock), clock)
    keys = [new_id() for _ in range(writers)]
    each = 50
    rng = random.Random(7)
    writing = asyncio.Event()
    writing.set()

    async def write(key: UUID) -> None:
        for number in range(0, each, 2):
            async with subscriber.backend.database.transaction() as store:
                await store.publish(happened(number, key), ctx)
                # keep the transaction open while others commit and the relay reads
                for _ in range(rng.randrange(6)):
                    await store.count()
                await store.publish(happened(number + 1, key), ctx)

    async def relay() -> int:
        relayed = 0
        async with subscriber.backend.outbox.acquire_leadership() as leader:
            assert leader is not None
            while writing.is_set():
                relayed += await subscriber.relay.relay_batch(leader, 7)
            while count := await subscriber.relay.relay_batch(leader, 7):
                relayed += count
        return relayed

    relaying = asyncio.create_task(relay())
    await asyncio.gather(*(write(key) for key in keys))
    writing.clear()

    assert await relaying == writers * each
    async with probe.read_session() as connection:
        rows = await connection.fetch_all(IN_ORDER)
    arrived: dict[UUID, list[int]] = {}
    for row in rows:
        event = ThingHappened.model_validate_json(row["payload"])
        arrived.setdefault(event.thing, []).append(event.number)
    assert arrived == {key: list(range(each)) for key in keys}


async def test_events_of_one_key_are_sequential(
    subscriber: Subscriber, ctx: CallContext, clock: FakeClock
) -> None:
    key, other = new_id(), new_id()
    subscriber.fails[1] = ValueError("not yet")
    await subscriber.publish(ctx, happened(1, key), happened(2, key), happened(3, other))
    await subscriber.relay_all()

    await subscriber.process()
    while_failing = list(subscriber.handled)
    subscriber.fails.clear()
    clock.forward(minutes=1)
    await subscriber.process()

    assert while_failing == [3]
    assert subscriber.handled == [3, 1, 2]


async def test_claimed_event_blocks_later_events_of_its_key(
    backend: ContextPersistence[Any], subscriber: Subscriber, ctx: CallContext, clock: FakeClock
) -> None:
    key = new_id()
    await subscriber.publish(ctx, happened(1, key), happened(2, key))
    await subscriber.relay_all()
    lease = timedelta(seconds=30)

    first = await backend.inbox.claim(clock(), lease, 10)
    second = await backend.inbox.claim(clock(), lease, 10)

    assert [delivery.envelope.decode() for delivery in first] == [happened(1, key)]
    assert second == []


async def test_claim_stays_fast_with_many_events_of_one_key(
    probe: Postgres, clock: FakeClock
) -> None:
    backend = build_sql_persistence(probe, STATEMENTS, ProbeSqlStore, clock)
    async with probe.read_session() as connection:
        await connection.execute(BACKLOG_OF_ONE_KEY, now=clock())

    claimed = await backend.inbox.claim(clock(), timedelta(seconds=30), 8)

    assert len(claimed) == 1
    assert await backend.inbox.claim(clock(), timedelta(seconds=30), 8) == []


async def test_two_consumers_never_claim_same_event(
    probe_url: str, clock: FakeClock, ctx: CallContext
) -> None:
    async with own_pool(probe_url) as one, own_pool(probe_url) as two:
        inboxes = [
            build_sql_persistence(it, STATEMENTS, ProbeSqlStore, clock).inbox for it in (one, two)
        ]
        subscriber = Subscriber(build_sql_persistence(one, STATEMENTS, ProbeSqlStore, clock), clock)
        await subscriber.publish(ctx, *(happened(number) for number in range(40)))
        await subscriber.relay_all()

        claims = await asyncio.gather(
            *(inbox.claim(clock(), timedelta(seconds=30), 5) for inbox in inboxes * 6)
        )

        claimed = [delivery.envelope.event_id for claim in claims for delivery in claim]
        assert len(claimed) == len(set(claimed)) == 40


# Effect


async def test_effect_and_processed_mark_are_one_transaction(
    subscriber: Subscriber, ctx: CallContext, clock: FakeClock
) -> None:
    subscriber.fails[1] = ValueError("after the write")
    subscriber.fails_after_writing = True
    await subscriber.publish(ctx, happened(1))
    await subscriber.relay_all()

    await subscriber.process()
    after_failure = await subscriber.effects()
    subscriber.fails.clear()
    clock.forward(minutes=1)
    await subscriber.process()

    assert after_failure == 0
    assert await subscriber.effects() == 1


async def test_concurrent_handling_has_one_effect(
    backend: ContextPersistence[Any], subscriber: Subscriber, ctx: CallContext, clock: FakeClock
) -> None:
    await subscriber.publish(ctx, happened(1))
    await subscriber.relay_all()
    (delivery,) = await backend.inbox.claim(clock(), timedelta(seconds=1), 1)
    event = delivery.envelope.decode()
    assert isinstance(event, ThingHappened)

    await asyncio.gather(*(subscriber.handle(delivery, event) for _ in range(8)))

    assert await subscriber.effects() == 1


async def test_event_without_subscription_is_dropped(
    backend: ContextPersistence[Any], clock: FakeClock, ctx: CallContext
) -> None:
    transport = InProcessTransport(backend.inbox, {"another.type": [HANDLER]})

    await transport.deliver([wrap_event(happened(1), ctx, clock())])

    assert await backend.inbox.claim(clock(), timedelta(seconds=1), 5) == []


async def test_events_without_subscribers_are_marked_as_relayed(
    subscriber: Subscriber, ctx: CallContext, clock: FakeClock
) -> None:
    subscriber.relay = OutboxRelay("probe", [], clock, outbox=subscriber.backend.outbox)
    await subscriber.publish(ctx, happened(1), happened(2))

    assert [await subscriber.relay_all() for _ in range(2)] == [2, 0]
    assert await subscriber.process() == 0


async def test_relay_to_an_inbox_beside_the_outbox_equals_a_delivery(
    probe: Postgres, clock: FakeClock, ctx: CallContext
) -> None:
    """The statement that relays directly writes the same rows as the transport."""
    backend = build_sql_persistence(probe, STATEMENTS, ProbeSqlStore, clock)
    handlers = {ThingHappened.type: ["second", "first"]}
    transport = InProcessTransport(backend.inbox, handlers)
    thing = new_id()
    async with backend.database.transaction() as store:
        for number in range(3):
            await store.publish(happened(number, thing), ctx)

    async with backend.outbox.acquire_leadership() as leader:
        assert leader is not None
        envelopes = await leader.get_unrelayed(10)
        direct = OutboxRelay("probe", [transport], clock, outbox=backend.outbox)
        assert await direct.relay_batch(leader, 2) == 2
        assert await direct.relay_batch(leader, 2) == 1
        assert await direct.relay_batch(leader, 2) == 0
        assert await leader.get_unconfirmed(0, 10) == []
    written = await _deliveries(probe)
    await transport.deliver(envelopes)  # changes nothing, because the inbox has all deliveries
    assert await _deliveries(probe) == written
    async with probe.transaction() as connection:
        await connection.execute(Statement(sa.text("DELETE FROM probe.inbox")))
    await transport.deliver(envelopes)

    assert [row["handler"] for row in written] == ["second", "first"] * 3
    assert await _deliveries(probe) == written


async def _deliveries(probe: Postgres) -> list[dict[str, Any]]:
    """Return the rows of the inbox in their order, without their positions."""
    statement = Statement(sa.text("SELECT * FROM probe.inbox ORDER BY position"))
    async with probe.read_session() as connection:
        rows = await connection.fetch_all(statement)
    return [{name: row[name] for name in row if name != "position"} for row in map(dict, rows)]


async def test_claim_tells_whether_other_deliveries_are_due(
    subscriber: Subscriber, clock: FakeClock, ctx: CallContext
) -> None:
    thing, lease = new_id(), timedelta(seconds=30)
    inbox = subscriber.backend.inbox
    await subscriber.publish(ctx, happened(1, thing), happened(2, thing), happened(3))
    await subscriber.relay_all()

    (first,) = await inbox.claim(clock(), lease, 1)
    (other,) = await inbox.claim(clock(), lease, 5)
    assert (first.more_are_due, other.more_are_due) == (True, True)
    async with subscriber.backend.database.transaction() as store:
        assert await store.mark_processed(first)

    (second,) = await inbox.claim(clock(), lease, 1)

    assert not second.more_are_due


async def test_each_handler_has_its_own_delivery(
    backend: ContextPersistence[Any], clock: FakeClock, ctx: CallContext
) -> None:
    transport = InProcessTransport(backend.inbox, {ThingHappened.type: ["first", "second"]})
    await transport.deliver([wrap_event(happened(1), ctx, clock())])
    attempts = []

    # one claim returns only the first delivery, because both deliveries have the same key
    for _ in range(2):
        (delivery,) = await backend.inbox.claim(clock(), timedelta(seconds=9), 5)
        attempts.append(delivery.handler)
        async with backend.database.transaction() as store:
            assert await store.mark_processed(delivery)

    assert attempts == ["first", "second"]


# Failure


async def test_failing_handler_backs_off_then_dead_letters(
    backend: ContextPersistence[Any], subscriber: Subscriber, ctx: CallContext, clock: FakeClock
) -> None:
    subscriber.fails[1] = ValueError("broken")
    event = happened(1)
    await subscriber.publish(ctx, event)
    await subscriber.relay_all()

    attempted_at = []
    for _ in range(100):
        if await subscriber.process_once():
            attempted_at.append(clock())
        clock.forward(seconds=0.05)

    assert len(attempted_at) == WORKER_CONFIG.max_attempts
    assert attempted_at[2] - attempted_at[1] > attempted_at[1] - attempted_at[0]
    (dead,) = await backend.inbox.get_dead_letters()
    assert (dead.handler, dead.type, dead.attempts) == (
        HANDLER,
        ThingHappened.type,
        WORKER_CONFIG.max_attempts,
    )
    assert "broken" in dead.error


@pytest.mark.parametrize("error", [Unavailable(dependency="users"), RetryLater("not paid yet")])
async def test_waiting_handler_is_retried_without_counting_attempts(
    backend: ContextPersistence[Any],
    subscriber: Subscriber,
    ctx: CallContext,
    clock: FakeClock,
    error: Exception,
) -> None:
    subscriber.fails[1] = error
    await subscriber.publish(ctx, happened(1))
    await subscriber.relay_all()
    for _ in range(WORKER_CONFIG.max_attempts * 3):
        await subscriber.process()
        clock.forward(minutes=2)

    subscriber.fails[1] = ValueError("broken once")
    await subscriber.process()
    dead = await backend.inbox.get_dead_letters()
    subscriber.fails.clear()
    clock.forward(minutes=2)
    await subscriber.process()

    assert dead == []
    assert subscriber.handled == [1]


async def test_waiting_for_another_event_is_not_logged_as_a_warning(
    subscriber: Subscriber, ctx: CallContext
) -> None:
    subscriber.fails[1] = RetryLater("not paid yet")
    await subscriber.publish(ctx, happened(1))
    await subscriber.relay_all()

    with capture_logs() as lines:
        await subscriber.process()

    assert [(line["event"], line["log_level"]) for line in lines] == [
        ("event.retry_scheduled", "info")
    ]


async def test_unavailability_backoff_is_at_most_a_minute(
    subscriber: Subscriber, ctx: CallContext, clock: FakeClock
) -> None:
    subscriber.fails[1] = Unavailable(dependency="users")
    await subscriber.publish(ctx, happened(1))
    await subscriber.relay_all()
    clock.forward(days=1)
    await subscriber.process()
    subscriber.fails.clear()

    clock.forward(seconds=WORKER_CONFIG.max_backoff)
    await subscriber.process()

    assert subscriber.handled == [1]


@pytest.mark.parametrize(
    "corruption",
    [
        {"payload": "not json"},
        {"payload": '{"thing": 5}'},
        {"payload": ""},
        {"type": "unknown.type"},
    ],
)
async def test_malformed_event_is_dead_lettered_and_key_continues(
    backend: ContextPersistence[Any],
    subscriber: Subscriber,
    ctx: CallContext,
    clock: FakeClock,
    corruption: dict[str, str],
) -> None:
    key = new_id()
    malformed = wrap_event(happened(1, key), ctx, clock()).model_copy(update=corruption)
    await backend.inbox.enqueue([HANDLER], [malformed])
    await backend.inbox.enqueue([HANDLER], [wrap_event(happened(2, key), ctx, clock())])

    for _ in range(WORKER_CONFIG.max_attempts + 1):
        await subscriber.process()
        clock.forward(minutes=1)

    assert [dead.event_id for dead in await backend.inbox.get_dead_letters()] == [
        malformed.event_id
    ]
    assert subscriber.handled == [2]


async def test_event_for_removed_handler_is_dead_lettered(
    backend: ContextPersistence[Any], subscriber: Subscriber, ctx: CallContext, clock: FakeClock
) -> None:
    await backend.inbox.enqueue(["no.such_handler"], [wrap_event(happened(1), ctx, clock())])

    for _ in range(WORKER_CONFIG.max_attempts):
        await subscriber.process()
        clock.forward(minutes=1)

    assert len(await backend.inbox.get_dead_letters()) == 1


async def test_event_that_crashes_process_is_dead_lettered(
    backend: ContextPersistence[Any], subscriber: Subscriber, ctx: CallContext, clock: FakeClock
) -> None:
    await subscriber.publish(ctx, happened(1))
    await subscriber.relay_all()
    for _ in range(WORKER_CONFIG.max_attempts):
        # a crash leaves the claimed delivery unfinished, so its lease expires
        assert len(await backend.inbox.claim(clock(), timedelta(seconds=30), 5)) == 1
        clock.forward(seconds=30)

    await subscriber.process()

    assert subscriber.handled == []
    assert len(await backend.inbox.get_dead_letters()) == 1


async def test_stray_cancellation_fails_only_its_handler(
    subscriber: Subscriber, ctx: CallContext, clock: FakeClock
) -> None:
    subscriber.fails[1] = asyncio.CancelledError("an awaited task was cancelled")
    await subscriber.publish(ctx, happened(1), happened(2))
    await subscriber.relay_all()

    await subscriber.process()

    assert subscriber.handled == [2]
    subscriber.fails.clear()
    clock.forward(minutes=1)
    await subscriber.process()
    assert sorted(subscriber.handled) == [1, 2]


async def test_shutdown_releases_claims_without_counting_attempts(
    backend: ContextPersistence[Any], subscriber: Subscriber, ctx: CallContext, clock: FakeClock
) -> None:
    started = asyncio.Event()

    async def never_finish(delivery: Delivery, event: ThingHappened) -> None:
        started.set()
        await asyncio.Event().wait()

    slow = InboxConsumer(backend.inbox, {HANDLER: never_finish}, clock, WORKER_CONFIG)
    await subscriber.publish(ctx, happened(1))
    await subscriber.relay_all()

    for _ in range(WORKER_CONFIG.max_attempts * 2):
        started.clear()
        task = asyncio.create_task(run(slow))
        await started.wait()
        task.cancel()
        await asyncio.wait([task])
    await subscriber.process()

    assert subscriber.handled == [1]


# Commands of an operator


async def test_dead_letters_can_be_requeued(
    backend: ContextPersistence[Any], subscriber: Subscriber, ctx: CallContext, clock: FakeClock
) -> None:
    await dead_letter_three(subscriber, ctx, clock)
    dead = await backend.inbox.get_dead_letters()
    subscriber.fails.clear()

    one = await backend.inbox.requeue_dead_letters(dead[0].event_id)
    await subscriber.process()
    after_one = list(subscriber.handled)
    rest = await backend.inbox.requeue_dead_letters()
    await subscriber.process()

    assert (one, rest) == (1, 2)
    assert len(after_one) == 1
    assert sorted(subscriber.handled) == [1, 2, 3]
    assert await backend.inbox.get_dead_letters() == []
    assert await backend.inbox.requeue_dead_letters() == 0
    assert await backend.inbox.requeue_dead_letters(new_id()) == 0


async def test_dead_letter_list_is_bounded_and_oldest_first(
    backend: ContextPersistence[Any], subscriber: Subscriber, ctx: CallContext, clock: FakeClock
) -> None:
    await dead_letter_three(subscriber, ctx, clock)

    all_letters, two = (
        await backend.inbox.get_dead_letters(),
        await backend.inbox.get_dead_letters(limit=2),
    )

    assert len(all_letters) == 3
    assert list(two) == list(all_letters[:2])


async def test_replay_runs_handlers_again(
    backend: ContextPersistence[Any], subscriber: Subscriber, ctx: CallContext, clock: FakeClock
) -> None:
    await subscriber.publish(ctx, happened(1), happened(2))
    async with backend.outbox.acquire_leadership() as leader:
        assert leader is not None
        first = (await leader.get_unrelayed(1))[0].event_id
    await subscriber.relay_all()
    await subscriber.process()

    replayed = await backend.inbox.replay(first)
    await subscriber.process()

    assert replayed == 1
    assert sorted(subscriber.handled) == [1, 1, 2]
    assert await backend.inbox.replay(new_id()) == 0


async def test_done_deliveries_are_purged_and_dead_letters_kept(
    backend: ContextPersistence[Any], subscriber: Subscriber, ctx: CallContext, clock: FakeClock
) -> None:
    await dead_letter_three(subscriber, ctx, clock)
    subscriber.fails.clear()
    await subscriber.publish(ctx, happened(4))
    await subscriber.relay_all()
    await subscriber.process()
    clock.forward(days=8)

    purged = await backend.inbox.purge(clock() - timedelta(days=7))

    assert purged == 1
    assert len(await backend.inbox.get_dead_letters()) == 3


IN_ORDER = Statement(sa.text("SELECT payload FROM probe.inbox ORDER BY position"))
BACKLOG_OF_ONE_KEY = Statement(
    sa.text(
        "INSERT INTO probe.inbox (handler, event_id, source_seq, type, version, key, payload,"
        " occurred_at, request_id, state, attempts, error, received_at, due_at)"
        " SELECT 'h', gen_random_uuid(), n, 't', 1, '00000000-0000-7000-8000-000000000001', '{}',"
        " w, 'r', 'waiting', 0, '', w, w"
        " FROM generate_series(1, 20000) n, (SELECT CAST(:now AS timestamptz) AS w) AS times"
    ).bindparams(bindparam("now", type_=sa.TIMESTAMP(timezone=True)))
)
KILL_LEADER = (
    "SELECT pg_terminate_backend(pid, 5000) FROM pg_locks WHERE locktype = 'advisory'"
    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)
LOCKS = Statement(
    sa.text(
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"
        " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    )
)


@asynccontextmanager
async def own_pool(url: str) -> AsyncIterator[Postgres]:
    """Open a separate pool, as in another process."""
    postgres = Postgres(url, PoolSize(min_size=1, max_size=5, timeout=5))
    yield postgres
    await postgres.close()


async def try_to_lead(postgres: Postgres, barrier: asyncio.Barrier) -> bool:
    await barrier.wait()
    async with SqlOutbox(postgres, STATEMENTS.outbox).acquire_leadership() as leader:
        await barrier.wait()
        return leader is not None


async def wait_until_unlocked(postgres: Postgres) -> bool:
    """Wait until no leader lock is held. The server releases it shortly after a connection ends."""
    async with asyncio.timeout(30), postgres.read_session() as connection:
        while await connection.fetch_value(LOCKS):
            continue
    return True


async def publish_and_raise(subscriber: Subscriber, ctx: CallContext) -> None:
    async with subscriber.backend.database.transaction() as store:
        await store.publish(happened(99), ctx)
        raise MalformedRequest


async def dead_letter_three(subscriber: Subscriber, ctx: CallContext, clock: FakeClock) -> None:
    for number in (1, 2, 3):
        subscriber.fails[number] = ValueError("broken")
        await subscriber.publish(ctx, happened(number))
    await subscriber.relay_all()
    for _ in range(WORKER_CONFIG.max_attempts):
        await subscriber.process()
        clock.forward(minutes=1)


async def run(consumer: InboxConsumer) -> None:
    async with asyncio.TaskGroup() as tasks:
        await consumer.dispatch_due(tasks)
