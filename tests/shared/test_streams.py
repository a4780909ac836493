"""Streams: Redis may lose, keep and repeat whatever it likes; nothing is lost or done twice."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import pytest
from redis.asyncio import Redis

from markethall.local.valkey import EmbeddedValkey
from markethall.shared.backend import Backend
from markethall.shared.call import Call
from markethall.shared.errors import Unavailable
from markethall.shared.events import Delivery, DirectPipe, Envelope, sealed
from markethall.shared.ids import new_id
from markethall.shared.memory import memory_backend
from markethall.shared.redis import RedisClient
from markethall.shared.steward import Pace, Processor, Relay, Steward
from markethall.shared.streams import Pace as StreamPace
from markethall.shared.streams import StreamPipe, StreamReader, stream_of
from tests.shared.conftest import ProbeMemoryStore, ProbeTables, ThingHappened, Watch

HANDLER = "probe.note_thing"
TYPES = frozenset({ThingHappened.type})
STREAM = stream_of("probe")
PATIENCE = 30


class Place:
    """A publisher and a listener, with a stream between them that a test can get at."""

    def __init__(self, redis_url: str, watch: Watch) -> None:
        self.backend: Backend[Any] = memory_backend(ProbeTables(), ProbeMemoryStore, watch)
        self.watch = watch
        self.client = RedisClient(redis_url, timeout=30)
        # redis-py's types tell what RESP3 would answer as well
        self.redis: Any = Redis.from_url(redis_url)
        self.pipe = StreamPipe("probe", {"probe": TYPES}, self.client, watch)
        self.relay = Relay("probe", [], watch, [self.pipe])
        self.into = DirectPipe(self.backend.inbox, {ThingHappened.type: [HANDLER]})

    def reader(self, inbox: Any = None) -> StreamReader:
        into = DirectPipe(inbox, {ThingHappened.type: [HANDLER]}) if inbox else self.into
        pace = StreamPace(block=0.05, longest_wait=0.1)
        return StreamReader("probe", "probe", into, inbox or self.backend.inbox, self.client, pace)

    async def publish(self, call: Call, *events: ThingHappened) -> None:
        async with self.backend.database.transaction() as store:
            for event in events:
                await store.publish(event, call)

    async def relay_all(self, *, begin: bool = False) -> None:
        """As the leader does it, once."""
        async with self.backend.outbox.lead() as lead:
            assert lead is not None
            if begin:
                self.relay.begin()
                await self.relay.tend(lead)
            await self.relay.run_once(lead, 1000)
            await self.relay.tend(lead)

    async def unconfirmed(self) -> int:
        async with self.backend.outbox.lead() as lead:
            assert lead is not None
            return len(await lead.unconfirmed(0, 1000))

    async def arrived(self) -> list[int]:
        """The numbers of the things in the inbox, in the order that they came in."""
        async with self.backend.database.changing() as tables:
            rows = sorted(tables.inbox.rows(), key=lambda row: row.position)
        return [row.delivery.envelope.open().number for row in rows if row.state != "dead"]

    async def until_arrived(self, *numbers: int) -> None:
        async with asyncio.timeout(PATIENCE):
            while sorted(await self.arrived()) != sorted(numbers):
                await asyncio.sleep(0.005)

    async def close(self) -> None:
        await self.client.close()
        await self.redis.aclose()


@asynccontextmanager
async def reading(reader: StreamReader) -> AsyncIterator[None]:
    task = asyncio.create_task(reader.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture(scope="module")
def own_redis() -> Iterator[str]:
    server = EmbeddedValkey()
    yield server.start()
    server.stop()


@pytest.fixture
async def place(own_redis: str, watch: Watch) -> AsyncIterator[Place]:
    place = Place(own_redis, watch)
    await place.redis.flushall()
    yield place
    await place.close()


def happened(number: int, thing: UUID | None = None) -> ThingHappened:
    return ThingHappened(thing=thing or new_id(), number=number)


def entry(event: ThingHappened, call: Call, watch: Watch) -> dict[str, str]:
    return {"event": sealed(event, call, watch()).model_dump_json()}


# What Redis loses


async def test_what_was_sent_before_anybody_listened_is_heard(place: Place, call: Call) -> None:
    await place.publish(call, happened(1), happened(2))
    await place.relay_all(begin=True)

    async with reading(place.reader()):
        await place.until_arrived(1, 2)


async def test_a_wiped_redis_gets_again_what_nobody_has_confirmed(place: Place, call: Call) -> None:
    await place.relay_all(begin=True)
    await place.publish(call, happened(1), happened(2))
    await place.relay_all()
    await place.redis.flushall()

    await place.publish(call, happened(3))
    await place.relay_all()

    async with reading(place.reader()):
        await place.until_arrived(1, 2, 3)
    assert await place.arrived() == [1, 2, 3]


async def test_a_wiped_redis_gets_it_again_also_when_nothing_new_comes(
    place: Place, call: Call
) -> None:
    await place.relay_all(begin=True)
    await place.publish(call, happened(1))
    await place.relay_all()
    await place.redis.flushall()

    await place.relay_all()

    async with reading(place.reader()):
        await place.until_arrived(1)


async def test_a_redis_that_forgot_its_last_seconds_gets_them_again(
    place: Place, call: Call
) -> None:
    await place.relay_all(begin=True)
    await place.publish(call, happened(1))
    await place.relay_all()
    older = await place.redis.get(f"{STREAM}:marker")
    await place.publish(call, happened(2))
    await place.relay_all()
    (_, (last, _)) = await place.redis.xrange(STREAM)
    await place.redis.xdel(STREAM, last)
    await place.redis.set(f"{STREAM}:marker", older)

    await place.publish(call, happened(3))
    await place.relay_all()

    async with reading(place.reader()):
        await place.until_arrived(1, 2, 3)
    assert await place.arrived() == [1, 2, 3]


class Wiped:
    """A lead that reads one event at a time, and behind the first one Redis is wiped."""

    def __init__(self, lead: Any, redis: Any) -> None:
        self._lead = lead
        self._redis = redis

    async def unconfirmed(self, after: int, _: int) -> Any:
        if after:
            await self._redis.flushall()
        return await self._lead.unconfirmed(after, 1)


async def test_a_redis_that_is_wiped_while_it_gets_all_again_gets_all_of_it(
    place: Place, call: Call
) -> None:
    await place.publish(call, happened(1), happened(2))

    async with place.backend.outbox.lead() as lead:
        assert lead is not None
        await place.relay.run_once(lead, 1000)
        wiped: Any = Wiped(lead, place.redis)
        await place.relay.tend(wiped)
        await place.relay.tend(lead)

    async with reading(place.reader()):
        await place.until_arrived(1, 2)
    assert await place.arrived() == [1, 2]


async def test_the_next_leader_sends_only_what_is_not_confirmed(place: Place, call: Call) -> None:
    await place.relay_all(begin=True)
    await place.publish(call, happened(1))
    async with reading(place.reader()):
        await place.relay_all()
        await place.until_arrived(1)
        await until_confirmed(place)
    await place.publish(call, happened(2))
    await place.relay_all()

    await place.relay_all(begin=True)

    events = [fields[b"event"] for _, fields in await place.redis.xrange(STREAM)]
    numbers = [Envelope.model_validate_json(event).open().number for event in events]  # type: ignore[attr-defined]
    assert numbers == [2, 2]


async def until_confirmed(place: Place) -> None:
    async with asyncio.timeout(PATIENCE):
        while await place.unconfirmed():
            await place.relay_all()
            await asyncio.sleep(0.005)


# What the slowest has not taken stays


async def test_nothing_is_forgotten_before_every_group_has_taken_it(
    place: Place, call: Call
) -> None:
    place.pipe = StreamPipe("probe", {"probe": TYPES, "slow": TYPES}, place.client, place.watch)
    place.relay = Relay("probe", [], place.watch, [place.pipe])
    await place.relay_all(begin=True)
    await place.publish(call, happened(1), happened(2))
    await place.relay_all()
    async with reading(place.reader()):
        await place.until_arrived(1, 2)
    await place.relay_all()
    without_the_slow = (await place.unconfirmed(), await place.redis.xlen(STREAM))

    await place.redis.xgroup_create(STREAM, "slow", "0")
    ((_, ((first, _),)),) = await place.redis.xreadgroup("slow", "one", {STREAM: ">"}, count=1)
    await place.relay_all()
    while_it_holds_the_first = await place.redis.xlen(STREAM)
    await place.redis.xack(STREAM, "slow", first)
    await place.relay_all()

    assert without_the_slow == (2, 2)
    assert while_it_holds_the_first == 2
    assert (await place.unconfirmed(), await place.redis.xlen(STREAM)) == (1, 1)


async def test_a_group_that_was_deleted_begins_anew_and_nothing_happens_twice(
    place: Place, call: Call
) -> None:
    await place.relay_all(begin=True)
    await place.publish(call, happened(1))
    await place.relay_all()
    async with reading(place.reader()):
        await place.until_arrived(1)
        await place.redis.xgroup_destroy(STREAM, "probe")
        await place.publish(call, happened(2))
        await place.relay_all()

        await place.until_arrived(1, 2)


# What a reader has left behind


async def test_what_a_dead_reader_has_taken_is_not_overtaken(
    place: Place, call: Call, watch: Watch
) -> None:
    thing = new_id()
    await place.redis.xgroup_create(STREAM, "probe", "0", mkstream=True)
    await place.redis.xadd(STREAM, entry(happened(1, thing), call, watch))
    await place.redis.xreadgroup("probe", "somebody who died", {STREAM: ">"})
    await place.redis.xadd(STREAM, entry(happened(2, thing), call, watch))

    async with reading(place.reader()):
        await place.until_arrived(1, 2)

    assert await place.arrived() == [1, 2]
    assert (await place.redis.xpending(STREAM, "probe"))["pending"] == 0


async def test_what_the_inbox_did_not_take_is_not_acknowledged_and_not_overtaken(
    place: Place, call: Call
) -> None:
    class Away:
        """The database of the listener: away the first two times."""

        def __init__(self) -> None:
            self.asked = 0

        async def accept(self, *given: Any) -> None:
            self.asked += 1
            if self.asked <= 2:
                raise Unavailable(dependency="postgres")
            await place.backend.inbox.accept(*given)

    await place.relay_all(begin=True)
    await place.publish(call, happened(1))
    await place.relay_all()
    away = Away()

    async with reading(place.reader(away)):
        await place.until_arrived(1)
        await place.publish(call, happened(2))
        await place.relay_all()
        await place.until_arrived(1, 2)

    assert away.asked == 4
    assert await place.arrived() == [1, 2]


# What nobody can read


async def test_what_nobody_can_read_is_one_dead_letter_and_stops_nothing(
    place: Place, call: Call, watch: Watch
) -> None:
    broken = sealed(happened(1), call, watch()).model_copy(update={"payload": '{"number": "x"}'})
    bad = [{"event": "{"}, {"event": "[1]"}, {"what": "\x00"}, {"event": broken.model_dump_json()}]
    for fields in bad:
        await place.redis.xadd(STREAM, fields)
    await place.redis.xadd(STREAM, entry(happened(5), call, watch))

    async with reading(place.reader()):
        await place.until_arrived(5)
    # once more, as after a lost acknowledgement
    await place.redis.xgroup_setid(STREAM, "probe", "0")
    async with reading(place.reader()):
        async with asyncio.timeout(PATIENCE):
            while (await place.redis.xinfo_groups(STREAM))[0]["lag"]:
                await asyncio.sleep(0.005)

    letters = await place.backend.inbox.dead()
    assert len(letters) == 4
    assert {letter.handler for letter in letters} == {"probe.unreadable"}
    assert all("unreadable entry" in letter.error for letter in letters)


async def test_an_event_of_a_type_that_nobody_here_knows_is_passed_over(
    place: Place, call: Call, watch: Watch
) -> None:
    newer = sealed(happened(1), call, watch()).model_copy(update={"type": "probe.not_known_yet"})
    await place.redis.xadd(STREAM, {"event": newer.model_dump_json()})
    await place.redis.xadd(STREAM, entry(happened(2), call, watch))

    async with reading(place.reader()):
        await place.until_arrived(2)

    assert await place.backend.inbox.dead() == []


# Redis away


async def test_without_redis_all_else_goes_on(watch: Watch, call: Call) -> None:
    """Direct delivery, handlers, sweeps, the lead; and what the stream missed comes later."""
    server = EmbeddedValkey()
    place = Place(server.start(), watch)
    server.stop()
    handled, swept, led = [], [], []

    async def note(delivery: Delivery, event: ThingHappened) -> None:
        async with place.backend.database.transaction() as store:
            assert await store.handled(delivery)
        handled.append(event.number)

    async def sweep() -> None:
        swept.append(True)

    class Outbox:
        """Counts how often somebody had to take the lead."""

        @asynccontextmanager
        async def lead(self) -> AsyncIterator[Any]:
            led.append(True)
            async with place.backend.outbox.lead() as lead:
                yield lead

        async def purge(self, before: Any) -> int:
            return await place.backend.outbox.purge(before)

    pace = Pace(poll=0.01, sweep=0.01, tend=0.01)
    relay = Relay("probe", [place.into], watch, [place.pipe])
    processor = Processor(place.backend.inbox, {HANDLER: note}, watch, pace)
    steward = Steward("probe", Outbox(), relay, processor, [sweep], pace, [place.reader()])
    place.into.wake = steward.wake_processor
    task = asyncio.create_task(steward.run())

    for number in range(150):
        await place.publish(call, happened(number))
    async with asyncio.timeout(PATIENCE):
        while len(handled) < 150:
            await asyncio.sleep(0.005)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    assert sorted(handled) == list(range(150))
    assert swept
    assert len(led) == 1
    assert await place.unconfirmed() == 150
    await place.close()


async def test_both_pipes_at_once_are_as_one(place: Place, call: Call) -> None:
    thing = new_id()
    relay = place.relay = Relay("probe", [place.into], place.watch, [place.pipe])
    await place.relay_all(begin=True)

    async with reading(place.reader()):
        for number in range(50):
            await place.publish(call, happened(number, thing))
            await place.relay_all()
        await until_confirmed(place)

    assert relay is place.relay
    assert await place.arrived() == list(range(50))


async def test_who_has_nothing_to_do_asks_redis_seldom(place: Place) -> None:
    async def reads() -> int:
        stats = await place.redis.info("commandstats")
        return int(stats.get("cmdstat_xreadgroup", {"calls": 0})["calls"])

    earlier = await reads()
    async with reading(place.reader()):
        async with asyncio.timeout(PATIENCE):
            while (before := await reads()) == earlier:
                await asyncio.sleep(0.005)
        await asyncio.sleep(0.5)
        asked = await reads() - before

    # one blocked read after the other, each of 0.05 s: a loop that does not block asks thousands
    assert asked <= 20


async def test_a_reader_that_is_ended_leaves_no_answer_to_the_next_command(place: Place) -> None:
    for _ in range(10):
        async with reading(place.reader()):
            await asyncio.sleep(0)
        assert await place.client.run("ECHO", "mine") == b"mine"
