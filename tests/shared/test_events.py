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

from markethall.shared.backend import Backend
from markethall.shared.call import Call
from markethall.shared.db import PoolSize, Postgres, Statement
from markethall.shared.errors import Malformed, Unavailable
from markethall.shared.events import Delivery, DirectPipe, Envelope, sealed
from markethall.shared.ids import new_id
from markethall.shared.sql import SqlOutbox, sql_backend
from markethall.shared.steward import Pace, Processor, Relay
from tests.conftest import on_server
from tests.shared.conftest import STATEMENTS, ProbeSqlStore, ThingHappened, Watch

HANDLER = "probe.count_things"
PACE = Pace(attempts=3, lease=30)


class Listener:
    """A context that listens to its own events, and can be told to fail."""

    def __init__(self, backend: Backend[Any], watch: Watch) -> None:
        self.backend = backend
        self.watch = watch
        self.seen: list[int] = []
        self.fails: dict[int, BaseException] = {}
        self.fails_after_writing = False
        self.pipe = DirectPipe(backend.inbox, {ThingHappened.type: [HANDLER]})
        self.relay = Relay("probe", [self.pipe], watch)
        self.processor = Processor(backend.inbox, {HANDLER: self.handle}, watch, PACE)

    async def handle(self, delivery: Delivery, event: ThingHappened) -> None:
        error = self.fails.get(event.number)
        if error and not self.fails_after_writing:
            raise error
        async with self.backend.database.transaction() as store:
            if not await store.handled(delivery):
                return
            await store.add(str(new_id()), event.number)
            if error:
                raise error
        self.seen.append(event.number)

    async def publish(self, call: Call, *events: ThingHappened) -> None:
        for event in events:
            async with self.backend.database.transaction() as store:
                await store.publish(event, call)

    async def relay_all(self) -> int:
        async with self.backend.outbox.lead() as lead:
            assert lead is not None
            relayed = 0
            while count := await self.relay.run_once(lead, 100):
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
            return await self.processor.start_due(tasks)

    async def effects(self) -> int:
        async with self.backend.database.reading() as store:
            count: int = await store.count()
            return count


@pytest.fixture
def listener(backend: Backend[Any], watch: Watch) -> Listener:
    return Listener(backend, watch)


def happened(number: int, thing: UUID | None = None) -> ThingHappened:
    return ThingHappened(thing=thing or new_id(), number=number)


# The outbox


async def test_an_event_leaves_only_when_its_transaction_commits(
    listener: Listener, call: Call
) -> None:
    with pytest.raises(Malformed):
        await publish_and_refuse(listener, call)
    await listener.publish(call, happened(1))

    relayed = await listener.relay_all()
    await listener.process()

    assert relayed == 1
    assert listener.seen == [1]


async def test_the_steward_is_woken_after_the_commit_and_never_before(
    listener: Listener, call: Call
) -> None:
    woken: list[str] = []
    listener.backend.database.on_publish = lambda: woken.append("woken")

    async with listener.backend.database.transaction() as store:
        await store.publish(happened(1), call)
        during = list(woken)
    with pytest.raises(Malformed):
        await publish_and_refuse(listener, call)
    async with listener.backend.database.transaction() as store:
        await store.add("nothing to tell")

    assert (during, woken) == ([], ["woken"])


async def test_an_event_carries_the_request_that_it_goes_back_to(
    backend: Backend[Any], listener: Listener, call: Call, watch: Watch
) -> None:
    event = happened(7)
    await listener.publish(call, event)
    await listener.relay_all()

    (delivery,) = await backend.inbox.claim(watch(), timedelta(seconds=1), 5)

    assert delivery.envelope.open() == event
    assert delivery.envelope.key == event.thing
    assert delivery.call().request_id == call.request_id
    assert delivery.call().actor.name == f"system:{HANDLER}"


async def test_a_relay_that_fails_half_way_sends_again_and_that_does_no_harm(
    listener: Listener, call: Call
) -> None:
    class Lossy:
        """Delivers, but its answer is lost."""

        async def send(self, envelopes: Sequence[Envelope]) -> None:
            await listener.pipe.send(envelopes)
            raise Unavailable(dependency="pipe")

    await listener.publish(call, *(happened(number) for number in range(5)))
    lossy = Relay("probe", [Lossy()], listener.watch)
    async with listener.backend.outbox.lead() as lead:
        assert lead is not None
        for _ in range(3):
            with pytest.raises(Unavailable):
                await lossy.run_once(lead, 100)

    await listener.relay_all()
    await listener.process()

    assert sorted(listener.seen) == list(range(5))
    assert await listener.effects() == 5


