"""Test that a process with a wrong clock deletes, expires and takes over nothing too early.

It must also store correct times. The tests run two processes on one Postgres database: one has a
correct clock, and the clock of the other is wrong by an hour or a month.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import httpx2
import pytest
import sqlalchemy as sa
import time_machine

from markethall.app import Gateway
from markethall.container import ApplicationContainer
from markethall.contexts import context_names
from markethall.event_workers import build_event_workers
from markethall.inventory.imports.service.jobs import LEASE_DURATION
from markethall.secret_keys import load_or_create_secrets
from markethall.settings import read_settings
from markethall.shared.composition.context_persistence import RetentionJob
from markethall.shared.http.idempotent_routes import ok_response
from markethall.shared.idempotency.records import IdempotentRequest, InFlight
from markethall.shared.kernel.clock import utc_now
from markethall.shared.kernel.errors import Unavailable
from markethall.shared.kernel.ids import new_id
from markethall.shared.kernel.money import Money
from markethall.shared.persistence.database_clock import DatabaseClock
from markethall.shared.persistence.postgres import PoolSize, Postgres, Statement
from tests.conftest import plain
from tests.containers import inventory_of, orders_of, users_of
from tests.test_app import ADMIN

WAITING_EVENTS = Statement(
    sa.text(
        "SELECT 1 FROM orders.inbox WHERE state <> 'done'"
        " UNION ALL SELECT 1 FROM orders.outbox WHERE confirmed_at IS NULL"
        " UNION ALL SELECT 1 FROM payments.outbox WHERE confirmed_at IS NULL"
    )
)

AHEAD = [timedelta(hours=1), timedelta(days=32)]
SHIFTS = [*AHEAD, timedelta(hours=-1)]
MINUTE = timedelta(minutes=1)
# maps (table, column) to the times in new rows, relative to the start of the requests
Times = dict[tuple[str, str], list[timedelta]]


class Process:
    """An application without its lifespan: background work runs only if a test calls it."""

    def __init__(self, app: Gateway, http: httpx2.AsyncClient) -> None:
        self.container = app.container
        self.http = http
        self._app = app

    async def sign_in(self) -> None:
        form = {"username": ADMIN["admin_email"], "password": ADMIN["admin_password"]}
        token = (await self._post("/token", data=form))["access_token"]
        self.http.headers["Authorization"] = f"Bearer {token}"

    async def trade(self, name: str) -> dict[str, Any]:
        """Use every context, pay one of two new orders, and return the other order."""
        await self.sign_in()
        await self.upload(name)
        await inventory_of(self.container).import_worker().process_next()
        product = await self._post(
            "/products", json={"sku": name, "name": name, "price": {"amount": 5, "currency": "EUR"}}
        )
        path = f"/products/{product['product_id']}/stock-adjustments"
        await self._post(path, json={"delta": 9, "reason": "received"}, key=f"{name}-stock")
        line = {"product_id": product["product_id"], "quantity": 1, "shipping_address": "Market 1"}
        paid = await self._post("/orders", json=line, key=f"{name}-paid")
        path = f"/payments/{paid['payment']['payment_id']}/confirm"
        await self._post(path, json={"payment_method": "sandbox_ok"}, key=f"{name}-pay")
        return await self._post("/orders", json=line, key=f"{name}-order")

    async def upload(self, name: str) -> None:
        content = f"sku,name,price,currency\n{name}-2,A thing,5.00,EUR\n"
        headers = {"Content-Type": "text/csv"}
        response = await self.http.post("/imports", content=content, headers=headers)
        assert response.status_code == 202, response.text

    async def handle_events(self) -> None:
        """Run the event workers until no event waits. Raises TimeoutError after 60 s."""
        tasks = [
            asyncio.create_task(worker.run())
            for worker in build_event_workers(self.container, self._app.settings)
        ]
        async with asyncio.timeout(60):
            while await self._has_waiting_events():
                await asyncio.sleep(0.02)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def run_periodic_jobs(self) -> None:
        for container in self.container.contexts.values():
            retention = RetentionJob(container.persistence(), container.clock(), timedelta(days=1))
            for job in [*container.periodic_jobs(), retention.run_once]:
                await job()

    async def _has_waiting_events(self) -> bool:
        async with orders_of(self.container).postgres().read_session() as session:
            return bool(await session.fetch_all(WAITING_EVENTS))

    async def _post(self, path: str, *, key: str = "", **options: Any) -> dict[str, Any]:
        headers = {"Idempotency-Key": key} if key else {}
        response = await self.http.post(path, headers=headers, **options)
        assert response.is_success, response.text
        return dict(response.json())


@contextmanager
def wrong_clock(shift: timedelta) -> Iterator[None]:
    """Shift the system time that this process reads.

    Monotonic clocks and the clock of the database are not affected.
    """
    with time_machine.travel(utc_now() + shift, tick=True):
        yield


@asynccontextmanager
async def process_of(database_url: str, folder: Path) -> AsyncIterator[Process]:
    settings = read_settings(
        database_url=database_url, data_dir=folder, database_timeout=30, cache="off", **ADMIN
    )
    secrets = load_or_create_secrets(settings)
    app = Gateway(
        settings,
        lambda: ApplicationContainer(settings, secrets),
    )
    transport = httpx2.ASGITransport(app)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(app.container.close)
        await app.container.start()
        http = httpx2.AsyncClient(transport=transport, base_url="http://app")
        yield Process(app, await stack.enter_async_context(http))


class Database:
    """Reads all rows of all contexts."""

    def __init__(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        self._connection = connection

    async def rows(self) -> Mapping[tuple[str, str], Mapping[str, Any]]:
        """Map the table name and the text of each row to the row."""
        found: dict[tuple[str, str], Mapping[str, Any]] = {}
        for table in await self._tables():
            for row in await self._connection.fetch(f"SELECT * FROM {table}"):
                found[table, repr(row)] = dict(row)
        return found

    async def now(self) -> datetime:
        now: datetime = await self._connection.fetchval("SELECT clock_timestamp()")
        return now

    async def _tables(self) -> list[str]:
        rows = await self._connection.fetch(
            "SELECT format('%I.%I', schemaname, tablename) AS name FROM pg_tables"
            " WHERE schemaname = ANY($1)",
            list(context_names()),
        )
        return [row["name"] for row in rows]


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    connection = await asyncpg.connect(plain(database_url))
    yield Database(connection)
    await connection.close()


@pytest.mark.parametrize("shift", SHIFTS, ids=str)
async def test_periodic_jobs_delete_and_expire_nothing(
    database_url: str, database: Database, tmp_path: Path, shift: timedelta
) -> None:
    """Idempotency keys, sessions, events, reservations, orders and payments stay as they are."""
    async with process_of(database_url, tmp_path) as process:
        await process.trade("tea")
        await process.handle_events()
    before = await database.rows()

    with wrong_clock(shift):
        async with process_of(database_url, tmp_path) as wrong_process:
            await wrong_process.run_periodic_jobs()

    after = await database.rows()
    assert {table for table, _ in before.keys() - after.keys()} == set()
    assert {table for table, _ in after.keys() - before.keys()} == set()
    assert {table for table, _ in before} >= {
        "users.session",
        "orders.idempotency_record",
        "orders.inbox",
        "payments.outbox",
        "inventory.reservation",
        "inventory.import_job",
    }


@pytest.mark.parametrize("shift", SHIFTS, ids=str)
async def test_requests_store_true_times(
    database_url: str, database: Database, tmp_path: Path, shift: timedelta
) -> None:
    """All stored times, such as expiry times, equal those of a process with a correct clock."""

    async def times_of(process: Process, name: str) -> Times:
        before, started = await database.rows(), await database.now()
        await process.trade(name)
        times: Times = {}
        for (table, text), row in (await database.rows()).items():
            if (table, text) not in before:
                for column, value in row.items():
                    if isinstance(value, datetime):
                        times.setdefault((table, column), []).append(value - started)
        return {column: sorted(values) for column, values in times.items()}

    async with process_of(database_url, tmp_path) as process:
        expected = await times_of(process, "tea")
    with wrong_clock(shift):
        async with process_of(database_url, tmp_path) as wrong_process:
            stored = await times_of(wrong_process, "coffee")

    assert stored.keys() == expected.keys()
    assert ("inventory.reservation", "expires_at") in stored
    wrong = {
        column: (values, expected[column])
        for column, values in stored.items()
        if [abs(a - b) > MINUTE for a, b in zip(values, expected[column], strict=True)].count(True)
    }
    assert wrong == {}


@pytest.mark.parametrize("shift", AHEAD, ids=str)
async def test_lease_of_a_running_request_is_not_taken_over(
    database_url: str, tmp_path: Path, shift: timedelta
) -> None:
    request = IdempotentRequest("user", "POST", "/orders", "key", {})
    runs = []

    async def command(_: object) -> Money:
        runs.append(request)
        with wrong_clock(shift):
            async with process_of(database_url, tmp_path) as wrong_process:
                service = orders_of(wrong_process.container).idempotency()
                with pytest.raises(InFlight):
                    await service.run(request, MINUTE, ok_response, command)
        return Money(amount=1, currency="EUR")

    async with process_of(database_url, tmp_path) as process:
        service = orders_of(process.container).idempotency()
        await service.run(request, MINUTE, ok_response, command)

    assert runs == [request]


@pytest.mark.parametrize("shift", AHEAD, ids=str)
async def test_lease_of_a_delivery_is_not_taken_over(
    database_url: str, tmp_path: Path, shift: timedelta
) -> None:
    async def claim(process: Process) -> int:
        orders = orders_of(process.container)
        lease = timedelta(seconds=30)
        return len(await orders.persistence().inbox.claim(orders.clock()(), lease, 16))

    async with process_of(database_url, tmp_path) as process:
        await process.trade("tea")
        await relay(process)
        assert await claim(process) > 0

    with wrong_clock(shift):
        async with process_of(database_url, tmp_path) as wrong_process:
            assert await claim(wrong_process) == 0


async def relay(process: Process) -> None:
    """Relay the events of payments once."""
    workers = build_event_workers(process.container, process._app.settings)
    (worker,) = (each for each in workers if each.context == "payments")
    async with worker._outbox.acquire_leadership() as leader:
        assert leader is not None
        await worker._relay.relay_batch(leader, 100)


@pytest.mark.parametrize("shift", AHEAD, ids=str)
async def test_lease_of_an_import_is_not_taken_over(
    database_url: str, tmp_path: Path, shift: timedelta
) -> None:
    async with process_of(database_url, tmp_path) as process:
        await process.sign_in()
        await process.upload("tea")
        inventory = inventory_of(process.container)
        now = inventory.clock()()
        async with inventory.database().transaction() as store:
            assert await store.lease_import_job(new_id(), now, now + LEASE_DURATION, None)

    with wrong_clock(shift):
        async with process_of(database_url, tmp_path) as wrong_process:
            worker = inventory_of(wrong_process.container).import_worker()
            assert await worker.process_next() is None


@pytest.mark.parametrize("shift", SHIFTS, ids=str)
async def test_session_of_another_process_stays_open(
    database_url: str, tmp_path: Path, shift: timedelta
) -> None:
    form = {"username": ADMIN["admin_email"], "password": ADMIN["admin_password"]}

    async def refresh(process: Process, token: str) -> str:
        given = {"grant_type": "refresh_token", "refresh_token": token}
        response = await process.http.post("/token", data=given)
        assert response.status_code == 200, response.text
        return str(response.json()["refresh_token"])

    async with process_of(database_url, tmp_path) as process:
        token = (await process.http.post("/token", data=form)).json()["refresh_token"]
        with wrong_clock(shift):
            async with process_of(database_url, tmp_path) as wrong_process:
                token = await refresh(wrong_process, token)
        await refresh(process, token)


# The clock


async def test_connection_corrects_the_clock_and_fails_once(database_url: str) -> None:
    """The first session fails, so that its caller cannot store a wrong time that it has read.

    The new connection has corrected the clock, so the second session succeeds.
    """
    with wrong_clock(AHEAD[1]):
        wrong = Postgres(database_url, PoolSize(1, 2, 10))
    before = wrong.clock()

    with pytest.raises(Unavailable):
        async with wrong.read_session():
            pass
    async with wrong.read_session():
        corrected = wrong.clock()
    await wrong.close()

    assert before - utc_now() > timedelta(days=31)
    assert abs(corrected - utc_now()) < MINUTE


async def test_leadership_attempts_correct_the_clock(database_url: str, tmp_path: Path) -> None:
    async with process_of(database_url, tmp_path) as process:
        context = users_of(process.container)
        clock = context.postgres().clock
        clock.compare(clock(), utc_now() + AHEAD[1])
        assert clock() - utc_now() > timedelta(days=31)

        async with context.persistence().outbox.acquire_leadership() as leader:
            assert abs(clock() - utc_now()) < MINUTE
            clock.compare(clock(), utc_now() - AHEAD[1])
            assert leader is not None
            await leader.heartbeat()

        assert abs(clock() - utc_now()) < MINUTE


class FakeTime:
    """The time of the machine and a monotonic clock."""

    def __init__(self) -> None:
        self.now = utc_now()
        self.monotonic = 100.0


def test_clock_counts_by_the_monotonic_clock() -> None:
    time = FakeTime()
    clock = DatabaseClock(lambda: time.now, lambda: time.monotonic)
    started = time.now

    time.now += timedelta(days=32)
    time.monotonic += 5

    assert clock() == started + timedelta(seconds=5)


@pytest.mark.parametrize(("answer_after", "corrections"), [(0.0, 0), (-0.4, 0), (5.4, 0), (6, 1)])
def test_slow_answer_is_no_difference(answer_after: float, corrections: int) -> None:
    """Postgres reads its time at some moment between query and response.

    So any time in this interval is correct, with a tolerance at both ends.
    """
    time = FakeTime()
    clock = DatabaseClock(lambda: time.now, lambda: time.monotonic)
    asked_at = clock()

    time.monotonic += 5
    clock.compare(asked_at, asked_at + timedelta(seconds=answer_after))

    assert clock.corrections == corrections
