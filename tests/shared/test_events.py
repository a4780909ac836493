"""Events: none is lost, none has its effect twice, those of one key keep their order."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from sqlalchemy import bindparam

from markethall.shared.composition.context_persistence import ContextPersistence
from markethall.shared.composition.sql import build_sql_persistence
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.errors import MalformedRequest, Unavailable
from markethall.shared.kernel.ids import new_id
from markethall.shared.messaging.events import Delivery, EventEnvelope, wrap_event
from markethall.shared.messaging.inbox_consumer import InboxConsumer
from markethall.shared.messaging.outbox_relay import OutboxRelay
from markethall.shared.messaging.sql.outbox import SqlOutbox
from markethall.shared.messaging.transports import InProcessTransport
from markethall.shared.messaging.worker_config import WorkerConfig
from markethall.shared.persistence.postgres import PoolSize, Postgres, Statement
from tests.conftest import on_server
from tests.shared.conftest import STATEMENTS, FakeClock, ProbeSqlStore, ThingHappened

HANDLER = "probe.on_thing_happened"
PACE = WorkerConfig(max_attempts=3, delivery_lease=30)


class Listener:
    """A context that listens to its own events, and can be told to fail."""

    def __init__(self, backend: ContextPersistence[Any], clock: FakeClock) -> None:
        self.backend = backend
        self.clock = clock
        self.seen: list[int] = []
        self.fails: dict[int, BaseException] = {}
        self.fails_after_writing = False
        self.transport = InProcessTransport(backend.inbox, {ThingHappened.type: [HANDLER]})
        self.relay = OutboxRelay("probe", [self.transport], clock)
        self.processor = InboxConsumer(backend.inbox, {HANDLER: self.handle}, clock, PACE)

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
        self.seen.append(event.number)

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
        """Until nothing is due; how many were tried."""
        tried = 0
        while count := await self.process_once():
            tried += count
        return tried

    async def process_once(self) -> int:
        async with asyncio.TaskGroup() as tasks:
            return await self.processor.dispatch_due(tasks)

    async def effects(self) -> int:
        async with self.backend.database.read_session() as store:
            count: int = await store.count()
            return count


@pytest.fixture
def listener(backend: ContextPersistence[Any], clock: FakeClock) -> Listener:
    return Listener(backend, clock)


def happened(number: int, thing: UUID | None = None) -> ThingHappened:
    return ThingHappened(thing=thing or new_id(), number=number)


# The outbox


async def test_event_is_published_only_on_commit(listener: Listener, ctx: CallContext) -> None:
    with pytest.raises(MalformedRequest):
        await publish_and_refuse(listener, ctx)
    await listener.publish(ctx, happened(1))

    relayed = await listener.relay_all()
    await listener.process()

    assert relayed == 1
    assert listener.seen == [1]


async def test_worker_is_notified_after_commit(listener: Listener, ctx: CallContext) -> None:
    woken: list[str] = []
    listener.backend.database.after_publish = lambda: woken.append("woken")

    async with listener.backend.database.transaction() as store:
        await store.publish(happened(1), ctx)
        during = list(woken)
    with pytest.raises(MalformedRequest):
        await publish_and_refuse(listener, ctx)
    async with listener.backend.database.transaction() as store:
        await store.add("nothing to tell")

    assert (during, woken) == ([], ["woken"])


async def test_event_carries_request_id_and_trace(
    backend: ContextPersistence[Any], listener: Listener, ctx: CallContext, clock: FakeClock
) -> None:
    event = happened(7)
    await listener.publish(ctx, event)
    await listener.relay_all()

    (delivery,) = await backend.inbox.claim(clock(), timedelta(seconds=1), 5)

    assert delivery.envelope.decode() == event
    assert delivery.envelope.key == event.thing
    assert delivery.call_context().request_id == ctx.request_id
    assert delivery.call_context().actor.name == f"system:{HANDLER}"


async def test_interrupted_relay_resends_without_duplicate_effect(
    listener: Listener, ctx: CallContext
) -> None:
    class Lossy:
        """Delivers, but its answer is lost."""

        async def deliver(self, envelopes: Sequence[EventEnvelope]) -> None:
            await listener.transport.deliver(envelopes)
            raise Unavailable(dependency="pipe")

    await listener.publish(ctx, *(happened(number) for number in range(5)))
    lossy = OutboxRelay("probe", [Lossy()], listener.clock)
    async with listener.backend.outbox.acquire_leadership() as leader:
        assert leader is not None
        for _ in range(3):
            with pytest.raises(Unavailable):
                await lossy.relay_batch(leader, 100)

    await listener.relay_all()
    await listener.process()

    assert sorted(listener.seen) == list(range(5))
    assert await listener.effects() == 5


async def test_old_published_events_are_purged_and_pending_kept(
    backend: ContextPersistence[Any], listener: Listener, ctx: CallContext, clock: FakeClock
) -> None:
    await listener.publish(ctx, happened(1))
    await listener.relay_all()
    await listener.publish(ctx, happened(2))
    clock.forward(days=8)

    await backend.outbox.purge(clock() - timedelta(days=7))

    assert await listener.relay_all() == 1
    await listener.process()
    assert sorted(listener.seen) == [1, 2]


# Who leads


async def test_only_one_process_leads(backend: ContextPersistence[Any]) -> None:
    async with backend.outbox.acquire_leadership() as first:
        async with backend.outbox.acquire_leadership() as second:
            while_led = second
        leads = first is not None
    async with backend.outbox.acquire_leadership() as third:
        afterwards = third is not None

    assert (leads, while_led, afterwards) == (True, None, True)


async def test_concurrent_leader_election_has_one_winner(probe_url: str) -> None:
    async with process_of(probe_url) as one, process_of(probe_url) as two:
        for _ in range(20):
            together = asyncio.Barrier(2)
            leads = await asyncio.gather(take_part(one, together), take_part(two, together))

            # both may see the other asking, and try again in a second; never do both lead
            assert leads.count(True) <= 1


async def test_lost_connection_loses_leadership(
    probe_url: str, clock: FakeClock, ctx: CallContext
) -> None:
    async with process_of(probe_url) as one, process_of(probe_url) as two:
        listener = Listener(build_sql_persistence(two, STATEMENTS, ProbeSqlStore, clock), clock)
        with pytest.raises(Unavailable):  # noqa: PT012 - the block is what is tested
            async with SqlOutbox(one, STATEMENTS.outbox).acquire_leadership() as old:
                assert old is not None
                await listener.publish(ctx, happened(1))
                await on_server(probe_url, KILL_LEADER)

                assert await listener.relay_all() == 1
                await old.get_unpublished(10)


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

    assert await no_locks(probe)


# The order


@pytest.mark.parametrize("writers", [8])
async def test_late_commits_are_delivered_and_key_order_is_kept(
    probe: Postgres, clock: FakeClock, ctx: CallContext, writers: int
) -> None:
    listener = Listener(build_sql_persistence(probe, STATEMENTS, ProbeSqlStore, clock), clock)
    keys = [new_id() for _ in range(writers)]
    each = 50
    chance = random.Random(7)
    working = asyncio.Event()
    working.set()

    async def write(key: UUID) -> None:
        for number in range(0, each, 2):
            async with listener.backend.database.transaction() as store:
                await store.publish(happened(number, key), ctx)
                # held open across other commits and across the relay's looks
                for _ in range(chance.randrange(6)):
                    await store.count()
                await store.publish(happened(number + 1, key), ctx)

    async def relay() -> int:
        relayed = 0
        async with listener.backend.outbox.acquire_leadership() as leader:
            assert leader is not None
            while working.is_set():
                relayed += await listener.relay.relay_batch(leader, 7)
            while count := await listener.relay.relay_batch(leader, 7):
                relayed += count
        return relayed

    relaying = asyncio.create_task(relay())
    await asyncio.gather(*(write(key) for key in keys))
    working.clear()

    assert await relaying == writers * each
    async with probe.read_session() as connection:
        rows = await connection.fetch_all(IN_ORDER)
    arrived: dict[UUID, list[int]] = {}
    for row in rows:
        event = ThingHappened.model_validate_json(row["payload"])
        arrived.setdefault(event.thing, []).append(event.number)
    assert arrived == {key: list(range(each)) for key in keys}


async def test_events_of_one_key_are_sequential(
    listener: Listener, ctx: CallContext, clock: FakeClock
) -> None:
    mine, other = new_id(), new_id()
    listener.fails[1] = ValueError("not yet")
    await listener.publish(ctx, happened(1, mine), happened(2, mine), happened(3, other))
    await listener.relay_all()

    await listener.process()
    while_failing = list(listener.seen)
    listener.fails.clear()
    clock.forward(minutes=1)
    await listener.process()

    assert while_failing == [3]
    assert listener.seen == [3, 1, 2]


async def test_claimed_event_blocks_later_events_of_its_key(
    backend: ContextPersistence[Any], listener: Listener, ctx: CallContext, clock: FakeClock
) -> None:
    key = new_id()
    await listener.publish(ctx, happened(1, key), happened(2, key))
    await listener.relay_all()
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
    async with process_of(probe_url) as one, process_of(probe_url) as two:
        inboxes = [
            build_sql_persistence(it, STATEMENTS, ProbeSqlStore, clock).inbox for it in (one, two)
        ]
        listener = Listener(build_sql_persistence(one, STATEMENTS, ProbeSqlStore, clock), clock)
        await listener.publish(ctx, *(happened(number) for number in range(40)))
        await listener.relay_all()

        claims = await asyncio.gather(
            *(inbox.claim(clock(), timedelta(seconds=30), 5) for inbox in inboxes * 6)
        )

        claimed = [delivery.envelope.event_id for claim in claims for delivery in claim]
        assert len(claimed) == len(set(claimed)) == 40


# The effect


async def test_effect_and_processed_mark_are_one_transaction(
    listener: Listener, ctx: CallContext, clock: FakeClock
) -> None:
    listener.fails[1] = ValueError("after the write")
    listener.fails_after_writing = True
    await listener.publish(ctx, happened(1))
    await listener.relay_all()

    await listener.process()
    after_failure = await listener.effects()
    listener.fails.clear()
    clock.forward(minutes=1)
    await listener.process()

    assert after_failure == 0
    assert await listener.effects() == 1


async def test_concurrent_handling_has_one_effect(
    backend: ContextPersistence[Any], listener: Listener, ctx: CallContext, clock: FakeClock
) -> None:
    await listener.publish(ctx, happened(1))
    await listener.relay_all()
    (delivery,) = await backend.inbox.claim(clock(), timedelta(seconds=1), 1)
    event = delivery.envelope.decode()
    assert isinstance(event, ThingHappened)

    await asyncio.gather(*(listener.handle(delivery, event) for _ in range(8)))

    assert await listener.effects() == 1


async def test_event_without_subscription_is_dropped(
    backend: ContextPersistence[Any], clock: FakeClock, ctx: CallContext
) -> None:
    pipe = InProcessTransport(backend.inbox, {"another.type": [HANDLER]})

    await pipe.deliver([wrap_event(happened(1), ctx, clock())])

    assert await backend.inbox.claim(clock(), timedelta(seconds=1), 5) == []


async def test_each_handler_has_its_own_delivery(
    backend: ContextPersistence[Any], clock: FakeClock, ctx: CallContext
) -> None:
    pipe = InProcessTransport(backend.inbox, {ThingHappened.type: ["first", "second"]})
    await pipe.deliver([wrap_event(happened(1), ctx, clock())])
    tried = []

    # one after the other: they share the key
    for _ in range(2):
        (delivery,) = await backend.inbox.claim(clock(), timedelta(seconds=9), 5)
        tried.append(delivery.handler)
        async with backend.database.transaction() as store:
            assert await store.mark_processed(delivery)

    assert tried == ["first", "second"]


# Failure


async def test_failing_handler_backs_off_then_dead_letters(
    backend: ContextPersistence[Any], listener: Listener, ctx: CallContext, clock: FakeClock
) -> None:
    listener.fails[1] = ValueError("broken")
    event = happened(1)
    await listener.publish(ctx, event)
    await listener.relay_all()

    tries = []
    for _ in range(100):
        if await listener.process_once():
            tries.append(clock())
        clock.forward(seconds=0.05)

    assert len(tries) == PACE.max_attempts
    assert tries[2] - tries[1] > tries[1] - tries[0]
    (dead,) = await backend.inbox.get_dead_letters()
    assert (dead.handler, dead.type, dead.attempts) == (
        HANDLER,
        ThingHappened.type,
        PACE.max_attempts,
    )
    assert "broken" in dead.error


async def test_unavailability_never_dead_letters_and_does_not_count_attempts(
    backend: ContextPersistence[Any], listener: Listener, ctx: CallContext, clock: FakeClock
) -> None:
    listener.fails[1] = Unavailable(dependency="neighbour")
    await listener.publish(ctx, happened(1))
    await listener.relay_all()
    for _ in range(PACE.max_attempts * 3):
        await listener.process()
        clock.forward(minutes=2)

    listener.fails[1] = ValueError("broken once")
    await listener.process()
    dead = await backend.inbox.get_dead_letters()
    listener.fails.clear()
    clock.forward(minutes=2)
    await listener.process()

    assert dead == []
    assert listener.seen == [1]


async def test_unavailability_backoff_is_at_most_a_minute(
    listener: Listener, ctx: CallContext, clock: FakeClock
) -> None:
    listener.fails[1] = Unavailable(dependency="neighbour")
    await listener.publish(ctx, happened(1))
    await listener.relay_all()
    clock.forward(days=1)
    await listener.process()
    listener.fails.clear()

    clock.forward(seconds=PACE.max_backoff)
    await listener.process()

    assert listener.seen == [1]


@pytest.mark.parametrize(
    "spoilt",
    [
        {"payload": "not json"},
        {"payload": '{"thing": 5}'},
        {"payload": ""},
        {"type": "unheard.of"},
    ],
)
async def test_malformed_event_is_dead_lettered_and_key_continues(
    backend: ContextPersistence[Any],
    listener: Listener,
    ctx: CallContext,
    clock: FakeClock,
    spoilt: dict[str, str],
) -> None:
    key = new_id()
    poison = wrap_event(happened(1, key), ctx, clock()).model_copy(update=spoilt)
    await backend.inbox.enqueue([HANDLER], [poison])
    await backend.inbox.enqueue([HANDLER], [wrap_event(happened(2, key), ctx, clock())])

    for _ in range(PACE.max_attempts + 1):
        await listener.process()
        clock.forward(minutes=1)

    assert [dead.event_id for dead in await backend.inbox.get_dead_letters()] == [poison.event_id]
    assert listener.seen == [2]


async def test_event_for_removed_handler_is_dead_lettered(
    backend: ContextPersistence[Any], listener: Listener, ctx: CallContext, clock: FakeClock
) -> None:
    await backend.inbox.enqueue(["no.such_handler"], [wrap_event(happened(1), ctx, clock())])

    for _ in range(PACE.max_attempts):
        await listener.process()
        clock.forward(minutes=1)

    assert len(await backend.inbox.get_dead_letters()) == 1


async def test_event_that_crashes_process_is_dead_lettered(
    backend: ContextPersistence[Any], listener: Listener, ctx: CallContext, clock: FakeClock
) -> None:
    await listener.publish(ctx, happened(1))
    await listener.relay_all()
    for _ in range(PACE.max_attempts):
        # claimed, and then nothing: the lease runs out
        assert len(await backend.inbox.claim(clock(), timedelta(seconds=30), 5)) == 1
        clock.forward(seconds=30)

    await listener.process()

    assert listener.seen == []
    assert len(await backend.inbox.get_dead_letters()) == 1


async def test_stray_cancellation_fails_only_its_handler(
    listener: Listener, ctx: CallContext, clock: FakeClock
) -> None:
    listener.fails[1] = asyncio.CancelledError("something it waited for")
    await listener.publish(ctx, happened(1), happened(2))
    await listener.relay_all()

    await listener.process()

    assert listener.seen == [2]
    listener.fails.clear()
    clock.forward(minutes=1)
    await listener.process()
    assert sorted(listener.seen) == [1, 2]


async def test_shutdown_releases_claims_without_counting_attempts(
    backend: ContextPersistence[Any], listener: Listener, ctx: CallContext, clock: FakeClock
) -> None:
    begun = asyncio.Event()

    async def never_ends(delivery: Delivery, event: ThingHappened) -> None:
        begun.set()
        await asyncio.Event().wait()

    slow = InboxConsumer(backend.inbox, {HANDLER: never_ends}, clock, PACE)
    await listener.publish(ctx, happened(1))
    await listener.relay_all()

    for _ in range(PACE.max_attempts * 2):
        begun.clear()
        task = asyncio.create_task(run(slow))
        await begun.wait()
        task.cancel()
        await asyncio.wait([task])
    await listener.process()

    assert listener.seen == [1]


# By hand


async def test_dead_letters_can_be_requeued(
    backend: ContextPersistence[Any], listener: Listener, ctx: CallContext, clock: FakeClock
) -> None:
    await bury_three(listener, ctx, clock)
    dead = await backend.inbox.get_dead_letters()
    listener.fails.clear()

    one = await backend.inbox.requeue_dead_letters(dead[0].event_id)
    await listener.process()
    after_one = list(listener.seen)
    rest = await backend.inbox.requeue_dead_letters()
    await listener.process()

    assert (one, rest) == (1, 2)
    assert len(after_one) == 1
    assert sorted(listener.seen) == [1, 2, 3]
    assert await backend.inbox.get_dead_letters() == []
    assert await backend.inbox.requeue_dead_letters() == 0
    assert await backend.inbox.requeue_dead_letters(new_id()) == 0


async def test_dead_letter_list_is_bounded_and_oldest_first(
    backend: ContextPersistence[Any], listener: Listener, ctx: CallContext, clock: FakeClock
) -> None:
    await bury_three(listener, ctx, clock)

    every, two = (
        await backend.inbox.get_dead_letters(),
        await backend.inbox.get_dead_letters(limit=2),
    )

    assert len(every) == 3
    assert list(two) == list(every[:2])


async def test_replay_runs_handlers_again(
    backend: ContextPersistence[Any], listener: Listener, ctx: CallContext, clock: FakeClock
) -> None:
    await listener.publish(ctx, happened(1), happened(2))
    async with backend.outbox.acquire_leadership() as leader:
        assert leader is not None
        first = (await leader.get_unpublished(1))[0].event_id
    await listener.relay_all()
    await listener.process()

    replayed = await backend.inbox.replay(first)
    await listener.process()

    assert replayed == 1
    assert sorted(listener.seen) == [1, 1, 2]
    assert await backend.inbox.replay(new_id()) == 0


async def test_done_deliveries_are_purged_and_dead_letters_kept(
    backend: ContextPersistence[Any], listener: Listener, ctx: CallContext, clock: FakeClock
) -> None:
    await bury_three(listener, ctx, clock)
    listener.fails.clear()
    await listener.publish(ctx, happened(4))
    await listener.relay_all()
    await listener.process()
    clock.forward(days=8)

    forgotten = await backend.inbox.purge(clock() - timedelta(days=7))

    assert forgotten == 1
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
async def process_of(url: str) -> AsyncIterator[Postgres]:
    """A pool as another process would have it."""
    postgres = Postgres(url, PoolSize(min_size=1, max_size=5, timeout=5))
    yield postgres
    await postgres.close()


async def take_part(postgres: Postgres, together: asyncio.Barrier) -> bool:
    await together.wait()
    async with SqlOutbox(postgres, STATEMENTS.outbox).acquire_leadership() as leader:
        await together.wait()
        return leader is not None


async def no_locks(postgres: Postgres) -> bool:
    """The server lets go a moment after the connection has ended."""
    async with asyncio.timeout(30), postgres.read_session() as connection:
        while await connection.fetch_value(LOCKS):
            continue
    return True


async def publish_and_refuse(listener: Listener, ctx: CallContext) -> None:
    async with listener.backend.database.transaction() as store:
        await store.publish(happened(99), ctx)
        raise MalformedRequest


async def bury_three(listener: Listener, ctx: CallContext, clock: FakeClock) -> None:
    for number in (1, 2, 3):
        listener.fails[number] = ValueError("broken")
        await listener.publish(ctx, happened(number))
    await listener.relay_all()
    for _ in range(PACE.max_attempts):
        await listener.process()
        clock.forward(minutes=1)


async def run(processor: InboxConsumer) -> None:
    async with asyncio.TaskGroup() as tasks:
        await processor.dispatch_due(tasks)
