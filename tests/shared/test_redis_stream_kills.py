"""kill -9 of who sends and who hears, again and again: each event once, in the order of its key."""

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
from tests.shared.conftest import STATEMENTS, ProbeSqlStore, ThingHappened

FULL = os.environ.get("MARKETHALL_TEST_SCOPE") == "full"
EVENTS, KILLS = (2000, 20) if FULL else (300, 4)
KEYS = 20
PATIENCE = 120

DONE = "SELECT count(*) FROM probe.inbox WHERE state = 'done'"
EFFECTS = "SELECT count(*) FROM probe.thing"
OVERTAKEN = """
SELECT count(*) FROM (
  SELECT source_seq < lag(source_seq) OVER (PARTITION BY key ORDER BY done_at) AS back
  FROM probe.inbox) AS steps WHERE back
"""
UNCONFIRMED = "SELECT count(*) FROM probe.outbox WHERE confirmed_at IS NULL"


@dataclass
class Listeners:
    """Two processes; one leads, the other waits for its end."""

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

    def kill_one(self, chance: random.Random) -> None:
        """Whichever: the one who leads as well as the one who waits."""
        process = self.running.pop(chance.randrange(len(self.running)))
        process.send_signal(signal.SIGKILL)
        process.wait()
        self.kills += 1
        self.start()

    def end(self) -> None:
        for process in self.running:
            process.kill()
            process.wait()


@pytest.fixture
def own_redis_url() -> Iterator[str]:
    """To be wiped without harm to others."""
    server = EmbeddedValkey()
    yield server.start()
    server.stop()


@pytest.fixture
async def connection(probe_url: str) -> "AsyncIterator[asyncpg.Connection[asyncpg.Record]]":
    connection = await asyncpg.connect(plain(probe_url))
    yield connection
    await connection.close()


@pytest.fixture
def listeners(probe_url: str, own_redis_url: str, tmp_path: Path) -> Iterator[Listeners]:
    listeners = Listeners(probe_url, own_redis_url, tmp_path / "listeners.log")
    for _ in range(2):
        listeners.start()
    yield listeners
    listeners.end()


async def publish(postgres: Postgres, ctx: CallContext, count: int) -> None:
    """Of each key one after the other, the keys side by side, as commits come."""
    backend = build_sql_persistence(postgres, STATEMENTS, ProbeSqlStore, utc_now)

    async def of_one_key() -> None:
        thing = new_id()
        for number in range(count // KEYS):
            async with backend.database.transaction() as store:
                await store.publish(ThingHappened(thing=thing, number=number), ctx)

    await asyncio.gather(*(of_one_key() for _ in range(KEYS)))


async def done_at_least(
    connection: "asyncpg.Connection[asyncpg.Record]", listeners: Listeners, count: int
) -> None:
    try:
        async with asyncio.timeout(PATIENCE):
            while await connection.fetchval(DONE) < count:
                await asyncio.sleep(0.01)
    except TimeoutError:
        done = await connection.fetchval(DONE)
        raise AssertionError(f"{done} of {count}: {listeners.log.read_text()[-3000:]}") from None


async def test_after_any_kill_each_event_applies_once_in_key_order(
    probe: Postgres,
    connection: "asyncpg.Connection[asyncpg.Record]",
    listeners: Listeners,
    ctx: CallContext,
    capsys: pytest.CaptureFixture[str],
) -> None:
    chance = random.Random(20261121)
    publishing = asyncio.create_task(publish(probe, ctx, EVENTS))

    for kill in range(KILLS):
        await done_at_least(
            connection, listeners, kill * EVENTS // (KILLS + 1) + chance.randrange(10)
        )
        listeners.kill_one(chance)
    await publishing
    await done_at_least(connection, listeners, EVENTS)

    effects, overtaken = await connection.fetchval(EFFECTS), await connection.fetchval(OVERTAKEN)
    with capsys.disabled():
        print(  # noqa: T201 - for the report
            f"\n{EVENTS} events, 2 listeners, {listeners.kills} kill -9: "
            f"{effects} effects, {overtaken} overtaken"
        )
    assert (effects, overtaken, listeners.kills) == (EVENTS, 0, KILLS)


async def test_repeated_redis_flushes_lose_nothing(
    probe: Postgres,
    connection: "asyncpg.Connection[asyncpg.Record]",
    listeners: Listeners,
    ctx: CallContext,
) -> None:
    redis = Redis.from_url(listeners.redis_url)
    publishing = asyncio.create_task(publish(probe, ctx, 300))

    for wiped in range(5):
        await done_at_least(connection, listeners, wiped * 50)
        await redis.flushall()
    await publishing
    await redis.flushall()
    await done_at_least(connection, listeners, 300)
    await redis.aclose()

    assert await connection.fetchval(EFFECTS) == 300
    assert await connection.fetchval(OVERTAKEN) == 0


async def test_entries_consumed_by_all_groups_are_trimmed(
    probe: Postgres,
    connection: "asyncpg.Connection[asyncpg.Record]",
    listeners: Listeners,
    ctx: CallContext,
) -> None:
    redis = Redis.from_url(listeners.redis_url)

    await publish(probe, ctx, 100)
    await done_at_least(connection, listeners, 100)

    async with asyncio.timeout(PATIENCE):
        while await connection.fetchval(UNCONFIRMED) or await redis.xlen("markethall:events:probe"):
            await asyncio.sleep(0.01)
    await redis.aclose()
