"""The context `probe`, which exists only for tests.

It has the tables that every context has, such as outbox and inbox, and the table `thing`. The
tables are created without migrations.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from sqlalchemy import bindparam
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.schema import CreateSchema

from markethall.shared.composition.context_persistence import ContextPersistence
from markethall.shared.composition.memory import (
    ContextTables,
    MemoryUnitOfWork,
    build_memory_persistence,
)
from markethall.shared.composition.sql import (
    ContextStatements,
    SqlUnitOfWork,
    build_sql_persistence,
    context_metadata,
)
from markethall.shared.kernel.call_context import CallContext, system_context
from markethall.shared.kernel.ids import new_id
from markethall.shared.kernel.model import Dto
from markethall.shared.messaging.events import Event
from markethall.shared.persistence.memory import Table
from markethall.shared.persistence.postgres import PoolSize, Postgres, Statement
from tests.conftest import on_server, url_of

metadata = context_metadata("probe")
thing = sa.Table(
    "thing",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("number", sa.BigInteger, nullable=False),
)
STATEMENTS = ContextStatements(metadata)

EMPTY = "SET lock_timeout = '5s'; TRUNCATE " + ", ".join(
    table.fullname for table in metadata.sorted_tables
)

ADD = Statement(insert(thing).values(name=bindparam("name"), number=bindparam("number")))
COUNT = Statement(sa.select(sa.func.count()).select_from(thing))
LOCK = Statement(
    sa.select(thing.c.number).where(thing.c.name == bindparam("name")).with_for_update()
)
PUT = Statement(
    sa.update(thing).where(thing.c.name == bindparam("name")).values(number=bindparam("number"))
)
SLEEP = Statement(sa.select(sa.func.pg_sleep(bindparam("seconds", type_=sa.Float))))
PID = Statement(sa.select(sa.func.pg_backend_pid()))


class Something(Dto):
    """The result of a command."""

    thing_id: UUID
    name: str = ""


class ThingHappened(Event):
    type = "probe.thing_happened"

    thing: UUID
    number: int

    @property
    def key(self) -> UUID:
        return self.thing


@dataclass
class FakeClock:
    """A clock that only `forward` advances."""

    now: datetime = field(default_factory=lambda: datetime.now(UTC))

    def __call__(self) -> datetime:
        return self.now

    def forward(self, **span: float) -> None:
        self.now += timedelta(**span)


class ProbeTables(ContextTables):
    def __init__(self) -> None:
        super().__init__()
        self.things: Table[str, int] = Table()


class ProbeMemoryStore(MemoryUnitOfWork):
    def __init__(self, tables: ProbeTables, clock: Any) -> None:
        super().__init__(tables, clock)
        self._things = tables.things

    async def add(self, name: str, number: int = 0) -> None:
        self._things.put(name, number)

    async def count(self) -> int:
        return len(self._things)


class ProbeSqlStore(SqlUnitOfWork):
    async def add(self, name: str, number: int = 0) -> None:
        await self._connection.execute(ADD, name=name, number=number)

    async def count(self) -> int:
        count: int = await self._connection.fetch_value(COUNT)
        return count


@pytest.fixture
def ctx() -> CallContext:
    return system_context("test", request_id="request-of-a-test")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(scope="session")
async def probe_database(server_url: str) -> AsyncIterator[str]:
    """The URL of a database with the schema `probe`."""
    name = f"probe_{new_id().hex}"
    await on_server(server_url, f"CREATE DATABASE {name}")
    await create_schema(url_of(server_url, name))
    yield url_of(server_url, name)
    await on_server(server_url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def probe_url(probe_database: str) -> str:
    """The URL of the database, with empty tables.

    The TRUNCATE fails after 5 s if an earlier test has left a transaction open.
    """
    await on_server(probe_database, EMPTY)
    return probe_database


@pytest.fixture
async def probe(probe_url: str) -> AsyncIterator[Postgres]:
    database = Postgres(probe_url, PoolSize(min_size=2, max_size=10, timeout=5))
    yield database
    await database.close()


@pytest.fixture(params=["memory", "sql"])
async def backend(
    request: pytest.FixtureRequest, clock: FakeClock, probe: Postgres
) -> ContextPersistence[Any]:
    if request.param == "memory":
        return build_memory_persistence(ProbeTables(), ProbeMemoryStore, clock)
    return build_sql_persistence(probe, STATEMENTS, ProbeSqlStore, clock)


async def create_schema(url: str) -> None:
    engine = create_async_engine(url)
    async with engine.begin() as connection:
        await connection.execute(CreateSchema("probe"))
        await connection.run_sync(metadata.create_all)
    await engine.dispose()
