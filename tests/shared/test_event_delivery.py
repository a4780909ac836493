"""Test each event transport with injected faults: every event is applied exactly once."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from redis.asyncio import Redis

from markethall.shared.composition.context_persistence import ContextPersistence
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.clock import utc_now
from markethall.shared.kernel.errors import Unavailable
from markethall.shared.kernel.ids import new_id
from markethall.shared.messaging.context_worker import ContextWorker
from markethall.shared.messaging.events import Delivery, EventEnvelope
from markethall.shared.messaging.inbox import InboxConsumer, WorkerConfig
from markethall.shared.messaging.outbox_relay import InProcessTransport, OutboxRelay
from markethall.shared.messaging.redis_stream_consumer import RedisStreamConsumer, StreamConfig
from markethall.shared.messaging.redis_stream_publisher import RedisStreamPublisher
from markethall.shared.persistence.redis_client import RedisClient
from tests.progress import progress_limit
from tests.shared.conftest import ThingHappened
from tests.shared.event_keys import event_signer, event_verifier

HANDLER = "probe.on_thing_happened"
WORKER_CONFIG = WorkerConfig(
    poll_interval=0.01, reconcile_interval=0.05, leader_retry_interval=0.01, relay_batch_size=20
)
KEY_COUNT, EVENTS_PER_KEY = 10, 20
# in seconds; below the delivery lease of 30 s, so that a test fails if it handles an event only
# after a lease has expired
TEST_TIMEOUT = 25
FAULTS = ("none", "twice", "late", "half", "before", "after")


class ChaosTransport(InProcessTransport):
    """A transport that delivers batches of events with faults.

    It delivers a batch late, twice, or only its first half, and raises an error before, during or
    after a delivery. In each batch it mixes the events of different keys. If `shuffles_keys` is
    true, it also changes the order of the events of one key, which no real transport does.
    """

    def __init__(
        self, transport: InProcessTransport, seed: int, *, shuffles_keys: bool = False
    ) -> None:
        self._transport = transport
        self._rng = random.Random(seed)
        self._shuffles_keys = shuffles_keys
        self._plan: list[str] = []
        self.fault_counts: dict[str, int] = {}

    def accepts(self, envelope: EventEnvelope) -> bool:
        return self._transport.accepts(envelope)

    async def deliver(self, envelopes: Sequence[EventEnvelope]) -> None:
        shuffled = self._shuffle(envelopes)
        fault = self._next_fault()
        self.fault_counts[fault] = self.fault_counts.get(fault, 0) + 1
        if fault == "before":
            raise Unavailable(dependency="chaos")
        if fault == "late":
            await asyncio.sleep(self._rng.uniform(0, 0.01))
        await self._transport.deliver(
            shuffled[: len(shuffled) // 2] if fault == "half" else shuffled
        )
        if fault == "twice":
            await self._transport.deliver(shuffled)
        if fault in {"half", "after"}:
            raise Unavailable(dependency="chaos")

    def _next_fault(self) -> str:
        """Return the next fault. Each round has every fault once, in random order."""
        if not self._plan:
            self._plan = [*FAULTS]
            self._rng.shuffle(self._plan)
        return self._plan.pop()

    def _shuffle(self, envelopes: Sequence[EventEnvelope]) -> list[EventEnvelope]:
        shuffled = list(envelopes)
        self._rng.shuffle(shuffled)
        if not self._shuffles_keys:
            # restore the order of the events of each key
            waiting = {
                key: [e for e in envelopes if e.key == key] for key in {e.key for e in shuffled}
            }
            shuffled = [waiting[envelope.key].pop(0) for envelope in shuffled]
        return shuffled


class Traffic:
    """A publisher and a subscriber. A test chooses the kind of transport between them."""

    def __init__(self, backend: ContextPersistence[Any], redis: RedisClient) -> None:
        self.backend = backend
        self._redis = redis
        self.handled: list[tuple[str, int]] = []
        self.inbox_transport = InProcessTransport(
            backend.inbox, {ThingHappened.type: [HANDLER]}, backend.inbox_signal.set
        )

    def build_worker(self, kind: str, chaos: ChaosTransport) -> ContextWorker:
        publishers, consumers = [], []
        if kind != "direct":
            types = frozenset({ThingHappened.type})
            publishers = [
                RedisStreamPublisher(
                    "probe", {"probe": types}, self._redis, utc_now, event_signer()
                )
            ]
            config = StreamConfig(
                block_timeout=0.02,
                claim_interval=0.1,
                stale_after=0.1,
                max_backoff=0.05,
                batch_size=10,
            )
            consumers = [
                RedisStreamConsumer(
                    "probe",
                    "probe",
                    chaos,
                    self.backend.inbox,
                    self._redis,
                    event_verifier(),
                    config,
                )
            ]
        return ContextWorker(
            "probe",
            self.backend.outbox,
            OutboxRelay("probe", [] if kind == "stream" else [chaos], utc_now, publishers),
            InboxConsumer(self.backend.inbox, {HANDLER: self.handle}, utc_now, WORKER_CONFIG),
            [],
            WORKER_CONFIG,
            consumers,
            outbox_signal=self.backend.outbox_signal,
            inbox_signal=self.backend.inbox_signal,
        )

    async def handle(self, delivery: Delivery, event: ThingHappened) -> None:
        async with self.backend.database.transaction() as store:
            if await store.mark_processed(delivery):
                await store.add(f"{event.thing}/{event.number}", event.number)
                self.handled.append((str(event.thing), event.number))

    async def publish(self, ctx: CallContext) -> None:
        """Publish the events of each key in order, all keys concurrently."""

        async def publish_one_key() -> None:
            thing = new_id()
            for number in range(EVENTS_PER_KEY):
                async with self.backend.database.transaction() as store:
                    await store.publish(ThingHappened(thing=thing, number=number), ctx)
                await asyncio.sleep(0)

        await asyncio.gather(*(publish_one_key() for _ in range(KEY_COUNT)))

    async def run(self, kind: str, chaos: ChaosTransport, ctx: CallContext) -> None:
        """Publish all events, and run the worker until the subscriber has handled them.

        Raises TimeoutError after TEST_TIMEOUT seconds without progress.
        """
        task = asyncio.create_task(self.build_worker(kind, chaos).run())
        try:
            await self.publish(ctx)
            async with progress_limit(TEST_TIMEOUT) as limit:
                while len(self.handled) < KEY_COUNT * EVENTS_PER_KEY:
                    limit.note(len(self.handled))
                    await asyncio.sleep(0.01)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def effects(self) -> int:
        async with self.backend.database.read_session() as store:
            count: int = await store.count()
            return count

    def in_order(self) -> bool:
        by_key: dict[str, list[int]] = {}
        for thing, number in self.handled:
            by_key.setdefault(thing, []).append(number)
        return all(numbers == sorted(numbers) for numbers in by_key.values())


@pytest.fixture
async def traffic(backend: ContextPersistence[Any], redis_url: str) -> AsyncIterator[Traffic]:
    redis = RedisClient(redis_url, timeout=10)
    redis_admin: Any = Redis.from_url(redis_url)
    await redis_admin.delete("markethall:events:probe", "markethall:events:probe:marker")
    await redis_admin.aclose()
    yield Traffic(backend, redis)
    await redis.close()


@pytest.mark.parametrize("kind", ["direct", "stream", "both"])
@pytest.mark.parametrize("seed", range(3))
async def test_under_faults_each_event_applies_once_in_key_order(
    traffic: Traffic, ctx: CallContext, kind: str, seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    chaos = ChaosTransport(traffic.inbox_transport, seed)

    await traffic.run(kind, chaos, ctx)

    with capsys.disabled():
        print(f"\n{kind}: faults {chaos.fault_counts}")
    assert await traffic.effects() == len(traffic.handled) == KEY_COUNT * EVENTS_PER_KEY
    assert traffic.in_order()
    assert set(chaos.fault_counts) == set(FAULTS)


@pytest.mark.parametrize("kind", ["direct", "stream"])
async def test_without_key_order_each_event_still_applies_once(
    traffic: Traffic, ctx: CallContext, kind: str
) -> None:
    await traffic.run(kind, ChaosTransport(traffic.inbox_transport, 4711, shuffles_keys=True), ctx)

    assert await traffic.effects() == len(traffic.handled) == KEY_COUNT * EVENTS_PER_KEY
