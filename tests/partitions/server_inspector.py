"""What is to be seen of a hall from behind: is it at rest, what it wrote, and its clocks.

A halls's story is played from outside. This is for what no address tells: whether events are still
on their way, what was published and stored, and how to be late without waiting for it.
"""

import asyncio
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from enum import Enum
from typing import Any, Final, NamedTuple, Protocol
from uuid import UUID

import asyncpg

from markethall.container import Container
from markethall.contexts import context_names, topology
from markethall.shared.messaging.events import EventEnvelope
from tests.conftest import plain

TIMEOUT_SECONDS: Final = 60
# counts that a lost race or a restart may skip: the order of the rows is compared, not the number
_SKIPPED: Final = {"stock_movement.number"}
_QUEUES: Final = {"outbox", "inbox"}


class _Clock(NamedTuple):
    context: str
    table: str
    key: str
    column: str
    in_memory: str


class Clock(Enum):
    """The times at which something happens by itself."""

    RESERVATION = _Clock("inventory", "reservation", "reservation_id", "expires_at", "reservations")
    PAYMENT = _Clock("payments", "payment", "payment_id", "expires_at", "payments")
    ORDER = _Clock("orders", '"order"', "order_id", "expires_at", "orders")
    OPERATION = _Clock("payments", "operation", "operation_id", "due_at", "operations")


class ServerInspector(Protocol):
    """Lines are as they are, with ids and times; the log makes them comparable."""

    async def wait_until_idle(self) -> None:
        """Until every event was handled by everybody who listens to it."""

    async def make_due(self, clock: Clock, key: str) -> None:
        """The time has come."""

    async def events(self) -> list[str]:
        """All that was published, context by context, in the order of publishing."""

    async def inboxes(self) -> list[str]:
        """What became of each event at each listener, in no order."""

    async def tables(self) -> Mapping[str, list[str]]:
        """The rows of each table, in no order. Empty where there are no tables."""


class SqlInspector:
    """The databases, context by context; they may all be one."""

    def __init__(self, urls: Mapping[str, str]) -> None:
        self._urls = urls
        self._connections: dict[str, asyncpg.Connection[asyncpg.Record]] = {}

    async def close(self) -> None:
        for connection in self._connections.values():
            await connection.close()

    async def wait_until_idle(self) -> None:
        await _wait_until_empty(self._left)

    async def make_due(self, clock: Clock, key: str) -> None:
        where = clock.value
        await self._all(
            where.context,
            f"UPDATE {where.context}.{where.table} SET {where.column} = now() - interval '1 s'"
            f" WHERE {where.key} = $1",
            UUID(key),
        )

    async def events(self) -> list[str]:
        found = []
        for context in context_names():
            query = f"SELECT * FROM {context}.outbox ORDER BY seq"
            found += [_event(context, dict(row)) for row in await self._all(context, query)]
        return found

    async def inboxes(self) -> list[str]:
        return [
            _inbox_line(context, row["handler"], row["event_id"], row["state"])
            for context in context_names()
            for row in await self._all(context, f"SELECT * FROM {context}.inbox")
        ]

    async def tables(self) -> Mapping[str, list[str]]:
        found = {}
        for context in context_names():
            for table in await self._names(context):
                rows = await self._all(context, f'SELECT * FROM {context}."{table}"')
                found[f"{context}.{table}"] = [_row(table, row) for row in rows]
        return found

    async def _names(self, context: str) -> list[str]:
        query = "SELECT tablename FROM pg_tables WHERE schemaname = $1 ORDER BY tablename"
        names = [row["tablename"] for row in await self._all(context, query, context)]
        return [name for name in names if name not in _QUEUES and "alembic" not in name]

    async def _left(self) -> list[str]:
        """Listeners first: what they hear of later was published later, and is seen as missing."""
        received = [
            row
            for context in ("orders", *context_names())
            for row in await self._all(
                context,
                f"SELECT handler, event_id, state FROM {context}.inbox",
            )
        ]
        handled = {(row["handler"], row["event_id"]) for row in received if row["state"] == "done"}
        left = [f"{row['handler']} is {row['state']}" for row in received if row["state"] != "done"]
        for context in context_names():
            for row in await self._all(context, f"SELECT * FROM {context}.outbox"):
                if row["published_at"] is None:
                    left.append(f"{row['type']} is not sent")
                left += [
                    f"{row['type']} has not come to {handler}"
                    for subscriber in context_names()
                    for handler in topology().handler_keys(subscriber).get(row["type"], ())
                    if (handler, row["event_id"]) not in handled
                ]
        return left

    async def _all(self, context: str, query: str, *values: object) -> list[asyncpg.Record]:
        url = self._urls[context]
        if url not in self._connections:
            self._connections[url] = await asyncpg.connect(plain(url))
        found: list[asyncpg.Record] = await self._connections[url].fetch(query, *values)
        return found