async def test_what_was_published_long_ago_is_forgotten_and_what_waits_is_not(
    backend: Backend[Any], listener: Listener, call: Call, watch: Watch
) -> None:
    await listener.publish(call, happened(1))
    await listener.relay_all()
    await listener.publish(call, happened(2))
    watch.forward(days=8)

    await backend.outbox.purge(watch() - timedelta(days=7))

    assert await listener.relay_all() == 1
    await listener.process()
    assert sorted(listener.seen) == [1, 2]


# Who leads


async def test_one_leads_and_the_others_do_not(backend: Backend[Any]) -> None:
    async with backend.outbox.lead() as first:
        async with backend.outbox.lead() as second:
            while_led = second
        leads = first is not None
    async with backend.outbox.lead() as third:
        afterwards = third is not None

    assert (leads, while_led, afterwards) == (True, None, True)


async def test_of_two_processes_that_want_to_lead_at_once_one_does(probe_url: str) -> None:
    async with process_of(probe_url) as one, process_of(probe_url) as two:
        for _ in range(20):
            together = asyncio.Barrier(2)
            leads = await asyncio.gather(take_part(one, together), take_part(two, together))

            # both may see the other asking, and try again in a second; never do both lead
            assert leads.count(True) <= 1


async def test_who_loses_the_connection_loses_the_lead_and_cannot_relay_any_more(
    probe_url: str, watch: Watch, call: Call
) -> None:
    async with process_of(probe_url) as one, process_of(probe_url) as two:
        listener = Listener(sql_backend(two, STATEMENTS, ProbeSqlStore, watch), watch)
        with pytest.raises(Unavailable):  # noqa: PT012 - the block is what is tested
            async with SqlOutbox(one, STATEMENTS).lead() as old:
                assert old is not None
                await listener.publish(call, happened(1))
                await on_server(probe_url, KILL_LEADER)

                assert await listener.relay_all() == 1
                await old.unpublished(10)


async def test_a_leader_needs_no_connection_of_the_pool(probe_url: str, watch: Watch) -> None:
    postgres = Postgres(probe_url, PoolSize(least=1, most=1, timeout=5))
    backend = sql_backend(postgres, STATEMENTS, ProbeSqlStore, watch)

    async with backend.outbox.lead() as lead, backend.database.transaction() as store:
        assert lead is not None
        await store.add("a")

    await postgres.close()


async def test_a_cancelled_leader_leaves_no_lock_behind(probe: Postgres) -> None:
    leading = asyncio.Event()

    async def lead_for_ever() -> None:
        async with SqlOutbox(probe, STATEMENTS).lead() as lead:
            assert lead is not None
            leading.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(lead_for_ever())
    await leading.wait()
    task.cancel()
    await asyncio.wait([task])

    assert await no_locks(probe)


# The order


@pytest.mark.parametrize("writers", [8])
async def test_events_that_commit_late_and_out_of_order_all_arrive_and_each_key_keeps_its_order(
    probe: Postgres, watch: Watch, call: Call, writers: int
) -> None:
    listener = Listener(sql_backend(probe, STATEMENTS, ProbeSqlStore, watch), watch)
    keys = [new_id() for _ in range(writers)]
    each = 50
    chance = random.Random(7)  # noqa: S311 - a shuffle, no secret
    working = asyncio.Event()
    working.set()

    async def write(key: UUID) -> None:
        for number in range(0, each, 2):
            async with listener.backend.database.transaction() as store:
                await store.publish(happened(number, key), call)
                # held open across other commits and across the relay's looks
                for _ in range(chance.randrange(6)):
                    await store.count()
                await store.publish(happened(number + 1, key), call)

    async def relay() -> int:
        relayed = 0
        async with listener.backend.outbox.lead() as lead:
            assert lead is not None
            while working.is_set():
                relayed += await listener.relay.run_once(lead, 7)
            while count := await listener.relay.run_once(lead, 7):
                relayed += count
        return relayed

    relaying = asyncio.create_task(relay())
    await asyncio.gather(*(write(key) for key in keys))
    working.clear()

    assert await relaying == writers * each
    async with probe.reading() as session:
        rows = await session.all(IN_ORDER)
    arrived: dict[UUID, list[int]] = {}
    for row in rows:
        event = ThingHappened.model_validate_json(row["payload"])
        arrived.setdefault(event.thing, []).append(event.number)
    assert arrived == {key: list(range(each)) for key in keys}


