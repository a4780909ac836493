"""A connection that records each statement as a span of OpenTelemetry."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from markethall.shared.observability.opentelemetry import client_span
from markethall.shared.persistence.postgres.connection import Connection
from markethall.shared.persistence.postgres.statement import Statement

if TYPE_CHECKING:
    from asyncpg.protocol import Record


class TracedConnection(Connection):
    """The spans have the statements, never their values."""

    async def fetch_one(self, statement: Statement, **values: Any) -> "Record | None":
        with _span(statement):
            return await super().fetch_one(statement, **values)

    async def fetch_all(self, statement: Statement, **values: Any) -> "list[Record]":
        with _span(statement):
            return await super().fetch_all(statement, **values)

    async def fetch_value(self, statement: Statement, **values: Any) -> Any:
        with _span(statement):
            return await super().fetch_value(statement, **values)

    async def execute(self, statement: Statement, **values: Any) -> int:
        with _span(statement):
            return await super().execute(statement, **values)

    async def execute_many(self, statement: Statement, rows: Iterable[Mapping[str, Any]]) -> None:
        with _span(statement):
            await super().execute_many(statement, rows)

    async def copy_rows(
        self, table: str, column_names: Sequence[str], rows: Iterable[Sequence[Any]]
    ) -> None:
        with client_span(f"COPY {table}", db_system="postgresql"):
            await super().copy_rows(table, column_names, rows)


def _span(statement: Statement) -> AbstractContextManager[Any]:
    sql = statement.sql
    return client_span(_name_of(sql), db_system="postgresql", db_statement=sql)


def _name_of(sql: str) -> str:
    """Return the operation: the first word, such as `SELECT`, or `WITH` for a query with parts."""
    return sql.split(maxsplit=1)[0]
