"""Test that each event is applied once, in order, although publishers and consumers are killed."""

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg
import pytest
from redis.asyncio import Redis

from markethall.local.valkey import EmbeddedValkey
from markethall.shared.composition.sql import build_sql_persistence
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.clock import utc_now
from markethall.shared.kernel.ids import new_id
from markethall.shared.persistence.postgres import Postgres
from tests.conftest import plain
from tests.progress import progress_limit
from tests.shared.conftest import STATEMENTS, ProbeSqlStore, ThingHappened

IS_FULL_RUN = os.environ.get("MARKETHALL_TEST_SCOPE") == "full"
EVENTS, KILLS = (2000, 20) if IS_FULL_RUN else (300, 4)
KEYS = 20
TEST_TIMEOUT = 120

DONE = "SELECT count(*) FROM probe.inbox WHERE state = 'done'"
EFFECTS = "SELECT count(*) FROM probe.thing"
OUT_OF_ORDER = """
SELECT count(*) FROM (
  SELECT source_seq < lag(source_seq) OVER (PARTITION BY key ORDER BY done_at) AS back
  FROM probe.inbox) AS steps WHERE back
"""
UNCONFIRMED = "SELECT count(*) FROM probe.outbox WHERE confirmed_at IS NULL"


@dataclass
class ConsumerProcesses:
    """Two processes that publish and consume. One of them is the leader."""

    database_url: str
    redis_url: str
    log: Path
    running: "list[subprocess.Popen[bytes]]" = field(default_factory=list)
    kills: int = 0

    def start(self) -> None:
        with self.log.open("ab") as output:
            command = [sys.executable, "-m", "tests.shared.stream_consumer_process"]
            process = subprocess.Popen(
                [*command, self.database_url, self.redis_url],
                env={**os.environ, "PYTHONPATH": f"src{os.pathsep}."},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self.running.append(process)

    def kill_one(self, rng: random.Random) -> None:
        """Kill one of the two processes at random, and start another."""
        process = self.running.pop(rng.randrange(len(self.running)))
        process.send_signal(signal.SIGKILL)
        process.wait()
        self.kills += 1
        self.start()

    def stop(self) -> None:
        for process in self.running:
            process.kill()
            process.wait()


@pytest.fixture
def flushable_redis_url() -> Iterator[str]:
    """The URL of a Valkey that only this module uses, because the tests flush it."""
    server = EmbeddedValkey()
    yield server.start()
    server.stop()


@pytest.fixture
async def connection(probe_url: str) -> "AsyncIterator[asyncpg.Connection[asyncpg.Record]]":
    connection = await asyncpg.connect(plain(probe_url))
    yield connection
    await connection.close()


@pytest.fixture
def consumers(
    probe_url: str, flushable_redis_url: str, tmp_path: Path
) -> Iterator[ConsumerProcesses]:
    consumers = ConsumerProcesses(probe_url, flushable_redis_url, tmp_path / "consumers.log")
    for _ in range(2):
        consumers.start()
    yield consumers
    consumers.stop()


async def publish(postgres: Postgres, ctx: CallContext, count: int) -> None:
    """Publish the events of each key in order, all keys concurrently."""
    backend = build_sql_persistence(postgres, STATEMENTS, ProbeSqlStore, utc_now)

    async def publish_one_key() -> None:
        thing = new_id()
        for number in range(count // KEYS):
            async with backend.database.transaction() as store:
                await store.publish(ThingHappened(thing=thing, number=number), ctx)

    await asyncio.gather(*(publish_one_key() for _ in range(KEYS)))


async def wait_until_done(
    connection: "asyncpg.Connection[asyncpg.Record]", consumers: ConsumerProcesses, count: int
) -> None:
    try:
        async with progress_limit(TEST_TIMEOUT) as limit:
            while (done := await connection.fetchval(DONE)) < count:
                limit.note(done)
                await asyncio.sleep(0.01)
    except TimeoutError:
        done = await connection.fetchval(DONE)
        raise AssertionError(f"{done} of {count}: {consumers.log.read_text()[-3000:]}") from None


async def test_after_any_kill_each_event_applies_once_in_key_order(
    probe: Postgres,
    connection: "asyncpg.Connection[asyncpg.Record]",
    consumers: ConsumerProcesses,
    ctx: CallContext,
    capsys: pytest.CaptureFixture[str],
) -> None:
    rng = random.Random(20261121)
    publishing = asyncio.create_task(publish(probe, ctx, EVENTS))

    for kill in range(KILLS):
        await wait_until_done(
            connection, consumers, kill * EVENTS // (KILLS + 1) + rng.randrange(10)
        )
        consumers.kill_one(rng)
    await publishing
    await wait_until_done(connection, consumers, EVENTS)

    effects, out_of_order = (
        await connection.fetchval(EFFECTS),
        await connection.fetchval(OUT_OF_ORDER),
    )
    with capsys.disabled():
        print(
            f"\n{EVENTS} events, 2 consumers, {consumers.kills} kill -9: "
            f"{effects} effects, {out_of_order} out_of_order"
        )
    assert (effects, out_of_order, consumers.kills) == (EVENTS, 0, KILLS)


async def test_repeated_redis_flushes_lose_nothing(
    probe: Postgres,
    connection: "asyncpg.Connection[asyncpg.Record]",
    consumers: ConsumerProcesses,
    ctx: CallContext,
) -> None:
    redis = Redis.from_url(consumers.redis_url)
    publishing = asyncio.create_task(publish(probe, ctx, 300))

    for flushes in range(5):
        await wait_until_done(connection, consumers, flushes * 50)
        await redis.flushall()
    await publishing
    await redis.flushall()
    await wait_until_done(connection, consumers, 300)
    await redis.aclose()

    assert await connection.fetchval(EFFECTS) == 300
    assert await connection.fetchval(OUT_OF_ORDER) == 0


async def test_entries_consumed_by_all_groups_are_trimmed(
    probe: Postgres,
    connection: "asyncpg.Connection[asyncpg.Record]",
    consumers: ConsumerProcesses,
    ctx: CallContext,
) -> None:
    redis = Redis.from_url(consumers.redis_url)

    await publish(probe, ctx, 100)
    await wait_until_done(connection, consumers, 100)

    async with asyncio.timeout(TEST_TIMEOUT):
        while await connection.fetchval(UNCONFIRMED) or await redis.xlen("markethall:events:probe"):
            await asyncio.sleep(0.01)
    await redis.aclose()
