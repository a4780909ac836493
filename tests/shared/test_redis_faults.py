"""A real Valkey that is stopped, paused, cut off, slow, wiped and restarted.

Nothing but speed may be lost: every fetch and hit is answered, rightly and soon, and all heals.
"""

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import pytest

from markethall.local.valkey import EmbeddedValkey
from markethall.shared.breaker import Breaker
from markethall.shared.cache import RedisCache
from markethall.shared.limits import Policy, RedisLimiter, Verdict
from markethall.shared.metrics import REGISTRY
from markethall.shared.redis import RedisAway, RedisClient, Script

FAILURES = 3
PATIENT = 30.0  # seconds, for what must work on a slow machine too; what takes longer hangs
IMPATIENT = 0.05
POLICY = Policy("test", amount=5, per=3600)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Line:
    """The wire to a server: counts what goes through it, and the test can hold or cut it."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.connections = 0
        self.commands = 0
        self.asked = asyncio.Event()
        self.open = asyncio.Event()
        self.open.set()
        self._writers: list[asyncio.StreamWriter] = []

    async def start(self) -> str:
        self._server = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        return f"redis://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/0"

    async def close(self) -> None:
        self._server.close()
        self.open.set()
        self.cut()
        await self._server.wait_closed()

    async def has_carried(self, commands: int) -> None:
        while self.commands < commands:
            self.asked.clear()
            await self.asked.wait()

    def hold(self) -> None:
        """Answers stay on the wire until `open` is set."""
        self.asked.clear()
        self.open.clear()

    def cut(self) -> None:
        while self._writers:
            self._writers.pop().transport.abort()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.append(writer)
        try:
            there = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            writer.close()
            return
        self._writers.append(there[1])
        await asyncio.gather(self._ask(reader, there[1]), self._answer(there[0], writer))

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while words := await reader.read(65536):
                self.commands += 1
                self.asked.set()
                writer.write(words)
        writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while words := await reader.read(65536):
                await self.open.wait()
                writer.write(words)
        writer.close()


class Plant:
    """A server, the line to it, and one process's view of it through that line."""

    def __init__(self, server: EmbeddedValkey) -> None:
        self.server = server
        self.clock = Clock()
        self.line = Line(_port(server.start()))
        self._clients: list[RedisClient] = []

    async def open(self) -> None:
        self.url = await self.line.start()
        self.redis = self.client(connections=1)
        self.cache = RedisCache(self.redis, pay_every=0.01)
        self.limiter = RedisLimiter(self.redis)

    async def close(self) -> None:
        self.resume()
        await self.cache.close()
        for client in self._clients:
            await client.close()
        await self.line.close()
        self.server.start()

    def client(self, *, connections: int = 16) -> RedisClient:
        """As of another process. A clock that only the test moves: no probe by chance."""
        breaker = Breaker(self.clock, failures=FAILURES, cool_down=1)
        made = RedisClient(self.url, timeout=PATIENT, connections=connections, breaker=breaker)
        self._clients.append(made)
        return made

    def stop(self) -> None:
        self.server.stop()

    def start(self) -> None:
        self.line.port = _port(self.server.start())

    def pause(self) -> None:
        self._signal(signal.SIGSTOP)
        self.redis.timeout = IMPATIENT

    def resume(self) -> None:
        self._signal(signal.SIGCONT)
        self.redis.timeout = PATIENT

    def slow_down(self) -> None:
        self.line.hold()
        self.redis.timeout = IMPATIENT

    def speed_up(self) -> None:
        self.line.open.set()
        self.redis.timeout = PATIENT

    def break_by(self, fault: str) -> None:
        {"gone": self.stop, "paused": self.pause, "slow": self.slow_down}[fault]()

    def mend(self, fault: str) -> None:
        {"gone": self.start, "paused": self.resume, "slow": self.speed_up}[fault]()
        self.clock.now += 1

    def _signal(self, number: signal.Signals) -> None:
        if self.server.pid is not None:
            os.kill(self.server.pid, number)


FAULTS = ["gone", "paused", "slow"]


def _port(url: str) -> int:
    return urlsplit(url).port or 0


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedValkey]:
    made = EmbeddedValkey()
    yield made
    made.stop()


@pytest.fixture
async def plant(server: EmbeddedValkey) -> AsyncIterator[Plant]:
    made = Plant(server)
    await made.open()
    await made.redis.run("FLUSHALL")
    yield made
    await made.close()


class Shelf:
    """The truth behind the cache."""

    def __init__(self) -> None:
        self.value = b"old"
        self.asked = 0

    async def load(self) -> bytes | None:
        self.asked += 1
        await asyncio.sleep(0)
        return self.value


# the client