class MemoryInspector:
    """The tables in memory of a hall in this process.

    What was sent is forgotten there, so it is noted as it is published. The entities are no rows:
    they are compared by what the answers say of them.
    """

    def __init__(self, container: Container) -> None:
        self._backends = {
            context: getattr(container, f"{context}_context").persistence()
            for context in context_names()
        }
        self._published: dict[str, dict[UUID, EventEnvelope]] = {
            context: {} for context in context_names()
        }
        for context, backend in self._backends.items():
            self._listen(context, backend)

    async def wait_until_idle(self) -> None:
        await _wait_until_empty(self._left)

    async def make_due(self, clock: Clock, key: str) -> None:
        where = clock.value
        async with self._backends[where.context].database.write_transaction() as tables:
            table = getattr(tables, where.in_memory)
            late = replace(table.get(UUID(key)), **{where.column: datetime.now(UTC)})
            table.put(UUID(key), late)

    async def events(self) -> list[str]:
        return [
            _event(context, envelope.model_dump())
            for context, published in self._published.items()
            for envelope in published.values()
        ]

    async def inboxes(self) -> list[str]:
        return [
            _inbox_line(context, row.delivery.handler, row.delivery.envelope.event_id, row.state)
            for context, row in self._rows()
        ]

    async def tables(self) -> Mapping[str, list[str]]:
        return {}

    def _listen(self, context: str, backend: Any) -> None:
        wake, published = backend.database.after_publish, self._published[context]

        def noted() -> None:
            # committed, and the relay has not had its turn yet
            published.update({one.event_id: one for one in backend.database.tables.outbox.rows()})
            wake()

        backend.database.after_publish = noted

    async def _left(self) -> list[str]:
        waiting = [row.delivery.handler for _, row in self._rows() if row.state != "done"]
        unsent = [
            envelope.type
            for backend in self._backends.values()
            for envelope in backend.database.tables.outbox.rows()
        ]
        return [*unsent, *waiting]

    def _rows(self) -> Iterator[tuple[str, Any]]:
        for context, backend in self._backends.items():
            for row in backend.database.tables.inbox.rows():
                yield context, row


async def _wait_until_empty(left: Any) -> None:
    deadline, still = time.monotonic() + TIMEOUT_SECONDS, ["?"]
    while still:
        if time.monotonic() > deadline:
            raise AssertionError(f"does not come to rest: {still[:5]}")
        still = await left()
        if still:
            await asyncio.sleep(0.01)


def _event(context: str, row: Mapping[str, Any]) -> str:
    parts = {name: row[name] for name in ("event_id", "key", "request_id", "traceparent")}
    named = " ".join(f"{name}={value}" for name, value in parts.items())
    return f"{context} published {row['type']} v{row['version']} {named} {row['payload']}"


def _inbox_line(context: str, handler: str, event_id: UUID, state: str) -> str:
    return f"{context} received {event_id} {handler} {state}"


def _row(table: str, row: asyncpg.Record) -> str:
    return ", ".join(
        f"{name}={_cell(value)}" for name, value in row.items() if f"{table}.{name}" not in _SKIPPED
    )


def _cell(value: object) -> str:
    return "<bytes>" if isinstance(value, bytes) else str(value)