async def test_a_later_event_of_a_key_waits_for_an_earlier_one_and_other_keys_do_not(
    listener: Listener, call: Call, watch: Watch
) -> None:
    mine, other = new_id(), new_id()
    listener.fails[1] = ValueError("not yet")
    await listener.publish(call, happened(1, mine), happened(2, mine), happened(3, other))
    await listener.relay_all()

    await listener.process()
    while_failing = list(listener.seen)
    listener.fails.clear()
    watch.forward(minutes=1)
    await listener.process()

    assert while_failing == [3]
    assert listener.seen == [3, 1, 2]


async def test_a_claimed_event_keeps_the_later_ones_of_its_key_back(
    backend: Backend[Any], listener: Listener, call: Call, watch: Watch
) -> None:
    key = new_id()
    await listener.publish(call, happened(1, key), happened(2, key))
    await listener.relay_all()
    lease = timedelta(seconds=30)

    first = await backend.inbox.claim(watch(), lease, 10)
    second = await backend.inbox.claim(watch(), lease, 10)

    assert [delivery.envelope.open() for delivery in first] == [happened(1, key)]
    assert second == []


async def test_many_events_of_one_key_do_not_make_a_claim_slow(
    probe: Postgres, watch: Watch
) -> None:
    backend = sql_backend(probe, STATEMENTS, ProbeSqlStore, watch)
    async with probe.reading() as session:
        await session.run(BACKLOG_OF_ONE_KEY, now=watch())

    claimed = await backend.inbox.claim(watch(), timedelta(seconds=30), 8)

    assert len(claimed) == 1
    assert await backend.inbox.claim(watch(), timedelta(seconds=30), 8) == []


async def test_two_processors_never_get_the_same_event(
    probe_url: str, watch: Watch, call: Call
) -> None:
    async with process_of(probe_url) as one, process_of(probe_url) as two:
        inboxes = [sql_backend(it, STATEMENTS, ProbeSqlStore, watch).inbox for it in (one, two)]
        listener = Listener(sql_backend(one, STATEMENTS, ProbeSqlStore, watch), watch)
        await listener.publish(call, *(happened(number) for number in range(40)))
        await listener.relay_all()

        claims = await asyncio.gather(
            *(inbox.claim(watch(), timedelta(seconds=30), 5) for inbox in inboxes * 6)
        )

        claimed = [delivery.envelope.event_id for claim in claims for delivery in claim]
        assert len(claimed) == len(set(claimed)) == 40


# The effect


async def test_an_effect_and_its_tick_are_one_transaction(
    listener: Listener, call: Call, watch: Watch
) -> None:
    listener.fails[1] = ValueError("after the write")
    listener.fails_after_writing = True
    await listener.publish(call, happened(1))
    await listener.relay_all()

    await listener.process()
    after_failure = await listener.effects()
    listener.fails.clear()
    watch.forward(minutes=1)
    await listener.process()

    assert after_failure == 0
    assert await listener.effects() == 1


async def test_one_event_handled_by_two_at_once_has_one_effect(
    backend: Backend[Any], listener: Listener, call: Call, watch: Watch
) -> None:
    await listener.publish(call, happened(1))
    await listener.relay_all()
    (delivery,) = await backend.inbox.claim(watch(), timedelta(seconds=1), 1)
    event = delivery.envelope.open()
    assert isinstance(event, ThingHappened)

    await asyncio.gather(*(listener.handle(delivery, event) for _ in range(8)))

    assert await listener.effects() == 1


async def test_an_event_of_a_type_that_nobody_listens_to_goes_nowhere(
    backend: Backend[Any], watch: Watch, call: Call
) -> None:
    pipe = DirectPipe(backend.inbox, {"another.type": [HANDLER]})

    await pipe.send([sealed(happened(1), call, watch())])

    assert await backend.inbox.claim(watch(), timedelta(seconds=1), 5) == []


