"""Test that the Redis Streams transport loses no event, even if Redis loses or repeats entries."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import pytest
import structlog
from redis.asyncio import Redis

from markethall.local.valkey import EmbeddedValkey
from markethall.shared.composition.context_persistence import ContextPersistence
from markethall.shared.composition.memory import build_memory_persistence
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.errors import Unavailable
from markethall.shared.kernel.ids import new_id
from markethall.shared.messaging.context_worker import ContextWorker
from markethall.shared.messaging.event_signature import EventSigner, EventVerifier
from markethall.shared.messaging.events import Delivery, EventEnvelope, wrap_event
from markethall.shared.messaging.inbox import InboxConsumer, WorkerConfig
from markethall.shared.messaging.memory import MemoryOutbox
from markethall.shared.messaging.outbox import LeaderSession
from markethall.shared.messaging.outbox_relay import InProcessTransport, OutboxRelay
from markethall.shared.messaging.redis_stream_consumer import RedisStreamConsumer, StreamConfig
from markethall.shared.messaging.redis_stream_format import stream_name
from markethall.shared.messaging.redis_stream_publisher import RedisStreamPublisher
from markethall.shared.observability.metrics import STREAM_UNAVAILABLE
from markethall.shared.persistence.redis_client import RedisClient
from tests.shared.conftest import FakeClock, ProbeMemoryStore, ProbeTables, ThingHappened
from tests.shared.event_keys import event_signer, event_verifier, service_signer

HANDLER = "probe.on_thing_happened"
TYPES = frozenset({ThingHappened.type})
SIGNER = event_signer()
STREAM = stream_name("probe")
TEST_TIMEOUT = 30


class StreamSetup:
    """A publisher and a consumer, and direct access to the stream between them."""

    def __init__(self, redis_url: str, clock: FakeClock) -> None:
        self.backend: ContextPersistence[Any] = build_memory_persistence(
            ProbeTables(), ProbeMemoryStore, clock
        )
        self.clock = clock
        self.client = RedisClient(redis_url, timeout=30)
        # Any, because redis-py's types also cover RESP3 replies
        self.redis: Any = Redis.from_url(redis_url)
        self.publisher = RedisStreamPublisher("probe", {"probe": TYPES}, self.client, clock, SIGNER)
        self.relay = OutboxRelay("probe", [], clock, [self.publisher])
        self.inbox_transport = InProcessTransport(
            self.backend.inbox, {ThingHappened.type: [HANDLER]}
        )

    def consumer(
        self, inbox: Any = None, verifier: EventVerifier | None = None
    ) -> RedisStreamConsumer:
        inbox_transport = (
            InProcessTransport(inbox, {ThingHappened.type: [HANDLER]})
            if inbox
            else self.inbox_transport
        )
        config = StreamConfig(block_timeout=0.05, max_backoff=0.1)
        return RedisStreamConsumer(
            "probe",
            "probe",
            inbox_transport,
            inbox or self.backend.inbox,
            self.client,
            verifier or event_verifier(),
            config,
        )

    async def publish(self, ctx: CallContext, *events: ThingHappened) -> None:
        async with self.backend.database.transaction() as store:
            for event in events:
                await store.publish(event, ctx)

    async def relay_all(self, *, begin: bool = False) -> None:
        """Relay and reconcile once, as the leader does.

        If `begin` is true, reset the publisher and reconcile first, as a new leader does.
        """
        async with self.backend.outbox.acquire_leadership() as leader:
            assert leader is not None
            if begin:
                self.relay.reset_transports()
                await self.relay.reconcile(leader)
            await self.relay.relay_batch(leader, 1000)
            await self.relay.reconcile(leader)

    async def count_unconfirmed(self) -> int:
        async with self.backend.outbox.acquire_leadership() as leader:
            assert leader is not None
            return len(await leader.get_unconfirmed(0, 1000))

    async def arrived_numbers(self) -> list[int]:
        """Return the numbers of the inbox events, without dead letters, in order of arrival."""
        async with self.backend.database.write_transaction() as tables:
            rows = sorted(tables.inbox.rows(), key=lambda row: row.position)
        return [row.delivery.envelope.decode().number for row in rows if row.state != "dead"]

    async def wait_until_arrived(self, *numbers: int) -> None:
        async with asyncio.timeout(TEST_TIMEOUT):
            while sorted(await self.arrived_numbers()) != sorted(numbers):
                await asyncio.sleep(0.005)

    async def close(self) -> None:
        await self.client.close()
        await self.redis.aclose()


@asynccontextmanager
async def running_consumer(consumer: RedisStreamConsumer) -> AsyncIterator[None]:
    task = asyncio.create_task(consumer.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture(scope="module")
def flushable_redis_url() -> Iterator[str]:
    server = EmbeddedValkey()
    yield server.start()
    server.stop()


@pytest.fixture
async def stream_setup(flushable_redis_url: str, clock: FakeClock) -> AsyncIterator[StreamSetup]:
    stream_setup = StreamSetup(flushable_redis_url, clock)
    await stream_setup.redis.flushall()
    yield stream_setup
    await stream_setup.close()


def happened(number: int, thing: UUID | None = None) -> ThingHappened:
    return ThingHappened(thing=thing or new_id(), number=number)


def entry(event: ThingHappened, ctx: CallContext, clock: FakeClock) -> dict[str, str]:
    return signed(wrap_event(event, ctx, clock()).model_dump_json())


def signed(event: str, signer: EventSigner = SIGNER) -> dict[str, str]:
    return {"event": event, "signature": signer.sign(event.encode()).decode()}


# Loss of data in Redis


async def test_entries_published_before_subscription_are_consumed(
    stream_setup: StreamSetup, ctx: CallContext
) -> None:
    await stream_setup.publish(ctx, happened(1), happened(2))
    await stream_setup.relay_all(begin=True)

    async with running_consumer(stream_setup.consumer()):
        await stream_setup.wait_until_arrived(1, 2)


async def test_flushed_redis_gets_unconfirmed_events_again(
    stream_setup: StreamSetup, ctx: CallContext
) -> None:
    await stream_setup.relay_all(begin=True)
    await stream_setup.publish(ctx, happened(1), happened(2))
    await stream_setup.relay_all()
    await stream_setup.redis.flushall()

    await stream_setup.publish(ctx, happened(3))
    await stream_setup.relay_all()

    async with running_consumer(stream_setup.consumer()):
        await stream_setup.wait_until_arrived(1, 2, 3)
    assert await stream_setup.arrived_numbers() == [1, 2, 3]


async def test_flushed_redis_is_republished_without_new_events(
    stream_setup: StreamSetup, ctx: CallContext
) -> None:
    await stream_setup.relay_all(begin=True)
    await stream_setup.publish(ctx, happened(1))
    await stream_setup.relay_all()
    await stream_setup.redis.flushall()

    await stream_setup.relay_all()

    async with running_consumer(stream_setup.consumer()):
        await stream_setup.wait_until_arrived(1)


async def test_redis_that_lost_last_seconds_is_republished(
    stream_setup: StreamSetup, ctx: CallContext
) -> None:
    await stream_setup.relay_all(begin=True)
    await stream_setup.publish(ctx, happened(1))
    await stream_setup.relay_all()
    older = await stream_setup.redis.get(f"{STREAM}:marker")
    await stream_setup.publish(ctx, happened(2))
    await stream_setup.relay_all()
    (_, (last, _)) = await stream_setup.redis.xrange(STREAM)
    await stream_setup.redis.xdel(STREAM, last)
    await stream_setup.redis.set(f"{STREAM}:marker", older)

    await stream_setup.publish(ctx, happened(3))
    await stream_setup.relay_all()

    async with running_consumer(stream_setup.consumer()):
        await stream_setup.wait_until_arrived(1, 2, 3)
    assert await stream_setup.arrived_numbers() == [1, 2, 3]


class FlushingLeaderSession:
    """A leader session that reads one event at a time, and flushes Redis after the first."""

    def __init__(self, leader: Any, redis: Any) -> None:
        self._leader = leader
        self._redis = redis

    async def get_unconfirmed(self, after: int, _: int) -> Any:
        if after:
            await self._redis.flushall()
        return await self._leader.get_unconfirmed(after, 1)


async def test_flush_during_republish_is_repaired(
    stream_setup: StreamSetup, ctx: CallContext
) -> None:
    await stream_setup.publish(ctx, happened(1), happened(2))

    async with stream_setup.backend.outbox.acquire_leadership() as leader:
        assert leader is not None
        await stream_setup.relay.relay_batch(leader, 1000)
        flushing_leader: Any = FlushingLeaderSession(leader, stream_setup.redis)
        await stream_setup.relay.reconcile(flushing_leader)
        await stream_setup.relay.reconcile(leader)

    async with running_consumer(stream_setup.consumer()):
        await stream_setup.wait_until_arrived(1, 2)
    assert await stream_setup.arrived_numbers() == [1, 2]


async def test_next_leader_publishes_only_unconfirmed_events(
    stream_setup: StreamSetup, ctx: CallContext
) -> None:
    await stream_setup.relay_all(begin=True)
    await stream_setup.publish(ctx, happened(1))
    async with running_consumer(stream_setup.consumer()):
        await stream_setup.relay_all()
        await stream_setup.wait_until_arrived(1)
        await wait_until_confirmed(stream_setup)
    await stream_setup.publish(ctx, happened(2))
    await stream_setup.relay_all()

    await stream_setup.relay_all(begin=True)

    events = [fields[b"event"] for _, fields in await stream_setup.redis.xrange(STREAM)]
    decoded: list[Any] = [EventEnvelope.model_validate_json(event).decode() for event in events]
    numbers = [event.number for event in decoded]
    assert numbers == [2, 2]


async def wait_until_confirmed(stream_setup: StreamSetup) -> None:
    async with asyncio.timeout(TEST_TIMEOUT):
        while await stream_setup.count_unconfirmed():
            await stream_setup.relay_all()
            await asyncio.sleep(0.005)


# Trimming


async def test_nothing_is_trimmed_before_all_groups_consumed(
    stream_setup: StreamSetup, ctx: CallContext
) -> None:
    stream_setup.publisher = RedisStreamPublisher(
        "probe",
        {"probe": TYPES, "slow": TYPES},
        stream_setup.client,
        stream_setup.clock,
        SIGNER,
    )
    stream_setup.relay = OutboxRelay("probe", [], stream_setup.clock, [stream_setup.publisher])
    await stream_setup.relay_all(begin=True)
    await stream_setup.publish(ctx, happened(1), happened(2))
    await stream_setup.relay_all()
    async with running_consumer(stream_setup.consumer()):
        await stream_setup.wait_until_arrived(1, 2)
    await stream_setup.relay_all()
    before_slow_group = (
        await stream_setup.count_unconfirmed(),
        await stream_setup.redis.xlen(STREAM),
    )

    await stream_setup.redis.xgroup_create(STREAM, "slow", "0")
    ((_, ((first, _),)),) = await stream_setup.redis.xreadgroup(
        "slow", "one", {STREAM: ">"}, count=1
    )
    await stream_setup.relay_all()
    with_pending_entry = await stream_setup.redis.xlen(STREAM)
    await stream_setup.redis.xack(STREAM, "slow", first)
    await stream_setup.relay_all()

    assert before_slow_group == (2, 2)
    assert with_pending_entry == 2
    assert (await stream_setup.count_unconfirmed(), await stream_setup.redis.xlen(STREAM)) == (1, 1)


async def test_deleted_group_restarts_without_duplicate_effects(
    stream_setup: StreamSetup, ctx: CallContext
) -> None:
    await stream_setup.relay_all(begin=True)
    await stream_setup.publish(ctx, happened(1))
    await stream_setup.relay_all()
    async with running_consumer(stream_setup.consumer()):
        await stream_setup.wait_until_arrived(1)
        await stream_setup.redis.xgroup_destroy(STREAM, "probe")
        await stream_setup.publish(ctx, happened(2))
        await stream_setup.relay_all()

        await stream_setup.wait_until_arrived(1, 2)


# Entries of a dead consumer


async def test_entries_of_dead_consumer_keep_order(
    stream_setup: StreamSetup, ctx: CallContext, clock: FakeClock
) -> None:
    thing = new_id()
    await stream_setup.redis.xgroup_create(STREAM, "probe", "0", mkstream=True)
    await stream_setup.redis.xadd(STREAM, entry(happened(1, thing), ctx, clock))
    await stream_setup.redis.xreadgroup("probe", "dead consumer", {STREAM: ">"})
    await stream_setup.redis.xadd(STREAM, entry(happened(2, thing), ctx, clock))

    async with running_consumer(stream_setup.consumer()):
        await stream_setup.wait_until_arrived(1, 2)

    assert await stream_setup.arrived_numbers() == [1, 2]
    assert (await stream_setup.redis.xpending(STREAM, "probe"))["pending"] == 0


async def test_entry_rejected_by_inbox_is_not_acknowledged(
    stream_setup: StreamSetup, ctx: CallContext
) -> None:
    class UnavailableInbox:
        """An inbox whose database is unavailable for the first two calls."""

        def __init__(self) -> None:
            self.calls = 0

        async def enqueue(self, *given: Any) -> None:
            self.calls += 1
            if self.calls <= 2:
                raise Unavailable(dependency="postgres")
            await stream_setup.backend.inbox.enqueue(*given)

    await stream_setup.relay_all(begin=True)
    await stream_setup.publish(ctx, happened(1))
    await stream_setup.relay_all()
    unavailable_inbox = UnavailableInbox()

    async with running_consumer(stream_setup.consumer(unavailable_inbox)):
        await stream_setup.wait_until_arrived(1)
        await stream_setup.publish(ctx, happened(2))
        await stream_setup.relay_all()
        await stream_setup.wait_until_arrived(1, 2)

    assert unavailable_inbox.calls == 4
    assert await stream_setup.arrived_numbers() == [1, 2]


# Unreadable entries


async def test_unreadable_entry_is_dead_lettered(
    stream_setup: StreamSetup, ctx: CallContext, clock: FakeClock
) -> None:
    broken = wrap_event(happened(1), ctx, clock()).model_copy(update={"payload": '{"number": "x"}'})
    bad = [signed("{"), signed("[1]"), {"what": "\x00"}, signed(broken.model_dump_json())]
    for fields in bad:
        await stream_setup.redis.xadd(STREAM, fields)
    await stream_setup.redis.xadd(STREAM, entry(happened(5), ctx, clock))

    async with running_consumer(stream_setup.consumer()):
        await stream_setup.wait_until_arrived(5)
    # make the consumer read all entries again, as after a lost acknowledgement
    await stream_setup.redis.xgroup_setid(STREAM, "probe", "0")
    async with running_consumer(stream_setup.consumer()):
        async with asyncio.timeout(TEST_TIMEOUT):
            while (await stream_setup.redis.xinfo_groups(STREAM))[0]["lag"]:
                await asyncio.sleep(0.005)

    letters = await stream_setup.backend.inbox.get_dead_letters()
    assert len(letters) == 4
    assert {letter.handler for letter in letters} == {"probe.unreadable"}
    assert all("unreadable entry" in letter.error for letter in letters)


async def test_forged_entry_is_dead_lettered_and_never_handled(
    stream_setup: StreamSetup, ctx: CallContext, clock: FakeClock
) -> None:
    genuine, other = entry(happened(1), ctx, clock), entry(happened(2), ctx, clock)
    event, kid = genuine["event"], genuine["signature"][:43]
    not_of_the_probe = wrap_event(happened(3), ctx, clock()).model_copy(
        update={"type": "another.thing_happened"}
    )
    forged = {
        "unsigned": [
            {"event": event},
            {"event": event, "signature": ""},
            {"event": event, "signature": "0" * 64},
            {"event": event, "signature": f"{kid}."},
            {"event": event, "signature": f"{kid}.{'A' * 87}"},
        ],
        "invalid_signature": [
            {"event": event, "signature": other["signature"]},
            {"event": event, "signature": f"{kid}.{'A' * 86}"},
            # signed for another stream, with a key that is valid for both streams
            signed(event, event_signer("another", 1)),
            # signed with the key of another context, under the key id of the publisher
            {
                "event": event,
                "signature": f"{kid}{signed(event, event_signer('probe', 2))['signature'][43:]}",
            },
        ],
        "unknown_key": [signed(event, event_signer("probe", 2))],
        "other_publisher": [signed(not_of_the_probe.model_dump_json())],
    }
    for entries in forged.values():
        for fields in entries:
            await stream_setup.redis.xadd(STREAM, fields)
    await stream_setup.redis.xadd(STREAM, entry(happened(5), ctx, clock))

    with structlog.testing.capture_logs() as lines:
        async with running_consumer(stream_setup.consumer()):
            await stream_setup.wait_until_arrived(5)

    letters = await stream_setup.backend.inbox.get_dead_letters()
    expected = [reason for reason, entries in forged.items() for _ in entries]
    assert len(letters) == len(expected)
    rejected = [line for line in lines if line["event"] == "security.event_rejected"]
    assert [line["reason"] for line in rejected] == expected
    assert {(line["subject"], line["subscriber"]) for line in rejected} == {
        ("context:probe", "probe")
    }


class PublisherKeys:
    """The public keys of a publisher. It counts the fetches, and a test can make them fail."""

    def __init__(self, *seeds: int) -> None:
        self.seeds = seeds
        self.is_reachable = True
        self.fetches = 0
        self._key_set: Mapping[str, Any] = {"keys": []}

    def get_key_set(self) -> Mapping[str, Any]:
        return self._key_set

    def has_key(self, kid: str) -> bool:
        return kid in {key["kid"] for key in self._key_set["keys"]}

    async def refresh_for(self, kid: str) -> None:
        self.fetches += 1
        if not self.is_reachable:
            raise Unavailable(dependency="probe")
        self._key_set = service_signer(*self.seeds).jwks()


async def test_event_waits_while_the_keys_of_its_publisher_are_unavailable(
    stream_setup: StreamSetup, ctx: CallContext, clock: FakeClock
) -> None:
    keys = PublisherKeys(1)
    keys.is_reachable = False
    await stream_setup.redis.xadd(STREAM, entry(happened(1), ctx, clock))

    async with running_consumer(stream_setup.consumer(verifier=EventVerifier("probe", [keys]))):
        async with asyncio.timeout(TEST_TIMEOUT):
            while keys.fetches < 2:
                await asyncio.sleep(0.005)
        assert await stream_setup.arrived_numbers() == []
        assert await stream_setup.backend.inbox.get_dead_letters() == []
        keys.is_reachable = True
        await stream_setup.wait_until_arrived(1)

    assert await stream_setup.backend.inbox.get_dead_letters() == []


async def test_new_key_is_fetched_once_and_the_old_one_stays_valid(
    stream_setup: StreamSetup, ctx: CallContext, clock: FakeClock
) -> None:
    keys = PublisherKeys(1)
    old, new = event_signer("probe", 1), event_signer("probe", 2)

    def event(number: int) -> str:
        return wrap_event(happened(number), ctx, clock()).model_dump_json()

    async with running_consumer(stream_setup.consumer(verifier=EventVerifier("probe", [keys]))):
        await stream_setup.redis.xadd(STREAM, signed(event(1), old))
        await stream_setup.wait_until_arrived(1)
        keys.seeds = (2, 1)
        for number in range(2, 6):
            await stream_setup.redis.xadd(STREAM, signed(event(number), new))
        await stream_setup.redis.xadd(STREAM, signed(event(6), old))
        await stream_setup.wait_until_arrived(1, 2, 3, 4, 5, 6)

    assert keys.fetches == 2
    assert await stream_setup.backend.inbox.get_dead_letters() == []


async def test_entries_with_unknown_keys_cause_one_fetch_for_each_batch() -> None:
    keys = PublisherKeys(1)
    verifier = EventVerifier("probe", [keys])
    entries = [
        {b"event": b"{}", b"signature": event_signer("probe", seed).sign(b"{}")}
        for seed in range(2, 52)
    ]

    await verifier.fetch_unknown_keys(entries)

    assert keys.fetches == 1
    assert {verifier.find_defect(fields) for fields in entries} == {"unknown_key"}


async def test_replaced_key_loses_no_event(stream_setup: StreamSetup, ctx: CallContext) -> None:
    """A new leader publishes all unconfirmed events again, signed with its new key.

    The subscriber knows only the new key, and rejects the entry that the old key has signed.
    """
    await stream_setup.relay_all(begin=True)
    await stream_setup.publish(ctx, happened(1))
    await stream_setup.relay_all()
    stream_setup.publisher = RedisStreamPublisher(
        "probe", {"probe": TYPES}, stream_setup.client, stream_setup.clock, event_signer("probe", 2)
    )
    stream_setup.relay = OutboxRelay("probe", [], stream_setup.clock, [stream_setup.publisher])
    await stream_setup.relay_all(begin=True)

    async with running_consumer(stream_setup.consumer(verifier=event_verifier("probe", 2))):
        await wait_until_confirmed(stream_setup)

    assert await stream_setup.arrived_numbers() == [1]


async def test_forged_entry_confirms_nothing(stream_setup: StreamSetup, ctx: CallContext) -> None:
    await stream_setup.relay_all(begin=True)
    await stream_setup.publish(ctx, happened(1))
    await stream_setup.relay_all()
    ((_, fields),) = await stream_setup.redis.xrange(STREAM)
    await stream_setup.redis.xtrim(STREAM, maxlen=0)
    await stream_setup.redis.xadd(STREAM, {"event": fields[b"event"], "signature": "0" * 64})

    async with running_consumer(stream_setup.consumer()):
        async with asyncio.timeout(TEST_TIMEOUT):
            while not await stream_setup.backend.inbox.get_dead_letters():
                await asyncio.sleep(0.005)
    await stream_setup.relay_all()

    assert await stream_setup.count_unconfirmed() == 1


async def test_unknown_event_type_is_skipped(
    stream_setup: StreamSetup, ctx: CallContext, clock: FakeClock
) -> None:
    newer = wrap_event(happened(1), ctx, clock()).model_copy(update={"type": "probe.not_known_yet"})
    await stream_setup.redis.xadd(STREAM, signed(newer.model_dump_json()))
    await stream_setup.redis.xadd(STREAM, entry(happened(2), ctx, clock))

    async with running_consumer(stream_setup.consumer()):
        await stream_setup.wait_until_arrived(2)

    assert await stream_setup.backend.inbox.get_dead_letters() == []


# Redis unavailable


async def test_other_work_continues_without_redis(clock: FakeClock, ctx: CallContext) -> None:
    """In-process delivery, handlers and jobs continue. Events for the stream stay unconfirmed."""
    server = EmbeddedValkey()
    stream_setup = StreamSetup(server.start(), clock)
    server.stop()
    handled, job_runs = [], []
    leader_elections: list[bool] = []

    async def handle(delivery: Delivery, event: ThingHappened) -> None:
        async with stream_setup.backend.database.transaction() as store:
            assert await store.mark_processed(delivery)
        handled.append(event.number)

    async def job() -> None:
        job_runs.append(True)

    class CountingOutbox(MemoryOutbox):
        """Counts the elections of a leader."""

        @asynccontextmanager
        async def acquire_leadership(self) -> AsyncIterator[LeaderSession | None]:
            leader_elections.append(True)
            async with super().acquire_leadership() as leader:
                yield leader

    config = WorkerConfig(poll_interval=0.01, periodic_job_interval=0.01, reconcile_interval=0.01)
    relay = OutboxRelay("probe", [stream_setup.inbox_transport], clock, [stream_setup.publisher])
    consumer = InboxConsumer(stream_setup.backend.inbox, {HANDLER: handle}, clock, config)
    worker = ContextWorker(
        "probe",
        CountingOutbox(stream_setup.backend.database),
        relay,
        consumer,
        [job],
        config,
        [stream_setup.consumer()],
        outbox_signal=stream_setup.backend.outbox_signal,
        inbox_signal=stream_setup.backend.inbox_signal,
    )
    with structlog.testing.capture_logs() as logs:
        task = asyncio.create_task(worker.run())
        for number in range(150):
            await stream_setup.publish(ctx, happened(number))
        async with asyncio.timeout(TEST_TIMEOUT):
            while len(handled) < 150:
                await asyncio.sleep(0.005)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    assert sorted(handled) == list(range(150))
    assert job_runs
    assert len(leader_elections) == 1
    assert await stream_setup.count_unconfirmed() == 150
    warnings = [entry["event"] for entry in logs if entry["log_level"] == "warning"]
    assert sorted(warnings) == [
        "redis_stream.consume_unavailable",
        "redis_stream.publish_unavailable",
    ]
    for direction in ("publish", "consume"):
        assert STREAM_UNAVAILABLE.labels("probe", direction)._value.get() == 1
    await stream_setup.close()


async def test_two_transports_at_once_deliver_once(
    stream_setup: StreamSetup, ctx: CallContext
) -> None:
    thing = new_id()
    relay = stream_setup.relay = OutboxRelay(
        "probe", [stream_setup.inbox_transport], stream_setup.clock, [stream_setup.publisher]
    )
    await stream_setup.relay_all(begin=True)

    async with running_consumer(stream_setup.consumer()):
        for number in range(50):
            await stream_setup.publish(ctx, happened(number, thing))
            await stream_setup.relay_all()
        await wait_until_confirmed(stream_setup)

    assert relay is stream_setup.relay
    assert await stream_setup.arrived_numbers() == list(range(50))


async def test_idle_consumer_polls_rarely(stream_setup: StreamSetup) -> None:
    async def reads() -> int:
        stats = await stream_setup.redis.info("commandstats")
        return int(stats.get("cmdstat_xreadgroup", {"calls": 0})["calls"])

    earlier = await reads()
    async with running_consumer(stream_setup.consumer()):
        async with asyncio.timeout(TEST_TIMEOUT):
            while (before := await reads()) == earlier:
                await asyncio.sleep(0.005)
        await asyncio.sleep(0.5)
        calls = await reads() - before

    # each blocking read takes 0.05 s; a loop that does not block would read thousands of times
    assert calls <= 20


async def test_stopped_consumer_does_not_leak_reply(stream_setup: StreamSetup) -> None:
    for _ in range(10):
        async with running_consumer(stream_setup.consumer()):
            await asyncio.sleep(0)
        assert await stream_setup.client.execute("ECHO", "mine") == b"mine"
