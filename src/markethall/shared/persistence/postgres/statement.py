"""SQLAlchemy Core statements, each compiled once."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

from sqlalchemy import ColumnElement, Text, literal_column
from sqlalchemy.dialects.postgresql.asyncpg import dialect as asyncpg_dialect
from sqlalchemy.sql import ClauseElement
from sqlalchemy.sql.compiler import SQLCompiler

_DIALECT = asyncpg_dialect()  # type: ignore[no-untyped-call]


class Statement:
    """A Core statement, compiled for asyncpg at first use.

    Every parameter is passed by name. JSON columns are written as text and read with a cast to
    text; for all other types asyncpg converts the values.
    """

    def __init__(self, clause: ClauseElement) -> None:
        self._clause = clause
        self._sql = ""
        self._parameter_names: Sequence[str] = ()
        self._default_values: Mapping[str, Any] = {}

    def bind(self, values: Mapping[str, Any]) -> tuple[str, list[Any]]:
        """Return the SQL and its positional arguments. Raises KeyError for a missing value."""
        sql = self._sql or self.sql
        if self._default_values:
            values = {**self._default_values, **values}
        return sql, [values[name] for name in self._parameter_names]

    @property
    def sql(self) -> str:
        """The SQL with the placeholders of asyncpg."""
        if not self._sql:
            self._compile()
        return self._sql

    def _compile(self) -> None:
        compiled = cast("SQLCompiler", self._clause.compile(dialect=_DIALECT))
        self._parameter_names = tuple(compiled.positiontup or ())
        self._default_values = {
            name: bind.value for name, bind in compiled.binds.items() if not bind.required
        }
        self._sql = str(compiled)
        # its objects take about twenty times as much memory as the SQL
        del self._clause


def sql_literal(text: str) -> ColumnElement[str]:
    """Return the text as an SQL literal.

    The planner can use a partial index only if it knows the value, so a parameter is not enough.
    `text` is not escaped, so it must be a constant of this program.
    """
    return literal_column(f"'{text}'", Text)