async def test_every_handler_of_an_event_has_a_delivery_of_its_own(
    backend: Backend[Any], watch: Watch, call: Call
) -> None:
    pipe = DirectPipe(backend.inbox, {ThingHappened.type: ["first", "second"]})
    await pipe.send([sealed(happened(1), call, watch())])
    tried = []

    # one after the other: they share the key
    for _ in range(2):
        (delivery,) = await backend.inbox.claim(watch(), timedelta(seconds=9), 5)
        tried.append(delivery.handler)
        async with backend.database.transaction() as store:
            assert await store.handled(delivery)

    assert tried == ["first", "second"]


# Failure


async def test_a_handler_that_fails_is_tried_again_later_and_later_and_then_buried(
    backend: Backend[Any], listener: Listener, call: Call, watch: Watch
) -> None:
    listener.fails[1] = ValueError("broken")
    event = happened(1)
    await listener.publish(call, event)
    await listener.relay_all()

    tries = []
    for _ in range(100):
        if await listener.process_once():
            tries.append(watch())
        watch.forward(seconds=0.05)

    assert len(tries) == PACE.attempts
    assert tries[2] - tries[1] > tries[1] - tries[0]
    (dead,) = await backend.inbox.dead()
    assert (dead.handler, dead.type, dead.attempts) == (HANDLER, ThingHappened.type, PACE.attempts)
    assert "broken" in dead.error


async def test_somebody_away_never_buries_an_event_and_its_tries_do_not_count(
    backend: Backend[Any], listener: Listener, call: Call, watch: Watch
) -> None:
    listener.fails[1] = Unavailable(dependency="neighbour")
    await listener.publish(call, happened(1))
    await listener.relay_all()
    for _ in range(PACE.attempts * 3):
        await listener.process()
        watch.forward(minutes=2)

    listener.fails[1] = ValueError("broken once")
    await listener.process()
    dead = await backend.inbox.dead()
    listener.fails.clear()
    watch.forward(minutes=2)
    await listener.process()

    assert dead == []
    assert listener.seen == [1]


async def test_waiting_for_somebody_never_takes_longer_than_a_minute_at_a_time(
    listener: Listener, call: Call, watch: Watch
) -> None:
    listener.fails[1] = Unavailable(dependency="neighbour")
    await listener.publish(call, happened(1))
    await listener.relay_all()
    watch.forward(days=1)
    await listener.process()
    listener.fails.clear()

    watch.forward(seconds=PACE.longest_wait)
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
async def test_a_poisoned_event_is_buried_and_its_key_goes_on(
    backend: Backend[Any], listener: Listener, call: Call, watch: Watch, spoilt: dict[str, str]
) -> None:
    key = new_id()
    poison = sealed(happened(1, key), call, watch()).model_copy(update=spoilt)
    await backend.inbox.accept([HANDLER], [poison])
    await backend.inbox.accept([HANDLER], [sealed(happened(2, key), call, watch())])

    for _ in range(PACE.attempts + 1):
        await listener.process()
        watch.forward(minutes=1)

    assert [dead.event_id for dead in await backend.inbox.dead()] == [poison.event_id]
    assert listener.seen == [2]


async def test_an_event_for_a_handler_that_is_gone_is_buried(
    backend: Backend[Any], listener: Listener, call: Call, watch: Watch
) -> None:
    await backend.inbox.accept(["no.such_handler"], [sealed(happened(1), call, watch())])

    for _ in range(PACE.attempts):
        await listener.process()
        watch.forward(minutes=1)

    assert len(await backend.inbox.dead()) == 1


async def test_an_event_that_kills_the_process_each_time_is_buried_too(
    backend: Backend[Any], listener: Listener, call: Call, watch: Watch
) -> None:
    await listener.publish(call, happened(1))
    await listener.relay_all()
    for _ in range(PACE.attempts):
        # claimed, and then nothing: the lease runs out
        assert len(await backend.inbox.claim(watch(), timedelta(seconds=30), 5)) == 1
        watch.forward(seconds=30)

    await listener.process()

    assert listener.seen == []
    assert len(await backend.inbox.dead()) == 1


async def test_a_stray_cancellation_is_a_failure_of_its_handler_and_of_nothing_else(
    listener: Listener, call: Call, watch: Watch
) -> None:
    listener.fails[1] = asyncio.CancelledError("something it waited for")
    await listener.publish(call, happened(1), happened(2))
    await listener.relay_all()

    await listener.process()

    assert listener.seen == [2]
    listener.fails.clear()
    watch.forward(minutes=1)
    await listener.process()
    assert sorted(listener.seen) == [1, 2]