async def test_nothing_connects_before_the_first_command(plant: Plant) -> None:
    before = plant.line.connections
    client = plant.client()
    RedisCache(client)
    RedisLimiter(client)
    assert plant.line.connections == before

    assert await client.ping()
    assert plant.line.connections == before + 1


async def test_a_connection_costs_no_greeting(plant: Plant) -> None:
    before = plant.line.commands

    await plant.client().run("ECHO", "x")

    assert plant.line.commands == before + 1


@pytest.mark.parametrize("fault", FAULTS)
async def test_every_failure_is_away(plant: Plant, fault: str) -> None:
    await plant.redis.run("SET", "a", "1")
    plant.break_by(fault)

    for _ in range(FAILURES + 2):
        with pytest.raises(RedisAway):
            await plant.redis.run("GET", "a")
    assert not await plant.redis.ping()

    plant.mend(fault)
    assert await plant.redis.ping()
    assert plant.redis.breaker.state == "closed"


async def test_a_wrong_type_is_away_but_no_reason_to_stop_asking(plant: Plant) -> None:
    await plant.redis.run("RPUSH", "list", "1")

    for _ in range(FAILURES + 2):
        with pytest.raises(RedisAway):
            await plant.redis.run("GET", "list")

    assert plant.redis.breaker.state == "closed"


async def test_something_that_does_not_speak_the_protocol_is_away() -> None:
    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    client = RedisClient(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}")

    with pytest.raises(RedisAway):
        await client.run("GET", "a")

    await client.close()
    server.close()
    await server.wait_closed()


async def test_a_line_that_is_cut_in_the_middle_of_a_command_is_away(plant: Plant) -> None:
    plant.line.hold()
    command = asyncio.create_task(plant.redis.run("ECHO", "x"))
    await plant.line.asked.wait()
    plant.line.cut()

    with pytest.raises(RedisAway):
        await command

    plant.line.open.set()
    assert await plant.redis.run("ECHO", "x") == b"x"


async def test_a_connection_that_died_while_idle_is_replaced_without_a_failure(
    plant: Plant,
) -> None:
    await plant.redis.run("ECHO", "x")
    redis: Any = plant.redis._redis
    (idle,) = redis.connection_pool._available_connections
    plant.line.cut()
    async with asyncio.timeout(PATIENT):
        while not (idle._reader.at_eof() or idle._reader.exception()):
            await asyncio.sleep(0)  # the news of it travels through the kernel

    assert await plant.redis.run("ECHO", "x") == b"x"


async def test_no_redis_and_a_closed_one_are_away(plant: Plant) -> None:
    client = plant.client()
    await client.run("ECHO", "x")
    await client.close()

    for away in (client, RedisClient(None), RedisClient("")):
        with pytest.raises(RedisAway):
            await away.run("ECHO", "x")
        with pytest.raises(RedisAway):
            await away.run_script(Script("return 1"), [])
        assert not await away.ping()
        assert not away.configured
        await away.close()


async def test_a_server_that_forgot_a_script_gets_it_again(plant: Plant) -> None:
    script = Script("return {KEYS[1], ARGV[1]}")
    for _ in range(2):
        assert await plant.redis.run_script(script, ["k"], 7) == [b"k", b"7"]

        await plant.redis.run("SCRIPT", "FLUSH")

    assert plant.redis.breaker.state == "closed"


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_dead_redis_is_asked_three_times_and_then_left_alone(
    plant: Plant, fault: str
) -> None:
    plant.break_by(fault)
    before = plant.line.commands + plant.line.connections

    for _ in range(1000):
        with pytest.raises(RedisAway):
            await plant.redis.run("GET", "a")
    tried = plant.line.commands + plant.line.connections - before

    assert tried <= 2 * FAILURES
    plant.mend(fault)


async def test_one_probe_at_a_time_asks_whether_it_is_back(plant: Plant) -> None:
    client = plant.client()
    plant.stop()
    for _ in range(FAILURES):
        with pytest.raises(RedisAway):
            await client.run("ECHO", "x")
    plant.start()
    plant.line.hold()
    plant.clock.now += 1
    before = plant.line.commands

    probe = asyncio.create_task(client.run("ECHO", "x"))
    await plant.line.asked.wait()
    for _ in range(10):
        with pytest.raises(RedisAway):
            await client.run("ECHO", "x")
    plant.line.open.set()

    assert await probe == b"x"
    assert plant.line.commands == before + 1
    assert await client.run("ECHO", "x") == b"x"


# a reply belongs to the command that asked


