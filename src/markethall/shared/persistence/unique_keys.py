"""The integrity check that the unique keys of a schema exist in the database.

Unique indexes enforce the rule "one effect per key" (of an idempotency record, an event, a
webhook). So the check reads no rows: it only tests that the indexes exist and are valid.
"""

from collections.abc import Iterator
from datetime import timedelta

import sqlalchemy as sa

from markethall.shared.kernel.integrity import Findings, IntegrityCheck, OffendingRow
from markethall.shared.persistence.postgres import Connection, Postgres, Statement

_SELECT_UNIQUE_INDEXES = Statement(
    sa.text(
        "SELECT index_class.relname FROM pg_index"
        " JOIN pg_class AS index_class ON index_class.oid = pg_index.indexrelid"
        " JOIN pg_namespace ON pg_namespace.oid = index_class.relnamespace"
        " WHERE pg_namespace.nspname = :schema AND indisunique AND indisvalid"
    ).bindparams(sa.bindparam("schema", type_=sa.Text))
)


class UniqueKeysCheck:
    def __init__(self, postgres: Postgres, metadata: sa.MetaData) -> None:
        self._postgres = postgres
        self._metadata = metadata

    def list_checks(self) -> list[IntegrityCheck]:
        return [
            IntegrityCheck(
                "O6.unique_keys_exist",
                "The unique indexes exist that allow one effect per key, event and webhook.",
                self._find_missing_indexes,
            )
        ]

    async def _find_missing_indexes(self, findings: Findings, _: timedelta) -> None:
        async with self._postgres.read_session() as connection:
            existing = await _list_unique_indexes(connection, str(self._metadata.schema))
        for table, index in list_unique_indexes(self._metadata):
            findings.count_checked(1)
            if index not in existing:
                findings.add(
                    OffendingRow(row=f"index {index} of {table}", problem="missing or not valid")
                )


def list_unique_indexes(metadata: sa.MetaData) -> Iterator[tuple[str, str]]:
    """Return table and name of each unique index that the tables declare."""
    for table in metadata.sorted_tables:
        keys = [
            constraint
            for constraint in table.constraints
            if isinstance(constraint, sa.PrimaryKeyConstraint | sa.UniqueConstraint)
        ]
        indexes = [index for index in table.indexes if index.unique]
        for item in (*keys, *indexes):
            yield table.name, str(item.name)


async def _list_unique_indexes(connection: Connection, schema: str) -> set[str]:
    rows = await connection.fetch_all(_SELECT_UNIQUE_INDEXES, schema=schema)
    return {row["relname"] for row in rows}