async def test_who_must_end_hands_its_events_back_at_once_and_uncounted(
    backend: Backend[Any], listener: Listener, call: Call, watch: Watch
) -> None:
    begun = asyncio.Event()

    async def never_ends(delivery: Delivery, event: ThingHappened) -> None:
        begun.set()
        await asyncio.Event().wait()

    slow = Processor(backend.inbox, {HANDLER: never_ends}, watch, PACE)
    await listener.publish(call, happened(1))
    await listener.relay_all()

    for _ in range(PACE.attempts * 2):
        begun.clear()
        task = asyncio.create_task(run(slow))
        await begun.wait()
        task.cancel()
        await asyncio.wait([task])
    await listener.process()

    assert listener.seen == [1]


# By hand


async def test_dead_letters_can_be_tried_again_one_or_all(
    backend: Backend[Any], listener: Listener, call: Call, watch: Watch
) -> None:
    await bury_three(listener, call, watch)
    dead = await backend.inbox.dead()
    listener.fails.clear()

    one = await backend.inbox.retry_dead(dead[0].event_id)
    await listener.process()
    after_one = list(listener.seen)
    rest = await backend.inbox.retry_dead()
    await listener.process()

    assert (one, rest) == (1, 2)
    assert len(after_one) == 1
    assert sorted(listener.seen) == [1, 2, 3]
    assert await backend.inbox.dead() == []
    assert await backend.inbox.retry_dead() == 0
    assert await backend.inbox.retry_dead(new_id()) == 0


async def test_the_list_of_dead_letters_is_bounded_and_oldest_first(
    backend: Backend[Any], listener: Listener, call: Call, watch: Watch
) -> None:
    await bury_three(listener, call, watch)

    every, two = await backend.inbox.dead(), await backend.inbox.dead(limit=2)

    assert len(every) == 3
    assert list(two) == list(every[:2])


async def test_a_replay_runs_the_handlers_of_one_event_once_more(
    backend: Backend[Any], listener: Listener, call: Call, watch: Watch
) -> None:
    await listener.publish(call, happened(1), happened(2))
    async with backend.outbox.lead() as lead:
        assert lead is not None
        first = (await lead.unpublished(1))[0].event_id
    await listener.relay_all()
    await listener.process()

    replayed = await backend.inbox.replay(first)
    await listener.process()

    assert replayed == 1
    assert sorted(listener.seen) == [1, 1, 2]
    assert await backend.inbox.replay(new_id()) == 0


async def test_done_deliveries_are_forgotten_in_time_and_dead_ones_never(
    backend: Backend[Any], listener: Listener, call: Call, watch: Watch
) -> None:
    await bury_three(listener, call, watch)
    listener.fails.clear()
    await listener.publish(call, happened(4))
    await listener.relay_all()
    await listener.process()
    watch.forward(days=8)

    forgotten = await backend.inbox.purge(watch() - timedelta(days=7))

    assert forgotten == 1
    assert len(await backend.inbox.dead()) == 3


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
    postgres = Postgres(url, PoolSize(least=1, most=5, timeout=5))
    yield postgres
    await postgres.close()


async def take_part(postgres: Postgres, together: asyncio.Barrier) -> bool:
    await together.wait()
    async with SqlOutbox(postgres, STATEMENTS).lead() as lead:
        await together.wait()
        return lead is not None


async def no_locks(postgres: Postgres) -> bool:
    """The server lets go a moment after the connection has ended."""
    async with asyncio.timeout(30), postgres.reading() as session:
        while await session.value(LOCKS):
            continue
    return True


async def publish_and_refuse(listener: Listener, call: Call) -> None:
    async with listener.backend.database.transaction() as store:
        await store.publish(happened(99), call)
        raise Malformed


async def bury_three(listener: Listener, call: Call, watch: Watch) -> None:
    for number in (1, 2, 3):
        listener.fails[number] = ValueError("broken")
        await listener.publish(call, happened(number))
    await listener.relay_all()
    for _ in range(PACE.attempts):
        await listener.process()
        watch.forward(minutes=1)


async def run(processor: Processor) -> None:
    async with asyncio.TaskGroup() as tasks:
        await processor.start_due(tasks)