async def test_a_cancelled_command_does_not_hand_its_answer_to_the_next(plant: Plant) -> None:
    await plant.redis.run("MSET", "a", "answer a", "b", "answer b")
    before = plant.line.connections
    plant.line.hold()
    given_up = asyncio.create_task(plant.redis.run("GET", "a"))
    await plant.line.asked.wait()

    given_up.cancel()
    await asyncio.wait([given_up])
    plant.line.open.set()

    assert given_up.cancelled()
    assert await plant.redis.run("GET", "b") == b"answer b"
    assert plant.line.connections == before + 1
    assert plant.redis.breaker.state == "closed"


async def test_a_command_that_timed_out_does_not_hand_its_answer_to_the_next(
    plant: Plant,
) -> None:
    await plant.redis.run("MSET", "a", "answer a", "b", "answer b")
    plant.slow_down()
    with pytest.raises(RedisAway):
        await plant.redis.run("GET", "a")

    plant.speed_up()

    assert await plant.redis.run("GET", "b") == b"answer b"


@pytest.mark.parametrize("connections", [1, 4])
async def test_cancelled_at_any_step_no_answer_is_mixed_up_and_no_connection_lost(
    plant: Plant, connections: int
) -> None:
    client, dice = plant.client(connections=connections), random.Random(7)  # noqa: S311
    keys = [str(number) for number in range(50)]
    await client.run("MSET", *(word for key in keys for word in (key, f"answer {key}")))

    async def ask(key: str) -> None:
        assert await client.run("GET", key) == f"answer {key}".encode()

    for _ in range(20):
        tasks = [asyncio.create_task(ask(key)) for key in keys]
        for task in dice.sample(tasks, 25):
            for _ in range(dice.randrange(4)):
                await asyncio.sleep(0)
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} <= {type(None), asyncio.CancelledError}

    plant.line.hold()
    last = [asyncio.create_task(ask(key)) for key in keys[:connections]]
    before = plant.line.commands
    await plant.line.has_carried(before + connections)
    plant.line.open.set()
    await asyncio.gather(*last)


# the cache


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_fetch_is_answered_by_the_load_while_redis_is_away(
    plant: Plant, fault: str
) -> None:
    shelf = Shelf()
    await plant.cache.fetch("s", "a", 60, shelf.load)
    plant.break_by(fault)
    shelf.value = b"new"

    async with asyncio.timeout(PATIENT):
        answers = {await plant.cache.fetch("s", "a", 60, shelf.load) for _ in range(100)}

    assert answers == {b"new"}
    assert shelf.asked == 101
    plant.mend(fault)


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_stampede_on_a_dead_redis_is_still_one_load(plant: Plant, fault: str) -> None:
    client = plant.client()
    cache, shelf = RedisCache(client), Shelf()
    plant.break_by(fault)
    client.timeout = IMPATIENT
    for _ in range(FAILURES):
        await cache.fetch("s", "other", 60, shelf.load)
    shelf.asked = 0

    answers = await asyncio.gather(*(cache.fetch("s", "a", 60, shelf.load) for _ in range(100)))

    assert set(answers) == {b"old"}
    assert shelf.asked == 1
    plant.mend(fault)
    await cache.close()


@pytest.mark.parametrize("fault", FAULTS)
async def test_the_cache_heals_by_itself(plant: Plant, fault: str) -> None:
    shelf = Shelf()
    plant.break_by(fault)
    for _ in range(10):
        await plant.cache.fetch("s", "a", 60, shelf.load)
    plant.mend(fault)
    shelf.asked = 0

    for _ in range(10):
        assert await plant.cache.fetch("s", "a", 60, shelf.load) == b"old"

    assert shelf.asked == 1


async def test_lookups_without_redis_are_counted_as_away(plant: Plant) -> None:
    plant.stop()

    for _ in range(5):
        await plant.cache.fetch("counted", "a", 60, Shelf().load)

    labels = {"cache": "counted", "outcome": "away"}
    assert REGISTRY.get_sample_value("markethall_cache_total", labels) == 5
    plant.start()


async def test_a_wiped_redis_fills_again(plant: Plant) -> None:
    shelf = Shelf()
    await plant.cache.fetch("s", "a", 60, shelf.load)
    shelf.value = b"new"

    await plant.redis.run("FLUSHALL")

    assert await plant.cache.fetch("s", "a", 60, shelf.load) == b"new"
    assert await plant.cache.fetch("s", "a", 60, shelf.load) == b"new"
    assert shelf.asked == 2


@pytest.mark.parametrize("wipe", ["before the forget", "after the forget"])
async def test_a_wipe_during_a_load_does_not_let_the_old_value_in(plant: Plant, wipe: str) -> None:
    other, shelf = RedisCache(plant.client()), Shelf()

    async def slow_load() -> bytes | None:
        value = await shelf.load()
        shelf.value = b"new"
        if wipe == "before the forget":
            await plant.redis.run("FLUSHALL")
        await other.forget("s", ["a"])
        if wipe == "after the forget":
            await plant.redis.run("FLUSHALL")
        return value

    assert await plant.cache.fetch("s", "a", 60, slow_load) == b"old"

    for cache in (plant.cache, other):
        assert await cache.fetch("s", "a", 60, shelf.load) == b"new"
    await other.close()


