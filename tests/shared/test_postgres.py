"""The pool, its transactions, and what a client gets when Postgres does not answer."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Self

import asyncpg
import pytest
import sqlalchemy as sa
from sqlalchemy import bindparam
from structlog.testing import capture_logs

from markethall.local.postgres import EmbeddedPostgres
from markethall.shared.kernel.errors import MalformedRequest, Unavailable
from markethall.shared.persistence.held_connection import HOLDS_CONNECTION
from markethall.shared.persistence.postgres import (
    Databases,
    PoolSize,
    Postgres,
    Statement,
    sql_literal,
)
from markethall.shared.persistence.postgres_url import asyncpg_url
from tests.conftest import on_server, plain
from tests.shared.conftest import ADD, COUNT, LOCK, PID, PUT, SLEEP, create_schema, thing

NOBODY_IN_TRANSACTION = (
    "SELECT count(*) FROM pg_stat_activity"
    " WHERE datname = current_database() AND state LIKE 'idle in transaction%'"
)
LOCK_TIMEOUT = Statement(sa.text("SELECT current_setting('lock_timeout')"))
SOON = Statement(sa.text("SELECT set_config('lock_timeout', '50ms', true)"))
# seconds, a limit of failure: for what would else wait for ever
PATIENCE = 30
ALIVE = "SELECT count(*) FROM pg_stat_activity WHERE pid = :pid"


async def test_a_transaction_commits_when_its_block_ends(probe: Postgres) -> None:
    async with probe.transaction() as connection:
        touched = await connection.execute(ADD, name="a", number=1)

    assert touched == 1
    assert await things(probe) == 1


async def test_a_transaction_rolls_back_when_its_block_raises(probe: Postgres) -> None:
    with pytest.raises(ZeroDivisionError):
        await add_and_raise(probe, ZeroDivisionError())

    assert await things(probe) == 0


async def test_domain_error_rolls_back_and_connection_is_reused(probe_url: str) -> None:
    async with pool(probe_url, most=1) as postgres:
        before = await backend_pid(postgres)

        for _ in range(3):
            with pytest.raises(MalformedRequest):
                await add_and_raise(postgres, MalformedRequest())

        assert await backend_pid(postgres) == before
        assert await things(postgres) == 0


async def test_constraint_violation_rolls_back_and_connection_is_reused(probe_url: str) -> None:
    async with pool(probe_url, most=1) as postgres:
        before = await backend_pid(postgres)

        with pytest.raises(asyncpg.UniqueViolationError):
            await add_twice(postgres)

        assert await backend_pid(postgres) == before
        assert await things(postgres) == 0


async def test_swallowed_error_never_commits(
    probe: Postgres,
) -> None:
    with pytest.raises(RuntimeError, match="rolled back"):
        await add_twice_and_go_on(probe)

    assert await things(probe) == 0


async def test_read_session_sees_committed_data_and_nests(probe: Postgres) -> None:
    async with probe.transaction() as writing:
        await writing.execute(ADD, name="a", number=1)
        async with probe.read_session() as outer, probe.read_session() as inner:
            seen = [await outer.fetch_value(COUNT), await inner.fetch_value(COUNT)]

    assert seen == [0, 0]
    assert await things(probe) == 1


async def test_each_read_statement_has_its_own_snapshot(probe: Postgres) -> None:
    async with probe.read_session() as connection:
        before = await connection.fetch_value(COUNT)
        async with probe.transaction() as writing:
            await writing.execute(ADD, name="a", number=1)
        after = await connection.fetch_value(COUNT)

    assert (before, after) == (0, 1)


async def test_transaction_flag_is_always_reset(probe: Postgres) -> None:
    async with probe.transaction():
        inside = HOLDS_CONNECTION.get()
    after_commit = HOLDS_CONNECTION.get()
    with pytest.raises(MalformedRequest):
        await add_and_raise(probe, MalformedRequest())
    after_refusal = HOLDS_CONNECTION.get()
    async with probe.read_session():
        reading = HOLDS_CONNECTION.get()
    after_reading = HOLDS_CONNECTION.get()

    assert (inside, reading) == ("postgres", "reading")
    assert (after_commit, after_refusal, after_reading) == ("", "", "")


async def test_cancelled_transaction_is_closed(probe: Postgres) -> None:
    locked = asyncio.Event()

    async def hold() -> None:
        async with probe.transaction() as connection:
            await connection.execute(ADD, name="a", number=1)
            locked.set()
            await asyncio.Event().wait()

    await cancel_after(locked, hold())

    assert await things(probe) == 0
    assert await eventually_zero(probe, NOBODY_IN_TRANSACTION)


async def test_cancelled_statement_leaves_no_broken_connection(probe_url: str) -> None:
    async with pool(probe_url, most=1) as postgres:
        for _ in range(3):
            started = asyncio.Event()
            await cancel_after(started, sleep_in_transaction(postgres, started))

            assert await things(postgres) == 0


async def test_cancel_during_rollback_returns_connection(
    probe_url: str,
) -> None:
    async with pool(probe_url, most=1) as postgres:
        for _ in range(3):
            task = asyncio.create_task(add_and_raise(postgres, MalformedRequest(), cancelled=True))
            await asyncio.wait([task])

            assert task.cancelled()
            assert await things(postgres) == 0


async def test_a_full_pool_is_unavailable_within_its_timeout(probe_url: str) -> None:
    async with pool(probe_url, most=1, patience=2) as postgres, postgres.read_session():
        async with asyncio.timeout(PATIENCE):  # the one connection is not given back before
            with pytest.raises(Unavailable) as refused:
                await things(postgres)

        assert refused.value.status == 503
        assert refused.value.retry_after == 1


async def test_pool_never_exceeds_max_size(probe_url: str) -> None:
    watched = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pool-bounds'"
    postgres = Postgres(probe_url, PoolSize(1, 4, PATIENCE), application_name="pool-bounds")
    observer = await asyncpg.connect(plain(probe_url))

    together, seen = asyncio.Barrier(4), []

    async def use() -> None:
        async with postgres.read_session() as connection:
            await connection.fetch_value(PID)
            if await together.wait() == 0:  # four have a connection, all others wait for one
                seen.append(await observer.fetchval(watched))
            await together.wait()

    await asyncio.gather(*(use() for _ in range(40)))

    assert seen == [4] * 10
    await postgres.close()
    assert await eventually(observer, watched, 0)
    await observer.close()


async def test_pool_keeps_connections_during_burst(probe_url: str) -> None:
    async with pool(probe_url, least=1, most=4) as postgres:
        seen = set()

        async def use() -> None:
            async with postgres.read_session() as connection:
                seen.add(await connection.fetch_value(PID))

        for _ in range(10):
            await asyncio.gather(*(use() for _ in range(4)))
            await asyncio.gather(*(use() for _ in range(1)))

        assert len(seen) <= 4


async def test_contexts_with_same_url_share_pool(probe_url: str) -> None:
    pools = Databases(PoolSize())

    same = pools.get(probe_url) is pools.get(probe_url)
    other = pools.get(probe_url) is pools.get(f"{probe_url}_2")

    assert (same, other) == (True, False)
    await pools.close()


async def test_dedicated_connection_is_outside_pool_and_closes(
    probe_url: str,
) -> None:
    async with pool(probe_url, most=1) as postgres:
        async with postgres.dedicated_connection() as connection:
            pid = await connection.fetch_value(PID)
            assert await backend_pid(postgres) != pid

        assert await eventually_zero(postgres, ALIVE.replace(":pid", str(pid)))


async def test_waiting_for_a_lock_ends_as_unavailable_and_keeps_the_connection(
    probe_url: str,
) -> None:
    async with pool(probe_url, most=2, patience=10) as postgres:
        await add(postgres, "a")
        pids = {await backend_pid(postgres)}

        async with postgres.transaction() as holder:
            waits = await holder.fetch_value(LOCK_TIMEOUT)
            await holder.fetch_one(LOCK, of="a")
            pids.add(await backend_pid(postgres))
            with pytest.raises(Unavailable):
                await put_at_once(postgres, "a", 1)
            after = await backend_pid(postgres)

        assert after in pids
        # the server gives up before we do, which would cost the connection
        assert waits == "9s"


async def test_deadlock_victim_gets_unavailable(
    probe_url: str,
) -> None:
    await on_server(probe_url, "ALTER DATABASE " + database(probe_url) + " SET deadlock_timeout=50")
    async with pool(probe_url, patience=10) as postgres:
        await add(postgres, "a")
        await add(postgres, "b")
        both = asyncio.Barrier(2)

        async def crosswise(first: str, second: str) -> None:
            async with postgres.transaction() as connection:
                await connection.execute(PUT, of=first, to=1)
                await both.wait()
                await connection.execute(PUT, of=second, to=1)

        with capture_logs() as lines:
            results = await asyncio.gather(
                crosswise("a", "b"), crosswise("b", "a"), return_exceptions=True
            )

        assert sorted(type(result).__name__ for result in results) == ["NoneType", "Unavailable"]
        assert [line["event"] for line in lines] == ["database.deadlock"]
        assert "waits for ShareLock" in lines[0]["detail"]
        assert await things(postgres) == 2


async def test_killed_connection_is_unavailable_once(
    probe_url: str,
) -> None:
    async with pool(probe_url, most=1) as postgres:
        with pytest.raises(Unavailable):
            await add_and_lose_the_connection(postgres, probe_url)

        assert await things(postgres) == 0


async def test_dead_idle_connections_are_replaced(probe_url: str) -> None:
    async with pool(probe_url, most=2) as postgres:
        pid = await backend_pid(postgres)
        await on_server(probe_url, f"SELECT pg_terminate_backend({pid}, 5000)")
        await reached_us()

        assert await backend_pid(postgres) != pid


async def test_invalid_value_is_not_reported_as_unavailable(
    probe_url: str,
) -> None:
    async with pool(probe_url, most=1) as postgres:
        before = await backend_pid(postgres)

        with pytest.raises(asyncpg.DataError, match="int64"):
            await add(postgres, "a", 2**70)

        assert await backend_pid(postgres) == before


async def test_concurrent_statements_on_one_connection_are_rejected(
    probe: Postgres,
) -> None:
    with pytest.raises(asyncpg.InterfaceError, match="in progress"):
        async with probe.transaction() as connection:
            await asyncio.gather(connection.fetch_value(COUNT), connection.fetch_value(COUNT))

    assert await things(probe) == 0


async def test_nul_character_is_not_reported_as_unavailable(probe: Postgres) -> None:
    with pytest.raises(asyncpg.CharacterNotInRepertoireError):
        await add(probe, "\x00")


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:p@127.0.0.1:1/x",
        "postgresql://u:p@no-such-host.invalid/x",
    ],
)
async def test_no_server_at_all_is_unavailable(url: str) -> None:
    postgres = Postgres(url, PoolSize(timeout=2))

    with pytest.raises(Unavailable):
        await postgres.ping()

    await postgres.close()


async def test_authentication_failure_is_unavailable(server_url: str) -> None:
    wrong = sa.make_url(server_url).set(password="wrong").render_as_string(hide_password=False)
    missing = sa.make_url(server_url).set(database="nope").render_as_string(hide_password=False)
    for url in (wrong, missing):
        postgres = Postgres(url, PoolSize())

        with pytest.raises(Unavailable):
            await postgres.ping()

        await postgres.close()


async def test_schema_change_does_not_leave_stale_statements(probe_url: str) -> None:
    every = Statement(sa.text("SELECT * FROM probe.changing"))
    await on_server(probe_url, "CREATE TABLE probe.changing AS SELECT 'a' AS name, 7 AS number")
    async with pool(probe_url, most=1) as postgres:
        async with postgres.read_session() as connection:
            await connection.fetch_all(every)
        await on_server(probe_url, "ALTER TABLE probe.changing ADD COLUMN colour text")

        outcomes = [await read_in_transaction(postgres, every) for _ in range(3)]

        assert outcomes[0] in {"unavailable", "a"}
        assert outcomes[1:] == ["a", "a"]
        await on_server(probe_url, "ALTER TABLE probe.changing ALTER number TYPE numeric")
        async with postgres.read_session() as connection:
            assert (await connection.fetch_all(every))[0]["number"] == 7


async def test_execute_many_is_one_round_trip(probe: Postgres) -> None:
    rows = [{"name": f"n{i}", "number": i} for i in range(5)]

    async with probe.transaction() as connection:
        await connection.execute_many(ADD, rows)
        await connection.execute_many(ADD, [])

    assert await things(probe) == 5


def test_statement_binds_its_constants() -> None:
    statement = Statement(sa.update(thing).where(thing.c.name == bindparam("of")).values(number=5))

    sql, arguments = statement.bind({"of": None})

    assert sql.count("$") == 2
    assert arguments == [5, None]


def test_missing_parameter_is_rejected() -> None:
    with pytest.raises(KeyError):
        ADD.bind({"name": "a"})


def test_sql_literal_is_inlined_for_partial_index() -> None:
    statement = Statement(sa.select(thing.c.number).where(thing.c.name == sql_literal("a")))

    sql, arguments = statement.bind({})

    assert "'a'" in sql
    assert arguments == []


@pytest.mark.parametrize(
    ("given", "made"),
    [
        ("postgres://u:p@h/d", "postgresql+asyncpg://u:p@h/d"),
        ("postgresql://u:p@h:5/d", "postgresql+asyncpg://u:p@h:5/d"),
        ("postgresql+asyncpg://u:p%40%2F@h/d", "postgresql+asyncpg://u:p%40%2F@h/d"),
        ("postgresql://h/d?sslmode=require", "postgresql+asyncpg://h/d?ssl=require"),
    ],
)
def test_asyncpg_url_accepts_common_forms(given: str, made: str) -> None:
    assert asyncpg_url(given) == made


class TestServerOfItsOwn:
    """What would disturb the other tests."""

    @pytest.fixture
    def server(self, scratch: Path, request: pytest.FixtureRequest) -> Iterator[EmbeddedPostgres]:
        server = EmbeddedPostgres(scratch / request.node.name[:40], durable=False)
        yield server
        server.stop()

    async def test_pool_recovers_after_server_restart(self, server: EmbeddedPostgres) -> None:
        url = server.start()
        await create_schema(url)
        async with Wire(url) as wire, pool(wire.url, patience=PATIENCE) as postgres:
            await asyncio.gather(*(things(postgres) for _ in range(5)))

            server.stop()
            while_away = [await add_or_name(postgres, "a") for _ in range(3)]
            wire.leads_to(server.start())
            back_again = [await add_or_name(postgres, f"n{i}") for i in range(5)]

            assert while_away == ["unavailable"] * 3
            assert back_again == ["added"] * 5

    async def test_hanging_server_is_unavailable_within_timeout(
        self, server: EmbeddedPostgres
    ) -> None:
        url = server.start()
        await create_schema(url)
        async with pool(url, most=3, patience=3) as postgres:
            await asyncio.gather(*(things(postgres) for _ in range(3)))
            with paused(server):
                async with asyncio.timeout(PATIENCE):  # it hangs until the end of this block
                    outcomes = await asyncio.gather(
                        *(add_or_name(postgres, f"n{i}") for i in range(6))
                    )

            assert outcomes == ["unavailable"] * 6
            assert await healed(postgres)
            assert [await add_or_name(postgres, f"m{i}") for i in range(9)] == ["added"] * 9
            counted = await things(postgres)
            names = await asyncio.gather(*(add_or_name(postgres, f"k{i}") for i in range(9)))
            assert names == ["added"] * 9
            assert await things(postgres) == counted + 9

    async def test_a_server_without_free_connections_is_unavailable(self, scratch: Path) -> None:
        with EmbeddedPostgres(scratch / "crowded", durable=False, max_connections=6) as url:
            guests = [await asyncpg.connect(plain(url)) for _ in range(6)]
            async with pool(url) as postgres:
                with pytest.raises(Unavailable):
                    await postgres.ping()
                for guest in guests:
                    await guest.close()

                assert await healed(postgres)


@asynccontextmanager
async def pool(
    url: str, *, least: int = 1, most: int = 5, patience: float = 5
) -> AsyncIterator[Postgres]:
    postgres = Postgres(url, PoolSize(min_size=least, max_size=most, timeout=patience))
    yield postgres
    await postgres.close()


class Wire:
    """An address that stays the same while the server behind it moves."""

    def __init__(self, url: str) -> None:
        self._front = sa.make_url(url)
        self.leads_to(url)

    def leads_to(self, url: str) -> None:
        self._port = sa.make_url(url).port

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._join, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        self.url = self._front.set(port=port).render_as_string(hide_password=False)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._port)
            await asyncio.gather(flow(reader, far_writer), flow(far_reader, writer))
        writer.close()


async def flow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


class paused:  # noqa: N801 - reads as a word
    """The server and all its processes stand still."""

    def __init__(self, server: EmbeddedPostgres) -> None:
        assert server.pid
        self._pids = [server.pid, *children(server.pid)]

    def __enter__(self) -> None:
        for pid in self._pids:
            os.kill(pid, signal.SIGSTOP)

    def __exit__(self, *_: object) -> None:
        for pid in self._pids:
            os.kill(pid, signal.SIGCONT)


def children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in text.split()]


def database(url: str) -> str:
    return url.rpartition("/")[2]


async def things(postgres: Postgres) -> int:
    async with postgres.read_session() as connection:
        count: int = await connection.fetch_value(COUNT)
        return count


async def backend_pid(postgres: Postgres) -> int:
    async with postgres.read_session() as connection:
        pid: int = await connection.fetch_value(PID)
        return pid


async def add(postgres: Postgres, name: str, number: int = 0) -> None:
    async with postgres.transaction() as connection:
        await connection.execute(ADD, name=name, number=number)


async def put_at_once(postgres: Postgres, name: str, number: int) -> None:
    """Waits for no lock."""
    async with postgres.transaction() as connection:
        await connection.fetch_value(SOON)
        await connection.execute(PUT, of=name, to=number)


async def add_or_name(postgres: Postgres, name: str) -> str:
    try:
        await add(postgres, name)
    except Unavailable:
        return "unavailable"
    return "added"


async def add_and_raise(postgres: Postgres, error: Exception, *, cancelled: bool = False) -> None:
    async with postgres.transaction() as connection:
        await connection.execute(ADD, name="a", number=1)
        task = asyncio.current_task()
        if cancelled and task:
            task.cancel()
        raise error


async def add_and_lose_the_connection(postgres: Postgres, url: str) -> None:
    async with postgres.transaction() as connection:
        await connection.execute(ADD, name="a", number=1)
        pid = await connection.fetch_value(PID)
        await on_server(url, f"SELECT pg_terminate_backend({pid}, 5000)")
        await connection.fetch_value(COUNT)


async def add_twice(postgres: Postgres) -> None:
    async with postgres.transaction() as connection:
        await connection.execute(ADD, name="a", number=1)
        await connection.execute(ADD, name="a", number=1)


async def add_twice_and_go_on(postgres: Postgres) -> None:
    async with postgres.transaction() as connection:
        await connection.execute(ADD, name="a", number=1)
        try:
            await connection.execute(ADD, name="a", number=1)
        except asyncpg.UniqueViolationError:
            return


async def sleep_in_transaction(postgres: Postgres, started: asyncio.Event) -> None:
    async with postgres.transaction() as connection:
        await connection.execute(ADD, name="a", number=1)
        asyncio.get_running_loop().call_soon(started.set)
        await connection.fetch_value(SLEEP, seconds=60)


async def read_in_transaction(postgres: Postgres, statement: Statement) -> str:
    try:
        async with postgres.transaction() as connection:
            rows = await connection.fetch_all(statement)
    except Unavailable:
        return "unavailable"
    return str(rows[0]["name"])


async def cancel_after(event: asyncio.Event, work: Coroutine[Any, Any, None]) -> None:
    task = asyncio.create_task(work)
    await event.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def eventually(observer: "asyncpg.Connection[asyncpg.Record]", sql: str, wanted: int) -> bool:
    async with asyncio.timeout(PATIENCE):
        while await observer.fetchval(sql) != wanted:
            continue
    return True


async def eventually_zero(postgres: Postgres, sql: str) -> bool:
    """The server notices a closed connection a moment later."""
    counted = Statement(sa.text(sql))
    async with asyncio.timeout(PATIENCE), postgres.read_session() as connection:
        while await connection.fetch_value(counted):
            continue
    return True


async def healed(postgres: Postgres) -> bool:
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                await postgres.ping()
            except Unavailable:
                await asyncio.sleep(0.01)
            else:
                return True


async def reached_us() -> None:
    """Let the loop read what is in its sockets already."""
    for _ in range(1000):
        await asyncio.sleep(0)
