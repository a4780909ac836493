"""One suite for both pipes, under a pipe that does everything a pipe may do wrong."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from redis.asyncio import Redis

from markethall.shared.backend import Backend
from markethall.shared.call import Call
from markethall.shared.clock import utc_now
from markethall.shared.errors import Unavailable
from markethall.shared.events import Delivery, DirectPipe, Envelope
from markethall.shared.ids import new_id
from markethall.shared.redis import RedisClient
from markethall.shared.steward import Pace, Processor, Relay, Steward
from markethall.shared.streams import Pace as StreamPace
from markethall.shared.streams import StreamPipe, StreamReader
from tests.shared.conftest import ThingHappened

HANDLER = "probe.note_thing"
PACE = Pace(poll=0.01, tend=0.05, retry_lead=0.01, batch=20)
KEYS, EACH = 10, 20
# less than the lease of a delivery: what was claimed and not begun is not waited for
PATIENCE = 25
FAULTS = ("well", "twice", "late", "half", "before", "after")


class ChaosPipe(DirectPipe):
    """Delivers twice, late, by halves, keys in any order; fails before, in the middle, after.

    `wild`: the events of one key in any order too, which no pipe of ours does.
    """

    def __init__(self, pipe: DirectPipe, seed: int, *, wild: bool = False) -> None:
        self._pipe = pipe
        self._chance = random.Random(seed)  # noqa: S311 - no secret
        self._wild = wild
        self._plan: list[str] = []
        self.done: dict[str, int] = {}

    def wants(self, envelope: Envelope) -> bool:
        return self._pipe.wants(envelope)

    async def send(self, envelopes: Sequence[Envelope]) -> None:
        mixed = self._mixed(envelopes)
        what = self._next()
        self.done[what] = self.done.get(what, 0) + 1
        if what == "before":
            raise Unavailable(dependency="chaos")
        if what == "late":
            await asyncio.sleep(self._chance.uniform(0, 0.01))
        await self._pipe.send(mixed[: len(mixed) // 2] if what == "half" else mixed)
        if what == "twice":
            await self._pipe.send(mixed)
        if what in {"half", "after"}:
            raise Unavailable(dependency="chaos")

    def _next(self) -> str:
        """All of it in turns, in no order that one could count on."""
        if not self._plan:
            self._plan = [*FAULTS]
            self._chance.shuffle(self._plan)
        return self._plan.pop()

    def _mixed(self, envelopes: Sequence[Envelope]) -> list[Envelope]:
        mixed = list(envelopes)
        self._chance.shuffle(mixed)
        if not self._wild:
            # the keys in any order, each key in its own
            waiting = {
                key: [e for e in envelopes if e.key == key] for key in {e.key for e in mixed}
            }
            mixed = [waiting[envelope.key].pop(0) for envelope in mixed]
        return mixed


class Traffic:
    """Publisher and listener, joined by the kind of pipe that a test asks for."""

    def __init__(self, backend: Backend[Any], redis: RedisClient) -> None:
        self.backend = backend
        self._redis = redis
        self.handled: list[tuple[str, int]] = []
        self.into = DirectPipe(backend.inbox, {ThingHappened.type: [HANDLER]})

    def steward(self, kind: str, chaos: ChaosPipe) -> Steward:
        streams, readers = [], []
        if kind != "direct":
            types = frozenset({ThingHappened.type})
            streams = [StreamPipe("probe", {"probe": types}, self._redis, utc_now)]
            pace = StreamPace(block=0.02, claim=0.1, stale=0.1, longest_wait=0.05, batch=10)
            readers = [StreamReader("probe", "probe", chaos, self.backend.inbox, self._redis, pace)]
        steward = Steward(
            "probe",
            self.backend.outbox,
            Relay("probe", [] if kind == "stream" else [chaos], utc_now, streams),
            Processor(self.backend.inbox, {HANDLER: self.note}, utc_now, PACE),
            [],
            PACE,
            readers,
        )
        self.into.wake = steward.wake_processor
        self.backend.database.on_publish = steward.wake
        return steward

    async def note(self, delivery: Delivery, event: ThingHappened) -> None:
        async with self.backend.database.transaction() as store:
            if await store.handled(delivery):
                await store.add(f"{event.thing}/{event.number}", event.number)
                self.handled.append((str(event.thing), event.number))

    async def publish(self, call: Call) -> None:
        """Of each key one after the other, the keys side by side."""

        async def of_one_key() -> None:
            thing = new_id()
            for number in range(EACH):
                async with self.backend.database.transaction() as store:
                    await store.publish(ThingHappened(thing=thing, number=number), call)
                await asyncio.sleep(0)

        await asyncio.gather(*(of_one_key() for _ in range(KEYS)))

    async def run(self, kind: str, chaos: ChaosPipe, call: Call) -> None:
        """Until all has been handled and nothing more comes."""
        task = asyncio.create_task(self.steward(kind, chaos).run())
        try:
            await self.publish(call)
            async with asyncio.timeout(PATIENCE):
                while len(self.handled) < KEYS * EACH:
                    await asyncio.sleep(0.01)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def effects(self) -> int:
        async with self.backend.database.reading() as store:
            count: int = await store.count()
            return count

    def in_order(self) -> bool:
        by_key: dict[str, list[int]] = {}
        for thing, number in self.handled:
            by_key.setdefault(thing, []).append(number)
        return all(numbers == sorted(numbers) for numbers in by_key.values())


@pytest.fixture
async def traffic(backend: Backend[Any], redis_url: str) -> AsyncIterator[Traffic]:
    redis = RedisClient(redis_url, timeout=10)
    own: Any = Redis.from_url(redis_url)
    await own.delete("markethall:events:probe", "markethall:events:probe:marker")
    await own.aclose()
    yield Traffic(backend, redis)
    await redis.close()


@pytest.mark.parametrize("kind", ["direct", "stream", "both"])
@pytest.mark.parametrize("seed", range(3))
async def test_under_chaos_each_event_has_its_effect_once_and_each_key_its_order(
    traffic: Traffic, call: Call, kind: str, seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    chaos = ChaosPipe(traffic.into, seed)

    await traffic.run(kind, chaos, call)

    with capsys.disabled():
        print(f"\n{kind}: {await traffic.effects()} effects of {KEYS * EACH} events, {chaos.done}")  # noqa: T201 - for the report
    assert await traffic.effects() == len(traffic.handled) == KEYS * EACH
    assert traffic.in_order()
    assert set(chaos.done) == set(FAULTS)


@pytest.mark.parametrize("kind", ["direct", "stream"])
async def test_even_where_a_key_loses_its_order_each_event_has_its_effect_once(
    traffic: Traffic, call: Call, kind: str
) -> None:
    await traffic.run(kind, ChaosPipe(traffic.into, 4711, wild=True), call)

    assert await traffic.effects() == len(traffic.handled) == KEYS * EACH
