"""Test a real Valkey that is stopped, paused, disconnected, slow, flushed and restarted.

During a fault, every read and every rate limit still gives a correct result within a short time.
After the fault, the clients recover without a restart.
"""

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import pytest

from markethall.local.valkey import EmbeddedValkey
from markethall.shared.cache import open_cache
from markethall.shared.cache.invalidation_bus import InvalidationBus
from markethall.shared.cache.keys import Invalidation
from markethall.shared.cache.redis_cache import RedisCache, TombstoneChannel
from markethall.shared.http.rate_limits import LimitResult, RateLimit, RedisHitCounter
from markethall.shared.kernel.circuit_breaker import Breaker
from markethall.shared.observability.metrics import REGISTRY
from markethall.shared.persistence.redis_client import LuaScript, RedisClient, RedisUnavailable
from tests.shared.cache_fixtures import Source

FAILURES = 3
LONG_TIMEOUT = 30.0  # seconds; for commands that must succeed even on a slow machine
SHORT_TIMEOUT = 0.05  # seconds; for commands that must time out, because Valkey does not reply
POLICY = RateLimit("test", quota=5, window_seconds=3600)


class FakeClock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class PausableProxy:
    """A TCP proxy that can hold replies or cut connections.

    `commands` is the number of data chunks that it has read from clients.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self.connections = 0
        self.commands = 0
        self.command_sent = asyncio.Event()
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

    async def wait_for_commands(self, commands: int) -> None:
        while self.commands < commands:
            self.command_sent.clear()
            await self.command_sent.wait()

    def hold(self) -> None:
        """Hold replies until `open` is set."""
        self.command_sent.clear()
        self.open.clear()

    def cut(self) -> None:
        while self._writers:
            self._writers.pop().transport.abort()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.append(writer)
        try:
            server_streams = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            writer.close()
            return
        self._writers.append(server_streams[1])
        await asyncio.gather(
            self._forward_commands(reader, server_streams[1]),
            self._forward_replies(server_streams[0], writer),
        )

    async def _forward_commands(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                self.commands += 1
                self.command_sent.set()
                writer.write(data)
        writer.close()

    async def _forward_replies(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                await self.open.wait()
                writer.write(data)
        writer.close()


class RedisSetup:
    """A server, a proxy in front of it, and the clients of one process."""

    def __init__(self, server: EmbeddedValkey) -> None:
        self.server = server
        self.clock = FakeClock()
        self._server_url = server.start()
        self.proxy = PausableProxy(_port(self._server_url))
        self._clients: list[RedisClient] = []

    async def open(self) -> None:
        proxy_port = _port(await self.proxy.start())
        self.url = self._server_url.replace(f":{_port(self._server_url)}/", f":{proxy_port}/")
        self.redis = self.client(connections=1)
        self.bus = InvalidationBus(TombstoneChannel(self.redis))
        self.cache = RedisCache(self.redis, self.bus.is_pending)
        self.limiter = RedisHitCounter(self.redis)

    async def close(self) -> None:
        self.resume()
        for client in self._clients:
            await client.close()
        await self.proxy.close()
        self.server.start()

    def client(self, *, connections: int = 16) -> RedisClient:
        """Build the client of another process. Its breaker uses the clock of the test."""
        breaker = Breaker(self.clock, failure_threshold=FAILURES, cool_down_seconds=1)
        created = RedisClient(
            self.url, timeout=LONG_TIMEOUT, max_connections=connections, breaker=breaker
        )
        self._clients.append(created)
        return created

    def other_cache(self) -> RedisCache:
        """Build the cache of another process, which has no pending invalidations."""
        client = self.client()
        return RedisCache(client, InvalidationBus(TombstoneChannel(client)).is_pending)

    def stop(self) -> None:
        self.server.stop()

    def start(self) -> None:
        self.proxy.port = _port(self.server.start())

    def pause(self) -> None:
        self._signal(signal.SIGSTOP)
        self.redis.timeout = SHORT_TIMEOUT

    def resume(self) -> None:
        self._signal(signal.SIGCONT)
        self.redis.timeout = LONG_TIMEOUT

    def slow_down(self) -> None:
        self.proxy.hold()
        self.redis.timeout = SHORT_TIMEOUT

    def speed_up(self) -> None:
        self.proxy.open.set()
        self.redis.timeout = LONG_TIMEOUT

    def inject(self, fault: str) -> None:
        {"gone": self.stop, "paused": self.pause, "slow": self.slow_down}[fault]()

    def repair(self, fault: str) -> None:
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
    created = EmbeddedValkey()
    yield created
    created.stop()


@pytest.fixture
async def redis_setup(server: EmbeddedValkey) -> AsyncIterator[RedisSetup]:
    created = RedisSetup(server)
    await created.open()
    await created.redis.execute("FLUSHALL")
    yield created
    await created.close()


# The client


async def test_connection_is_lazy(redis_setup: RedisSetup) -> None:
    before = redis_setup.proxy.connections
    client = redis_setup.client()
    open_cache("on", client)
    RedisHitCounter(client)
    assert redis_setup.proxy.connections == before

    assert await client.ping()
    assert redis_setup.proxy.connections == before + 1


async def test_connection_sends_only_its_login_before_the_command(
    redis_setup: RedisSetup,
) -> None:
    before = redis_setup.proxy.commands

    await redis_setup.client().execute("ECHO", "x")

    assert redis_setup.proxy.commands == before + 2


@pytest.mark.parametrize("fault", FAULTS)
async def test_every_failure_is_unavailable(redis_setup: RedisSetup, fault: str) -> None:
    await redis_setup.redis.execute("SET", "a", "1")
    redis_setup.inject(fault)

    for _ in range(FAILURES + 2):
        with pytest.raises(RedisUnavailable):
            await redis_setup.redis.execute("GET", "a")
    assert not await redis_setup.redis.ping()

    redis_setup.repair(fault)
    assert await redis_setup.redis.ping()
    assert redis_setup.redis.breaker.state == "closed"


async def test_wrong_type_error_does_not_open_circuit(redis_setup: RedisSetup) -> None:
    await redis_setup.redis.execute("RPUSH", "list", "1")

    for _ in range(FAILURES + 2):
        with pytest.raises(RedisUnavailable):
            await redis_setup.redis.execute("GET", "list")

    assert redis_setup.redis.breaker.state == "closed"


async def test_non_redis_server_is_unavailable() -> None:
    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    client = RedisClient(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}")

    with pytest.raises(RedisUnavailable):
        await client.execute("GET", "a")

    await client.close()
    server.close()
    await server.wait_closed()


async def test_connection_cut_during_command_is_unavailable(redis_setup: RedisSetup) -> None:
    redis_setup.proxy.hold()
    command = asyncio.create_task(redis_setup.redis.execute("ECHO", "x"))
    await redis_setup.proxy.command_sent.wait()
    redis_setup.proxy.cut()

    with pytest.raises(RedisUnavailable):
        await command

    redis_setup.proxy.open.set()
    assert await redis_setup.redis.execute("ECHO", "x") == b"x"


async def test_dead_idle_connection_is_replaced(
    redis_setup: RedisSetup,
) -> None:
    await redis_setup.redis.execute("ECHO", "x")
    connections: Any = redis_setup.redis._connections
    redis = connections._redis
    (idle,) = redis.connection_pool._available_connections
    redis_setup.proxy.cut()
    async with asyncio.timeout(LONG_TIMEOUT):
        while not (idle._reader.at_eof() or idle._reader.exception()):
            await asyncio.sleep(0)  # wait until the client has received the end of the connection

    assert await redis_setup.redis.execute("ECHO", "x") == b"x"


async def test_missing_and_closed_redis_are_unavailable(redis_setup: RedisSetup) -> None:
    client = redis_setup.client()
    await client.execute("ECHO", "x")
    await client.close()

    for unavailable in (client, RedisClient(None), RedisClient("")):
        with pytest.raises(RedisUnavailable):
            await unavailable.execute("ECHO", "x")
        with pytest.raises(RedisUnavailable):
            await unavailable.run_script(LuaScript("return 1"), [])
        assert not await unavailable.ping()
        assert not unavailable.is_configured
        await unavailable.close()


async def test_missing_script_is_reloaded(redis_setup: RedisSetup) -> None:
    script = LuaScript("return {KEYS[1], ARGV[1]}")
    for _ in range(2):
        assert await redis_setup.redis.run_script(script, ["k"], 7) == [b"k", b"7"]

        await redis_setup.redis.execute("SCRIPT", "FLUSH")

    assert redis_setup.redis.breaker.state == "closed"


@pytest.mark.parametrize("fault", FAULTS)
async def test_circuit_opens_after_three_failures(redis_setup: RedisSetup, fault: str) -> None:
    redis_setup.inject(fault)
    before = redis_setup.proxy.commands + redis_setup.proxy.connections

    for _ in range(1000):
        with pytest.raises(RedisUnavailable):
            await redis_setup.redis.execute("GET", "a")
    attempts = redis_setup.proxy.commands + redis_setup.proxy.connections - before

    assert attempts <= 2 * FAILURES
    redis_setup.repair(fault)


async def test_one_probe_at_time(redis_setup: RedisSetup) -> None:
    client = redis_setup.client()
    redis_setup.stop()
    for _ in range(FAILURES):
        with pytest.raises(RedisUnavailable):
            await client.execute("ECHO", "x")
    redis_setup.start()
    redis_setup.proxy.hold()
    redis_setup.clock.now += 1
    before = redis_setup.proxy.commands

    probe = asyncio.create_task(client.execute("ECHO", "x"))
    await redis_setup.proxy.command_sent.wait()
    for _ in range(10):
        with pytest.raises(RedisUnavailable):
            await client.execute("ECHO", "x")
    redis_setup.proxy.open.set()

    assert await probe == b"x"
    assert redis_setup.proxy.commands == before + 2  # one for the login, and one for the command
    assert await client.execute("ECHO", "x") == b"x"


# replies belong to their commands


async def test_cancelled_command_does_not_leak_reply(redis_setup: RedisSetup) -> None:
    await redis_setup.redis.execute("MSET", "a", "answer a", "b", "answer b")
    before = redis_setup.proxy.connections
    redis_setup.proxy.hold()
    cancelled = asyncio.create_task(redis_setup.redis.execute("GET", "a"))
    await redis_setup.proxy.command_sent.wait()

    cancelled.cancel()
    await asyncio.wait([cancelled])
    redis_setup.proxy.open.set()

    assert cancelled.cancelled()
    assert await redis_setup.redis.execute("GET", "b") == b"answer b"
    assert redis_setup.proxy.connections == before + 1
    assert redis_setup.redis.breaker.state == "closed"


async def test_timed_out_command_does_not_leak_reply(
    redis_setup: RedisSetup,
) -> None:
    await redis_setup.redis.execute("MSET", "a", "answer a", "b", "answer b")
    redis_setup.slow_down()
    with pytest.raises(RedisUnavailable):
        await redis_setup.redis.execute("GET", "a")

    redis_setup.speed_up()

    assert await redis_setup.redis.execute("GET", "b") == b"answer b"


@pytest.mark.parametrize("connections", [1, 4])
async def test_cancel_at_any_step_keeps_replies_and_connections(
    redis_setup: RedisSetup, connections: int
) -> None:
    client, rng = redis_setup.client(connections=connections), random.Random(7)
    keys = [str(number) for number in range(50)]
    await client.execute("MSET", *(word for key in keys for word in (key, f"answer {key}")))

    async def ask(key: str) -> None:
        assert await client.execute("GET", key) == f"answer {key}".encode()

    for _ in range(20):
        tasks = [asyncio.create_task(ask(key)) for key in keys]
        for task in rng.sample(tasks, 25):
            for _ in range(rng.randrange(4)):
                await asyncio.sleep(0)
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} <= {type(None), asyncio.CancelledError}

    redis_setup.proxy.hold()
    last = [asyncio.create_task(ask(key)) for key in keys[:connections]]
    before = redis_setup.proxy.commands
    await redis_setup.proxy.wait_for_commands(before + connections)
    redis_setup.proxy.open.set()
    await asyncio.gather(*last)


# The cache


async def get(cache: RedisCache, source: Source, key: str = "a") -> bytes | None:
    return await cache.get_or_load("s", key, 60, source.load)


@pytest.mark.parametrize("fault", FAULTS)
async def test_loader_answers_while_redis_is_unavailable(
    redis_setup: RedisSetup, fault: str
) -> None:
    source = Source()
    await get(redis_setup.cache, source)
    redis_setup.inject(fault)
    source.value = b"new"

    async with asyncio.timeout(LONG_TIMEOUT):
        answers = {await get(redis_setup.cache, source) for _ in range(100)}

    assert answers == {b"new"}
    assert source.loads == 101
    redis_setup.repair(fault)


@pytest.mark.parametrize("fault", FAULTS)
async def test_hundred_concurrent_misses_load_once_while_redis_is_unavailable(
    redis_setup: RedisSetup, fault: str
) -> None:
    client = redis_setup.client()
    cache, source = open_cache("on", client), Source()
    redis_setup.inject(fault)
    client.timeout = SHORT_TIMEOUT
    for number in range(FAILURES):
        await cache.get_or_load("s", str(number), 60, Source().load)

    calls = (cache.get_or_load("s", "a", 60, source.load) for _ in range(100))
    answers = await asyncio.gather(*calls)

    assert set(answers) == {b"old"}
    assert source.loads == 1
    redis_setup.repair(fault)
    await cache.close()


@pytest.mark.parametrize("fault", FAULTS)
async def test_cache_recovers_by_itself(redis_setup: RedisSetup, fault: str) -> None:
    source = Source()
    redis_setup.inject(fault)
    for _ in range(10):
        await get(redis_setup.cache, source)
    redis_setup.repair(fault)
    source.loads = 0

    for _ in range(10):
        assert await get(redis_setup.cache, source) == b"old"

    assert source.loads == 1


async def test_lookups_without_redis_are_counted_as_unavailable(redis_setup: RedisSetup) -> None:
    redis_setup.stop()

    for _ in range(5):
        await redis_setup.cache.get_or_load("counted", "a", 60, Source().load)

    labels = {"cache": "counted", "outcome": "unavailable"}
    assert REGISTRY.get_sample_value("markethall_cache_total", labels) == 5
    redis_setup.start()


async def test_flushed_redis_is_refilled(redis_setup: RedisSetup) -> None:
    source = Source()
    await get(redis_setup.cache, source)
    source.value = b"new"

    await redis_setup.redis.execute("FLUSHALL")

    assert await get(redis_setup.cache, source) == b"new"
    assert await get(redis_setup.cache, source) == b"new"
    assert source.loads == 2


@pytest.mark.parametrize("flush_at", ["before the invalidation", "after the invalidation"])
async def test_flush_during_load_does_not_store_stale_value(
    redis_setup: RedisSetup, flush_at: str
) -> None:
    other, source = redis_setup.other_cache(), Source()

    async def slow_load() -> bytes | None:
        value = await source.load()
        source.value = b"new"
        if flush_at == "before the invalidation":
            await redis_setup.redis.execute("FLUSHALL")
        redis_setup.bus.publish([("s", "a")])
        await redis_setup.bus.flush()
        if flush_at == "after the invalidation":
            await redis_setup.redis.execute("FLUSHALL")
        return value

    assert await other.get_or_load("s", "a", 60, slow_load) == b"old"

    for cache in (redis_setup.cache, other):
        assert await get(cache, source) == b"new"


async def test_restarted_redis_is_used_again(redis_setup: RedisSetup) -> None:
    source = Source()
    await get(redis_setup.cache, source)

    redis_setup.stop()
    redis_setup.start()

    answers = [await get(redis_setup.cache, source) for _ in range(5)]
    assert answers == [b"old"] * 5
    assert source.loads <= 3
    assert redis_setup.redis.breaker.state == "closed"


@pytest.mark.parametrize("fault", ["paused", "slow"])
@pytest.mark.parametrize("key", ["a", None], ids=["key", "namespace"])
async def test_invalidation_while_redis_is_unavailable_holds_when_it_is_back(
    redis_setup: RedisSetup, fault: str, key: str | None
) -> None:
    other, source = redis_setup.other_cache(), Source()
    await get(other, source)
    redis_setup.inject(fault)
    source.value = b"new"
    redis_setup.bus.publish([("s", key)])
    await redis_setup.bus.flush()

    redis_setup.repair(fault)

    assert await get(redis_setup.cache, source) == b"new"
    await redis_setup.bus.flush()
    assert await get(other, source) == b"new"


class NoListener:
    def on_invalidated(self, invalidations: Collection[Invalidation]) -> None:
        pass

    def on_connection_changed(self, connected: bool) -> None:
        pass


@pytest.mark.parametrize("fault", ["paused", "slow"])
@pytest.mark.parametrize("others", [0, 3000])
async def test_invalidation_is_sent_in_background_until_it_succeeds(
    redis_setup: RedisSetup, fault: str, others: int
) -> None:
    other, source = redis_setup.other_cache(), Source()
    await get(other, source)
    redis_setup.inject(fault)
    source.value = b"new"
    redis_setup.bus.publish([("s", str(number)) for number in range(others)])
    redis_setup.bus.publish([("s", "a")])
    for _ in range(FAILURES):
        await redis_setup.bus.flush()
    listening = asyncio.create_task(redis_setup.bus.listen(NoListener()))

    redis_setup.repair(fault)

    async with asyncio.timeout(LONG_TIMEOUT):
        while await get(other, source) != b"new":
            await asyncio.sleep(0.01)  # the poll interval
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)


async def test_key_that_is_invalidated_again_while_it_is_sent_is_sent_again(
    redis_setup: RedisSetup,
) -> None:
    await redis_setup.redis.execute("ECHO", "x")
    redis_setup.proxy.hold()
    redis_setup.bus.publish([("s", "a"), ("s", "b")])
    sending = asyncio.create_task(redis_setup.bus.flush())
    await redis_setup.proxy.command_sent.wait()
    assert redis_setup.bus.is_pending(("s", "b"))
    redis_setup.bus.publish([("s", "a")])

    redis_setup.proxy.open.set()
    await sending

    assert redis_setup.bus.is_pending(("s", "a"))
    assert not redis_setup.bus.is_pending(("s", "b"))


async def test_store_that_paused_server_executes_late_does_not_undo_invalidation(
    redis_setup: RedisSetup,
) -> None:
    other, source = redis_setup.other_cache(), Source()

    async def load_and_pause() -> bytes | None:
        value = await source.load()
        redis_setup.pause()
        return value

    await redis_setup.redis.execute("ECHO", "x")
    redis_setup.redis.timeout = SHORT_TIMEOUT
    assert await redis_setup.cache.get_or_load("s", "a", 60, load_and_pause) == b"old"
    source.value = b"new"
    redis_setup.bus.publish([("s", "a")])
    await redis_setup.bus.flush()

    redis_setup.repair("paused")

    assert await get(redis_setup.cache, source) == b"new"
    await redis_setup.bus.flush()
    for cache in (redis_setup.cache, other):
        assert await get(cache, source) == b"new"


# Rate limits


async def hits(
    limiter: RedisHitCounter, count: int, client_id: str = "client-1"
) -> list[LimitResult]:
    return [await limiter.hit(POLICY, client_id) for _ in range(count)]


@pytest.mark.parametrize("fault", FAULTS)
async def test_process_limit_applies_while_redis_is_unavailable(
    redis_setup: RedisSetup, fault: str
) -> None:
    redis_setup.inject(fault)

    async with asyncio.timeout(LONG_TIMEOUT):
        results = await hits(redis_setup.limiter, 100)

    assert [result.allowed for result in results] == [True] * 5 + [False] * 95
    redis_setup.repair(fault)


@pytest.mark.parametrize("fault", FAULTS)
async def test_shared_counters_resume_with_redis(redis_setup: RedisSetup, fault: str) -> None:
    redis_setup.inject(fault)
    await hits(redis_setup.limiter, 10, "client-2")

    redis_setup.repair(fault)
    other_limiter = RedisHitCounter(redis_setup.client())
    results = [*await hits(redis_setup.limiter, 2), *await hits(other_limiter, 5)]

    assert [result.allowed for result in results] == [True] * 5 + [False] * 2


async def test_flushed_redis_resets_counters(redis_setup: RedisSetup) -> None:
    await hits(redis_setup.limiter, 10)

    await redis_setup.redis.execute("FLUSHALL")
    await redis_setup.redis.execute("SCRIPT", "FLUSH")

    assert [result.allowed for result in await hits(redis_setup.limiter, 6)] == [True] * 5 + [False]


async def test_restarted_redis_resets_counters(redis_setup: RedisSetup) -> None:
    await hits(redis_setup.limiter, 10)

    redis_setup.stop()
    redis_setup.start()
    await hits(redis_setup.limiter, 1)

    assert redis_setup.redis.breaker.state == "closed"
    assert not (await hits(RedisHitCounter(redis_setup.client()), 6))[-1].allowed
