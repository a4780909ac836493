"""Test the pool, transactions, read sessions, and the errors if Postgres does not respond."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import asyncpg
import pytest
import sqlalchemy as sa
from sqlalchemy import bindparam
from structlog.testing import capture_logs

from markethall.local.postgres import EmbeddedPostgres
from markethall.shared.kernel.errors import MalformedRequest, Unavailable
from markethall.shared.kernel.wait_budget import STATEMENT_TIMEOUT
from markethall.shared.persistence.database import HOLDS_CONNECTION
from markethall.shared.persistence.postgres import (
    Databases,
    PoolSize,
    Postgres,
    Statement,
    sql_literal,
)
from markethall.shared.persistence.postgres.kept_connections import KeptConnections
from markethall.shared.persistence.postgres_url import InvalidPostgresUrl, asyncpg_dsn
from tests.conftest import on_server, plain
from tests.shared.conftest import ADD, COUNT, LOCK, PID, PUT, SLEEP, create_schema, thing

if TYPE_CHECKING:
    from asyncpg.protocol import Record

IDLE_IN_TRANSACTION = (
    "SELECT count(*) FROM pg_stat_activity"
    " WHERE datname = current_database() AND state LIKE 'idle in transaction%'"
)
LOCK_TIMEOUT = Statement(sa.text("SELECT current_setting('lock_timeout')"))
SET_SHORT_LOCK_TIMEOUT = Statement(sa.text("SELECT set_config('lock_timeout', '50ms', true)"))
# seconds; only a failing test waits for the whole time
TEST_TIMEOUT = 30
COUNT_BACKENDS_WITH_PID = "SELECT count(*) FROM pg_stat_activity WHERE pid = :pid"


async def test_transaction_commits_when_block_ends(probe: Postgres) -> None:
    async with probe.transaction() as connection:
        touched = await connection.execute(ADD, name="a", number=1)

    assert touched == 1
    assert await count_things(probe) == 1


async def test_transaction_rolls_back_when_block_raises(probe: Postgres) -> None:
    with pytest.raises(ZeroDivisionError):
        await add_and_raise(probe, ZeroDivisionError())

    assert await count_things(probe) == 0


async def test_domain_error_rolls_back_and_connection_is_reused(probe_url: str) -> None:
    async with pool(probe_url, max_size=1) as postgres:
        before = await backend_pid(postgres)

        for _ in range(3):
            with pytest.raises(MalformedRequest):
                await add_and_raise(postgres, MalformedRequest())

        assert await backend_pid(postgres) == before
        assert await count_things(postgres) == 0


async def test_constraint_violation_rolls_back_and_connection_is_reused(probe_url: str) -> None:
    async with pool(probe_url, max_size=1) as postgres:
        before = await backend_pid(postgres)

        with pytest.raises(asyncpg.UniqueViolationError):
            await add_twice(postgres)

        assert await backend_pid(postgres) == before
        assert await count_things(postgres) == 0


async def test_swallowed_error_never_commits(
    probe: Postgres,
) -> None:
    with pytest.raises(RuntimeError, match="rolled back"):
        await add_twice_and_swallow_error(probe)

    assert await count_things(probe) == 0


async def test_read_session_sees_committed_data_and_nests(probe: Postgres) -> None:
    async with probe.transaction() as writing:
        await writing.execute(ADD, name="a", number=1)
        async with probe.read_session() as outer, probe.read_session() as inner:
            seen = [await outer.fetch_value(COUNT), await inner.fetch_value(COUNT)]

    assert seen == [0, 0]
    assert await count_things(probe) == 1


async def test_each_read_statement_has_its_own_snapshot(probe: Postgres) -> None:
    async with probe.read_session() as connection:
        before = await connection.fetch_value(COUNT)
        async with probe.transaction() as writing:
            await writing.execute(ADD, name="a", number=1)
        after = await connection.fetch_value(COUNT)

    assert (before, after) == (0, 1)


async def test_connection_marker_is_always_reset(probe: Postgres) -> None:
    async with probe.transaction():
        inside = HOLDS_CONNECTION.get()
    after_commit = HOLDS_CONNECTION.get()
    with pytest.raises(MalformedRequest):
        await add_and_raise(probe, MalformedRequest())
    after_error = HOLDS_CONNECTION.get()
    async with probe.read_session():
        reading = HOLDS_CONNECTION.get()
    after_reading = HOLDS_CONNECTION.get()

    assert (inside, reading) == ("postgres", "reading")
    assert (after_commit, after_error, after_reading) == ("", "", "")


async def test_cancelled_transaction_is_rolled_back(probe: Postgres) -> None:
    locked = asyncio.Event()

    async def hold() -> None:
        async with probe.transaction() as connection:
            await connection.execute(ADD, name="a", number=1)
            locked.set()
            await asyncio.Event().wait()

    await cancel_when_set(locked, hold())

    assert await count_things(probe) == 0
    assert await wait_until_zero(probe, IDLE_IN_TRANSACTION)


async def test_cancelled_statement_leaves_no_broken_connection(probe_url: str) -> None:
    async with pool(probe_url, max_size=1) as postgres:
        for _ in range(3):
            started = asyncio.Event()
            await cancel_when_set(started, sleep_in_transaction(postgres, started))

            assert await count_things(postgres) == 0


async def test_cancel_during_rollback_returns_connection(
    probe_url: str,
) -> None:
    async with pool(probe_url, max_size=1) as postgres:
        for _ in range(3):
            task = asyncio.create_task(add_and_raise(postgres, MalformedRequest(), cancelled=True))
            await asyncio.wait([task])

            assert task.cancelled()
            assert await count_things(postgres) == 0


async def test_exhausted_pool_is_unavailable_after_timeout(probe_url: str) -> None:
    async with pool(probe_url, max_size=1, timeout_seconds=2) as postgres, postgres.read_session():
        async with asyncio.timeout(TEST_TIMEOUT):
            with pytest.raises(Unavailable) as raised:
                await count_things(postgres)

        assert raised.value.status == 503
        assert raised.value.retry_after == 1


@pytest.mark.parametrize("is_pooled", [False, True])
async def test_statement_of_general_timeout_does_not_outlive_its_client(
    probe_url: str, *, is_pooled: bool
) -> None:
    # behind a pooler a session has no `statement_timeout`, so only the client limits the time
    direct_url = probe_url if is_pooled else None
    postgres = Postgres(probe_url, PoolSize(1, 1, 1), direct_url=direct_url)
    before = await backend_pid(postgres)

    with pytest.raises(Unavailable):
        await sleep_in_read_session(postgres)

    assert await backend_pid(postgres) == before
    await postgres.close()


@pytest.mark.parametrize("is_pooled", [False, True])
async def test_shorter_timeout_of_request_cancels_its_reads_only(
    probe_url: str, *, is_pooled: bool
) -> None:
    direct_url = probe_url if is_pooled else None
    postgres = Postgres(probe_url, PoolSize(1, 1, TEST_TIMEOUT), direct_url=direct_url)
    before = await backend_pid(postgres)
    token = STATEMENT_TIMEOUT.set(0.05)
    try:
        with pytest.raises(Unavailable) as raised:
            await sleep_in_read_session(postgres)
        async with postgres.transaction() as connection:
            await connection.fetch_value(SLEEP, seconds=0.2)
    finally:
        STATEMENT_TIMEOUT.reset(token)

    assert raised.value.retry_after == 1
    assert await backend_pid(postgres) == before
    await postgres.close()


async def sleep_in_read_session(postgres: Postgres) -> None:
    async with postgres.read_session() as connection:
        await connection.fetch_value(SLEEP, seconds=60)


async def test_cancelled_wait_for_connection_leaves_pool_usable(probe_url: str) -> None:
    async with pool(probe_url, max_size=1) as postgres:
        async with postgres.read_session():
            waiting = asyncio.create_task(count_things(postgres))
            await run_loop_callbacks()
            waiting.cancel()
            await asyncio.wait([waiting])

        assert waiting.cancelled()
        assert await count_things(postgres) == 0


async def test_cancel_while_pool_opens_leaves_no_connection_behind(probe_url: str) -> None:
    count_own_connections = (
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'opening'"
    )
    observer = await asyncpg.connect(plain(probe_url))
    for callbacks in (1, 5, 20, 100):
        postgres = Postgres(probe_url, PoolSize(3, 3, TEST_TIMEOUT), application_name="opening")
        opening = asyncio.create_task(count_things(postgres))
        await run_loop_callbacks(callbacks)
        opening.cancel()
        await asyncio.wait([opening])

        assert await count_things(postgres) == 0
        await postgres.close()

    assert await wait_for_count(observer, count_own_connections, 0)
    await observer.close()


async def test_cancel_while_connection_is_handed_over_leaves_pool_usable(probe_url: str) -> None:
    async with pool(probe_url, max_size=1) as postgres:
        for callbacks in range(6):
            async with postgres.read_session():
                waiting = asyncio.create_task(count_things(postgres))
                await run_loop_callbacks()
            await run_loop_callbacks(callbacks)
            waiting.cancel()
            await asyncio.wait([waiting])

            assert await count_things(postgres) == 0


async def test_close_ends_transaction_in_use_and_waiting_reader(probe_url: str) -> None:
    postgres = Postgres(probe_url, PoolSize(min_size=1, max_size=1, timeout=0.5))

    with pytest.raises(Unavailable):  # noqa: PT012 - the last statement raises
        async with postgres.transaction() as connection:
            waiting = asyncio.create_task(count_things(postgres))
            await run_loop_callbacks()
            await postgres.close()
            await connection.execute(ADD, name="a", number=1)
    await asyncio.wait([waiting])

    assert isinstance(waiting.exception(), Unavailable)
    assert await count_things(postgres) == 0
    await postgres.close()


async def test_close_waits_for_connection_in_use(probe_url: str) -> None:
    postgres = Postgres(probe_url, PoolSize(min_size=1, max_size=1, timeout=TEST_TIMEOUT))

    async with postgres.transaction() as connection:
        closing = asyncio.create_task(postgres.close())
        await run_loop_callbacks()
        await connection.execute(ADD, name="a", number=1)
    await closing

    assert await count_things(postgres) == 1
    await postgres.close()


async def test_pool_works_on_several_event_loops_in_turn(probe_url: str) -> None:
    postgres = Postgres(probe_url, PoolSize(min_size=1, max_size=2, timeout=5))

    async def use_and_close() -> int:
        count = await count_things(postgres)
        await postgres.close()
        return count

    counts = [await asyncio.to_thread(asyncio.run, use_and_close()) for _ in range(2)]

    assert counts == [0, 0]


async def test_pool_never_exceeds_max_size(probe_url: str) -> None:
    count_own_connections = (
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pool-bounds'"
    )
    postgres = Postgres(probe_url, PoolSize(1, 4, TEST_TIMEOUT), application_name="pool-bounds")
    observer = await asyncpg.connect(plain(probe_url))

    barrier, seen = asyncio.Barrier(4), []

    async def use() -> None:
        async with postgres.read_session() as connection:
            await connection.fetch_value(PID)
            if await barrier.wait() == 0:  # four tasks have a connection, and the others wait
                seen.append(await observer.fetchval(count_own_connections))
            await barrier.wait()

    await asyncio.gather(*(use() for _ in range(40)))

    assert seen == [4] * 10
    await postgres.close()
    assert await wait_for_count(observer, count_own_connections, 0)
    await observer.close()


async def test_pool_keeps_connections_during_burst(probe_url: str) -> None:
    async with pool(probe_url, min_size=1, max_size=4) as postgres:
        seen = set()

        async def use() -> None:
            async with postgres.read_session() as connection:
                seen.add(await connection.fetch_value(PID))

        for _ in range(10):
            await asyncio.gather(*(use() for _ in range(4)))
            await asyncio.gather(*(use() for _ in range(1)))

        assert len(seen) <= 4


async def test_first_users_of_closed_pool_share_its_only_connection(probe_url: str) -> None:
    async with pool(probe_url, max_size=1) as postgres:
        counts = await asyncio.gather(*(count_things(postgres) for _ in range(10)))

        assert counts == [0] * 10
        assert postgres.connections_in_use == 0


async def test_unused_connections_are_closed_except_minimum(probe_url: str) -> None:
    async with idle_pool(probe_url, idle_seconds=0.01) as (kept, asyncpg_pool):
        drivers = await use_together(kept, 4)
        async with asyncio.timeout(TEST_TIMEOUT):
            while asyncpg_pool.get_size() > 1:
                await asyncio.sleep(0.001)

        assert kept.in_use == 0
        driver = kept.take()
        assert driver is not None
        assert driver is drivers[0]
        assert kept.keep(driver)


async def test_connections_that_are_used_in_turn_stay_open(probe_url: str) -> None:
    async with idle_pool(probe_url, idle_seconds=3600) as (kept, asyncpg_pool):
        await use_together(kept, 3)
        kept.close_unused()
        await use_together(kept, 2)
        kept.close_unused()
        sizes = [asyncpg_pool.get_size()]
        kept.close_unused()
        await run_loop_callbacks()
        sizes.append(asyncpg_pool.get_size())

    # at first one is the minimum, and two were used; then none was used
    assert sizes == [3, 1]


async def test_contexts_with_same_url_share_pool(probe_url: str) -> None:
    pools = Databases(PoolSize())

    same = pools.get(probe_url) is pools.get(probe_url)
    other = pools.get(probe_url) is pools.get(f"{probe_url}_2")

    assert (same, other) == (True, False)
    await pools.close()


async def test_dedicated_connection_is_outside_pool_and_closes(
    probe_url: str,
) -> None:
    async with pool(probe_url, max_size=1) as postgres:
        async with postgres.dedicated_connection() as connection:
            pid = await connection.fetch_value(PID)
            assert await backend_pid(postgres) != pid

        assert await wait_until_zero(postgres, COUNT_BACKENDS_WITH_PID.replace(":pid", str(pid)))


async def test_lock_timeout_is_unavailable_and_keeps_connection(
    probe_url: str,
) -> None:
    async with pool(probe_url, max_size=2, timeout_seconds=10) as postgres:
        await add(postgres, "a")
        pids = {await backend_pid(postgres)}

        async with postgres.transaction() as holder:
            lock_timeout = await holder.fetch_value(LOCK_TIMEOUT)
            await holder.fetch_one(LOCK, name="a")
            pids.add(await backend_pid(postgres))
            with pytest.raises(Unavailable):
                await update_without_waiting(postgres, "a", 1)
            after = await backend_pid(postgres)

        assert after in pids
        # below the statement timeout of 9.5 s, so that the lock timeout comes first
        assert lock_timeout == "9s"


async def test_deadlock_victim_gets_unavailable(
    probe_url: str,
) -> None:
    await on_server(probe_url, "ALTER DATABASE " + database(probe_url) + " SET deadlock_timeout=50")
    async with pool(probe_url, timeout_seconds=10) as postgres:
        await add(postgres, "a")
        await add(postgres, "b")
        barrier = asyncio.Barrier(2)

        async def lock_in_order(first: str, second: str) -> None:
            async with postgres.transaction() as connection:
                await connection.execute(PUT, name=first, number=1)
                await barrier.wait()
                await connection.execute(PUT, name=second, number=1)

        with capture_logs() as lines:
            results = await asyncio.gather(
                lock_in_order("a", "b"), lock_in_order("b", "a"), return_exceptions=True
            )

        assert sorted(type(result).__name__ for result in results) == ["NoneType", "Unavailable"]
        assert [line["event"] for line in lines] == ["database.deadlock"]
        assert "waits for ShareLock" in lines[0]["detail"]
        assert await count_things(postgres) == 2


async def test_killed_connection_is_unavailable_once(
    probe_url: str,
) -> None:
    async with pool(probe_url, max_size=1) as postgres:
        with pytest.raises(Unavailable):
            await add_and_kill_backend(postgres, probe_url)

        assert await count_things(postgres) == 0


async def test_dead_idle_connections_are_replaced(probe_url: str) -> None:
    async with pool(probe_url, max_size=2) as postgres:
        pid = await backend_pid(postgres)
        await on_server(probe_url, f"SELECT pg_terminate_backend({pid}, 5000)")
        await run_loop_callbacks()

        assert await backend_pid(postgres) != pid


async def test_invalid_value_is_not_reported_as_unavailable(
    probe_url: str,
) -> None:
    async with pool(probe_url, max_size=1) as postgres:
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

    assert await count_things(probe) == 0


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
async def test_missing_server_is_unavailable(url: str) -> None:
    postgres = Postgres(url, PoolSize(timeout=2))

    with pytest.raises(Unavailable):
        await backend_pid(postgres)

    await postgres.close()


async def test_authentication_failure_is_unavailable(server_url: str) -> None:
    wrong = sa.make_url(server_url).set(password="wrong").render_as_string(hide_password=False)
    missing = sa.make_url(server_url).set(database="nope").render_as_string(hide_password=False)
    for url in (wrong, missing):
        postgres = Postgres(url, PoolSize())

        with pytest.raises(Unavailable):
            await backend_pid(postgres)

        await postgres.close()


async def test_database_that_allows_no_connections_is_unavailable(probe_url: str) -> None:
    server, _, name = probe_url.rpartition("/")
    admin_url = f"{server}/postgres"
    async with pool(probe_url, max_size=1) as postgres:
        await backend_pid(postgres)
        await on_server(admin_url, f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        try:
            await on_server(
                admin_url,
                f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                f" WHERE datname = '{name}'",
            )
            for attempt in (lambda: backend_pid(postgres), lambda: open_dedicated(postgres)):
                with pytest.raises(Unavailable):
                    await attempt()
                with pytest.raises(Unavailable):
                    await attempt()
        finally:
            await on_server(admin_url, f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")

        await backend_pid(postgres)


async def open_dedicated(postgres: Postgres) -> None:
    async with postgres.dedicated_connection():
        raise AssertionError("connected")


async def test_schema_change_does_not_leave_stale_statements(probe_url: str) -> None:
    select_all = Statement(sa.text("SELECT * FROM probe.changing"))
    await on_server(probe_url, "CREATE TABLE probe.changing AS SELECT 'a' AS name, 7 AS number")
    async with pool(probe_url, max_size=1) as postgres:
        async with postgres.read_session() as connection:
            await connection.fetch_all(select_all)
        await on_server(probe_url, "ALTER TABLE probe.changing ADD COLUMN colour text")

        outcomes = [await read_in_transaction(postgres, select_all) for _ in range(3)]

        assert outcomes[0] in {"unavailable", "a"}
        assert outcomes[1:] == ["a", "a"]
        await on_server(probe_url, "ALTER TABLE probe.changing ALTER number TYPE numeric")
        async with postgres.read_session() as connection:
            assert (await connection.fetch_all(select_all))[0]["number"] == 7


async def test_execute_many_is_one_round_trip(probe: Postgres) -> None:
    rows = [{"name": f"n{i}", "number": i} for i in range(5)]

    async with probe.transaction() as connection:
        await connection.execute_many(ADD, rows)
        await connection.execute_many(ADD, [])

    assert await count_things(probe) == 5


def test_statement_binds_its_constants() -> None:
    statement = Statement(
        sa.update(thing).where(thing.c.name == bindparam("name")).values(number=5)
    )

    sql, arguments = statement.bind({"name": None})

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
        ("postgres://u:p@h/d", "postgresql://u:p@h/d"),
        ("postgresql://u:p@h:5/d\n", "postgresql://u:p@h:5/d"),
        ("postgresql+asyncpg://u:p%40%2F@h/d", "postgresql://u:p%40%2F@h/d"),
        ("postgresql://h/d?ssl=require", "postgresql://h/d?sslmode=require"),
        (
            "postgresql://h/d?sslmode=prefer&channel_binding=prefer",
            "postgresql://h/d?sslmode=prefer",
        ),
        ("postgresql://h/d?application_name=shop&connect_timeout=10", "postgresql://h/d"),
        ("postgresql://h/d?options=-c+a%3Db", "postgresql://h/d?options=-c+a%3Db"),
        ("postgresql://h/d?sslrootcert=/a.pem", "postgresql://h/d?sslrootcert=%2Fa.pem"),
        ("postgresql://h/d?pgbouncer=false", "postgresql://h/d"),
    ],
)
def test_url_parameters_of_providers_are_read(given: str, made: str) -> None:
    assert asyncpg_dsn(given) == made


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ("pgbouncer=true", "MARKETHALL_DATABASE_POOLER"),
        ("statement_cache_size=0", "MARKETHALL_DATABASE_POOLER"),
        ("channel_binding=require", "channel_binding"),
        ("schema=shop", "schema"),
        ("sslmode=require&sslmode=disable", "sslmode"),
    ],
)
def test_url_parameter_that_cannot_be_honoured_is_named(parameters: str, message: str) -> None:
    with pytest.raises(InvalidPostgresUrl, match=message) as refused:
        asyncpg_dsn(f"postgresql://u:secret@h/d?{parameters}")

    assert "secret" not in str(refused.value)


class TestWithDedicatedServer:
    """Tests that stop the server."""

    @pytest.fixture
    def server(self, scratch: Path, request: pytest.FixtureRequest) -> Iterator[EmbeddedPostgres]:
        server = EmbeddedPostgres(scratch / request.node.name[:40], durable=False)
        yield server
        server.stop()

    async def test_pool_recovers_after_server_restart(self, server: EmbeddedPostgres) -> None:
        url = server.start()
        await create_schema(url)
        async with (
            TcpProxy(url) as proxy,
            pool(proxy.url, timeout_seconds=TEST_TIMEOUT) as postgres,
        ):
            await asyncio.gather(*(count_things(postgres) for _ in range(5)))

            server.stop()
            during_outage = [await try_add(postgres, "a") for _ in range(3)]
            proxy.set_target(server.start())
            after_restart = [await try_add(postgres, f"n{i}") for i in range(5)]

            assert during_outage == ["unavailable"] * 3
            assert after_restart == ["added"] * 5

    async def test_hanging_server_is_unavailable_within_timeout(
        self, server: EmbeddedPostgres
    ) -> None:
        url = server.start()
        await create_schema(url)
        async with pool(url, max_size=3, timeout_seconds=3) as postgres:
            await asyncio.gather(*(count_things(postgres) for _ in range(3)))
            with paused(server):
                async with asyncio.timeout(TEST_TIMEOUT):
                    outcomes = await asyncio.gather(*(try_add(postgres, f"n{i}") for i in range(6)))

            assert outcomes == ["unavailable"] * 6
            assert await wait_until_available(postgres)
            assert [await try_add(postgres, f"m{i}") for i in range(9)] == ["added"] * 9
            counted = await count_things(postgres)
            names = await asyncio.gather(*(try_add(postgres, f"k{i}") for i in range(9)))
            assert names == ["added"] * 9
            assert await count_things(postgres) == counted + 9

    async def test_server_without_free_connections_is_unavailable(self, scratch: Path) -> None:
        with EmbeddedPostgres(scratch / "crowded", durable=False, max_connections=6) as url:
            other_connections = [await asyncpg.connect(plain(url)) for _ in range(6)]
            async with pool(url) as postgres:
                with pytest.raises(Unavailable):
                    await backend_pid(postgres)
                for other in other_connections:
                    await other.close()

                assert await wait_until_available(postgres)


@asynccontextmanager
async def pool(
    url: str, *, min_size: int = 1, max_size: int = 5, timeout_seconds: float = 5
) -> AsyncIterator[Postgres]:
    postgres = Postgres(
        url, PoolSize(min_size=min_size, max_size=max_size, timeout=timeout_seconds)
    )
    yield postgres
    await postgres.close()


@asynccontextmanager
async def idle_pool(
    url: str, *, idle_seconds: float
) -> "AsyncIterator[tuple[KeptConnections, asyncpg.Pool[Record]]]":
    """A pool of 1 to 4 connections that closes unused connections after `idle_seconds`."""
    asyncpg_pool = await asyncpg.create_pool(plain(url), min_size=1, max_size=4)
    kept = KeptConnections(asyncpg_pool, 1, idle_seconds)
    yield kept, asyncpg_pool
    await kept.close()


async def use_together(kept: KeptConnections, count: int) -> list[Any]:
    """Acquire `count` connections, keep all of them, and return them."""
    drivers = [await kept.acquire() for _ in range(count)]
    assert kept.in_use == count
    assert all(kept.keep(driver) for driver in drivers)
    return drivers


class TcpProxy:
    """A TCP proxy whose address stays the same when the server moves to another port."""

    def __init__(self, url: str) -> None:
        self._target_url = sa.make_url(url)
        self.set_target(url)

    def set_target(self, url: str) -> None:
        self._port = sa.make_url(url).port

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        self.url = self._target_url.set(port=port).render_as_string(hide_password=False)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._port)
            await asyncio.gather(
                copy_stream(reader, server_writer), copy_stream(server_reader, writer)
            )
        writer.close()


async def copy_stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


class paused:  # noqa: N801 - used like a function
    """A context manager that suspends all processes of the server."""

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


async def count_things(postgres: Postgres) -> int:
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


async def update_without_waiting(postgres: Postgres, name: str, number: int) -> None:
    """Update a row with a short lock timeout, so that it fails instead of waiting for a lock."""
    async with postgres.transaction() as connection:
        await connection.fetch_value(SET_SHORT_LOCK_TIMEOUT)
        await connection.execute(PUT, name=name, number=number)


async def try_add(postgres: Postgres, name: str) -> str:
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


async def add_and_kill_backend(postgres: Postgres, url: str) -> None:
    async with postgres.transaction() as connection:
        await connection.execute(ADD, name="a", number=1)
        pid = await connection.fetch_value(PID)
        await on_server(url, f"SELECT pg_terminate_backend({pid}, 5000)")
        await connection.fetch_value(COUNT)


async def add_twice(postgres: Postgres) -> None:
    async with postgres.transaction() as connection:
        await connection.execute(ADD, name="a", number=1)
        await connection.execute(ADD, name="a", number=1)


async def add_twice_and_swallow_error(postgres: Postgres) -> None:
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


async def cancel_when_set(event: asyncio.Event, work: Coroutine[Any, Any, None]) -> None:
    task = asyncio.create_task(work)
    await event.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def wait_for_count(
    observer: "asyncpg.Connection[asyncpg.Record]", sql: str, wanted: int
) -> bool:
    async with asyncio.timeout(TEST_TIMEOUT):
        while await observer.fetchval(sql) != wanted:
            continue
    return True


async def wait_until_zero(postgres: Postgres, sql: str) -> bool:
    """Wait until the SQL counts zero. The server notices a closed connection a moment later."""
    counted = Statement(sa.text(sql))
    async with asyncio.timeout(TEST_TIMEOUT), postgres.read_session() as connection:
        while await connection.fetch_value(counted):
            continue
    return True


async def wait_until_available(postgres: Postgres) -> bool:
    async with asyncio.timeout(TEST_TIMEOUT):
        while True:
            try:
                await backend_pid(postgres)
            except Unavailable:
                await asyncio.sleep(0.01)
            else:
                return True


async def run_loop_callbacks(iterations: int = 1000) -> None:
    """Let the event loop handle the data that its sockets have received."""
    for _ in range(iterations):
        await asyncio.sleep(0)
