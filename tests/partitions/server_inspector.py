"""Inspects the storage of a server: pending events, published events, rows and expiry times.

The scenario itself uses only the HTTP API. The inspector reads state that the API does not show,
and changes expiry times, so that the scenario need not wait.
"""

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from enum import Enum
from typing import Any, Final, NamedTuple, Protocol
from uuid import UUID

import asyncpg

from markethall.container import ApplicationContainer
from markethall.contexts import context_names, topology
from markethall.shared.messaging.events import EventEnvelope
from tests.conftest import plain
from tests.progress import progress_limit

TIMEOUT_SECONDS: Final = 60
# Columns that are not compared. Movement numbers have a gap after a rollback. The chain of a
# posting, and so its sequence number, depends on the random id of its payment.
_SKIPPED: Final = {"stock_movement.number", "posting.chain", "posting.sequence"}
_SKIPPED_TABLES: Final = {"outbox", "inbox", "posting_chain"}


class _Clock(NamedTuple):
    context: str
    table: str
    key: str
    column: str
    in_memory: str


class Clock(Enum):
    """The columns with the time at which a periodic job handles an entity."""

    RESERVATION = _Clock("inventory", "reservation", "reservation_id", "expires_at", "reservations")
    PAYMENT = _Clock("payments", "payment", "payment_id", "expires_at", "payments")
    ORDER = _Clock("orders", '"order"', "order_id", "expires_at", "orders")
    OPERATION = _Clock("payments", "operation", "operation_id", "due_at", "operations")


class ServerInspector(Protocol):
    """Reads and changes the storage. The log normalizes ids and times in the returned lines."""

    async def wait_until_idle(self) -> None:
        """Wait until every event was processed by all its handlers. Raises AssertionError."""

    async def make_due(self, clock: Clock, key: str) -> None:
        """Set the time of the entity with this id to now or to the past."""

    async def events(self) -> list[str]:
        """Return all published events, context by context, in the order of publishing."""

    async def inboxes(self) -> list[str]:
        """Return the state of each event at each handler, without an order."""

    async def tables(self) -> Mapping[str, list[str]]:
        """Return the rows of each table, without an order. Empty for memory storage."""


class SqlInspector:
    """Inspects the databases of the contexts; several contexts may share one database."""

    def __init__(self, urls: Mapping[str, str]) -> None:
        self._urls = urls
        self._connections: dict[str, asyncpg.Connection[asyncpg.Record]] = {}

    async def close(self) -> None:
        for connection in self._connections.values():
            await connection.close()

    async def wait_until_idle(self) -> None:
        await _wait_until_empty(self._pending)

    async def make_due(self, clock: Clock, key: str) -> None:
        columns = clock.value
        await self._fetch_all(
            columns.context,
            f"UPDATE {columns.context}.{columns.table} SET {columns.column} = now() - "
            f"interval '1 s'"
            f" WHERE {columns.key} = $1",
            UUID(key),
        )

    async def events(self) -> list[str]:
        found = []
        for context in context_names():
            query = f"SELECT * FROM {context}.outbox ORDER BY seq"
            found += [_event(context, dict(row)) for row in await self._fetch_all(context, query)]
        return found

    async def inboxes(self) -> list[str]:
        return [
            _inbox_line(context, row["handler"], row["event_id"], row["state"])
            for context in context_names()
            for row in await self._fetch_all(context, f"SELECT * FROM {context}.inbox")
        ]

    async def tables(self) -> Mapping[str, list[str]]:
        found = {}
        for context in context_names():
            for table in await self._table_names(context):
                rows = await self._fetch_all(context, f'SELECT * FROM {context}."{table}"')
                found[f"{context}.{table}"] = [_row(table, row) for row in rows]
        return found

    async def _table_names(self, context: str) -> list[str]:
        query = "SELECT tablename FROM pg_tables WHERE schemaname = $1 ORDER BY tablename"
        names = [row["tablename"] for row in await self._fetch_all(context, query, context)]
        return [name for name in names if name not in _SKIPPED_TABLES and "alembic" not in name]

    async def _pending(self) -> list[str]:
        """Return pending events.

        Inboxes are read before outboxes, so that an event that is published between the two reads
        counts as pending.
        """
        received = [
            row
            for context in ("orders", *context_names())
            for row in await self._fetch_all(
                context,
                f"SELECT handler, event_id, state FROM {context}.inbox",
            )
        ]
        handled = {(row["handler"], row["event_id"]) for row in received if row["state"] == "done"}
        pending = [
            f"{row['handler']} is {row['state']}" for row in received if row["state"] != "done"
        ]
        for context in context_names():
            for row in await self._fetch_all(context, f"SELECT * FROM {context}.outbox"):
                if row["published_at"] is None:
                    pending.append(f"{row['type']} is not published")
                pending += [
                    f"{row['type']} was not received by {handler}"
                    for subscriber in context_names()
                    for handler in topology().handler_keys(subscriber).get(row["type"], ())
                    if (handler, row["event_id"]) not in handled
                ]
        return pending

    async def _fetch_all(self, context: str, query: str, *values: object) -> list[asyncpg.Record]:
        url = self._urls[context]
        if url not in self._connections:
            self._connections[url] = await asyncpg.connect(plain(url))
        found: list[asyncpg.Record] = await self._connections[url].fetch(query, *values)
        return found


class MemoryInspector:
    """Inspects applications with memory storage in this process.

    The memory outbox deletes relayed events, so this class copies them when they are published.
    `tables` is empty, because only responses and events are compared.
    """

    def __init__(self, container: ApplicationContainer) -> None:
        self._backends = {
            context: context_container.persistence()
            for context, context_container in container.contexts.items()
        }
        self._published: dict[str, dict[UUID, EventEnvelope]] = {
            context: {} for context in context_names()
        }
        for context, backend in self._backends.items():
            self._record_published(context, backend)

    async def wait_until_idle(self) -> None:
        await _wait_until_empty(self._pending)

    async def make_due(self, clock: Clock, key: str) -> None:
        columns = clock.value
        async with self._backends[columns.context].database.write_transaction() as tables:
            table = getattr(tables, columns.in_memory)
            due = replace(table.get(UUID(key)), **{columns.column: datetime.now(UTC)})
            table.put(UUID(key), due)

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

    def _record_published(self, context: str, backend: Any) -> None:
        notify, published = backend.database.after_publish, self._published[context]

        def record() -> None:
            # called after the commit and before the relay runs
            published.update({one.event_id: one for one in backend.database.tables.outbox.rows()})
            notify()

        backend.database.after_publish = record

    async def _pending(self) -> list[str]:
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


async def _wait_until_empty(pending: Any) -> None:
    remaining = ["?"]
    try:
        async with progress_limit(TIMEOUT_SECONDS) as limit:
            while remaining := await pending():
                limit.note(remaining)
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"still pending: {remaining[:5]}") from None


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
    """Return the text of a column, with bytes masked, because all of them are random hashes."""
    if isinstance(value, list):
        return f"[{', '.join(_cell(item) for item in value)}]"
    return "<bytes>" if isinstance(value, bytes) else str(value)