async def test_a_restarted_redis_is_used_again(plant: Plant) -> None:
    shelf = Shelf()
    await plant.cache.fetch("s", "a", 60, shelf.load)

    plant.stop()
    plant.start()

    answers = [await plant.cache.fetch("s", "a", 60, shelf.load) for _ in range(5)]
    assert answers == [b"old"] * 5
    assert shelf.asked <= 3
    assert plant.redis.breaker.state == "closed"


@pytest.mark.parametrize("fault", ["paused", "slow"])
@pytest.mark.parametrize("what", ["key", "space"])
async def test_what_was_forgotten_while_redis_was_away_is_not_read_when_it_is_back(
    plant: Plant, fault: str, what: str
) -> None:
    elsewhere, shelf = RedisCache(plant.client()), Shelf()
    await elsewhere.fetch("s", "a", 60, shelf.load)
    plant.break_by(fault)
    shelf.value = b"new"
    await (plant.cache.forget("s", ["a"]) if what == "key" else plant.cache.forget_space("s"))

    plant.mend(fault)

    assert await plant.cache.fetch("s", "a", 60, shelf.load) == b"new"
    assert await elsewhere.fetch("s", "a", 60, shelf.load) == b"new"


@pytest.mark.parametrize("fault", ["paused", "slow"])
@pytest.mark.parametrize("others", [FAILURES, 3000])
async def test_what_was_forgotten_is_told_without_another_fetch_here(
    plant: Plant, fault: str, others: int
) -> None:
    elsewhere, shelf = RedisCache(plant.client()), Shelf()
    await elsewhere.fetch("s", "a", 60, shelf.load)
    plant.break_by(fault)
    shelf.value = b"new"
    for number in range(others):
        await plant.cache.forget("s", [str(number)])
    await plant.cache.forget("s", ["a"])

    plant.mend(fault)

    async with asyncio.timeout(PATIENT):
        while await elsewhere.fetch("s", "a", 60, shelf.load) != b"new":
            await asyncio.sleep(0.01)  # nobody but Redis knows


async def test_a_value_that_a_paused_server_takes_late_does_not_win_over_a_forget(
    plant: Plant,
) -> None:
    elsewhere, shelf = RedisCache(plant.client()), Shelf()

    async def load_and_pause() -> bytes | None:
        value = await shelf.load()
        plant.pause()
        return value

    await plant.redis.run("ECHO", "x")
    plant.redis.timeout = IMPATIENT
    assert await plant.cache.fetch("s", "a", 60, load_and_pause) == b"old"
    shelf.value = b"new"
    await plant.cache.forget("s", ["a"])

    plant.mend("paused")

    for cache in (plant.cache, elsewhere):
        assert await cache.fetch("s", "a", 60, shelf.load) == b"new"


# rate limits


async def hits(limiter: RedisLimiter, count: int, who: str = "somebody") -> list[Verdict]:
    return [await limiter.hit(POLICY, who) for _ in range(count)]


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_limit_holds_in_the_process_while_redis_is_away(plant: Plant, fault: str) -> None:
    plant.break_by(fault)

    async with asyncio.timeout(PATIENT):
        verdicts = await hits(plant.limiter, 100)

    assert [verdict.allowed for verdict in verdicts] == [True] * 5 + [False] * 95
    plant.mend(fault)


@pytest.mark.parametrize("fault", FAULTS)
async def test_when_redis_is_back_processes_count_together_again(plant: Plant, fault: str) -> None:
    plant.break_by(fault)
    await hits(plant.limiter, 10, "somebody else")

    plant.mend(fault)
    elsewhere = RedisLimiter(plant.client())
    verdicts = [*await hits(plant.limiter, 2), *await hits(elsewhere, 5)]

    assert [verdict.allowed for verdict in verdicts] == [True] * 5 + [False] * 2


async def test_a_wiped_redis_counts_anew(plant: Plant) -> None:
    await hits(plant.limiter, 10)

    await plant.redis.run("FLUSHALL")
    await plant.redis.run("SCRIPT", "FLUSH")

    assert [verdict.allowed for verdict in await hits(plant.limiter, 6)] == [True] * 5 + [False]


async def test_a_restarted_redis_counts_anew(plant: Plant) -> None:
    await hits(plant.limiter, 10)

    plant.stop()
    plant.start()
    await hits(plant.limiter, 1)

    assert plant.redis.breaker.state == "closed"
    assert not (await hits(RedisLimiter(plant.client()), 6))[-1].allowed
