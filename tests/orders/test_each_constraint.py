"""Each constraint of the schema `orders` refuses a row that breaks it."""

from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any, Final

import asyncpg
import pytest

from markethall.shared.kernel.ids import new_id
from tests.conftest import plain
from tests.orders.broken_constraints import CHECKS, FOREIGN_KEYS, UNIQUE
from tests.orders.constraint_rows import FURTHER, ROWS, further_row, insert_row

if TYPE_CHECKING:
    from tests.orders.constraint_rows import Connection

# `test_triggers.py` tests the constraint trigger; the second one belongs to the table of migrations
OTHERS: Final = {"lines_match_subtotal", "alembic_version_pkc"}
LIST_CONSTRAINTS: Final = """
SELECT conname FROM pg_constraint
WHERE connamespace = 'orders'::regnamespace AND contype <> 'n'
UNION SELECT index.relname FROM pg_index
JOIN pg_class AS index ON index.oid = indexrelid
WHERE index.relnamespace = 'orders'::regnamespace AND indisunique
"""
LIST_CHECKS: Final = """
SELECT conname FROM pg_constraint
WHERE conrelid = format('orders.%I', $1::text)::regclass AND contype = 'c'
"""


@pytest.fixture
async def connection(database_copy: str) -> AsyncIterator["Connection"]:
    """A transaction that is rolled back, with a valid row in each table."""
    connection = await asyncpg.connect(plain(database_copy))
    transaction = connection.transaction()
    await transaction.start()
    for table, row in ROWS.items():
        await insert_row(connection, table, row)
    yield connection
    await transaction.rollback()
    await connection.close()


async def expect_refused(
    connection: "Connection", table: str, row: Mapping[str, Any], constraint: str
) -> None:
    with pytest.raises(asyncpg.IntegrityConstraintViolationError) as caught:
        await insert_row(connection, table, row)
    assert caught.value.constraint_name == constraint


async def drop_other_checks(connection: "Connection", table: str, check: str) -> None:
    """Drop the other checks of the table, because one of them might refuse the row first."""
    # a table with pending triggers cannot be altered
    await connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
    others = [row["conname"] for row in await connection.fetch(LIST_CHECKS, table)]
    others.remove(check)
    if others:
        drops = ", ".join(f"DROP CONSTRAINT {other}" for other in others)
        await connection.execute(f'ALTER TABLE orders."{table}" {drops}')


@pytest.mark.parametrize(
    ("table", "name", "changes"),
    [
        (table, name, changes)
        for table, checks in CHECKS.items()
        for name, cases in checks.items()
        for changes in cases
    ],
    ids=lambda value: str(value)[:60],
)
async def test_check_refuses_a_broken_row(
    connection: "Connection", table: str, name: str, changes: Mapping[str, Any]
) -> None:
    check = f"ck_{table}_{name}"
    await drop_other_checks(connection, table, check)

    await expect_refused(connection, table, further_row(table, **changes), check)


@pytest.mark.parametrize(
    ("table", "name"), [(table, name) for table, names in UNIQUE.items() for name in names]
)
async def test_unique_values_are_refused_a_second_time(
    connection: "Connection", table: str, name: str
) -> None:
    same = {column: ROWS[table][column] for column in UNIQUE[table][name]}
    row = further_row(table, **same)

    await expect_refused(connection, table, row, f"uq_{table}_{name}")


@pytest.mark.parametrize("table", ROWS)
async def test_primary_key_is_refused_a_second_time(connection: "Connection", table: str) -> None:
    await expect_refused(connection, table, ROWS[table], f"pk_{table}")


@pytest.mark.parametrize(
    ("table", "column"),
    [(table, column) for table, columns in FOREIGN_KEYS.items() for column in columns],
)
async def test_reference_to_a_missing_row_is_refused(
    connection: "Connection", table: str, column: str
) -> None:
    row = further_row(table, **{column: new_id()})

    await expect_refused(connection, table, row, f"fk_{table}_{column}")


async def test_further_row_without_a_change_is_accepted(connection: "Connection") -> None:
    for table, own_columns in FURTHER.items():
        if own_columns:  # tables without own columns only join rows of other tables
            await insert_row(connection, table, further_row(table))


async def test_each_constraint_of_the_database_is_in_a_test(connection: "Connection") -> None:
    tested = {f"pk_{table}" for table in ROWS} | OTHERS
    tested |= {f"ck_{table}_{name}" for table, checks in CHECKS.items() for name in checks}
    tested |= {f"uq_{table}_{name}" for table, names in UNIQUE.items() for name in names}
    tested |= {f"fk_{table}_{name}" for table, names in FOREIGN_KEYS.items() for name in names}

    stored = {row["conname"] for row in await connection.fetch(LIST_CONSTRAINTS)}

    assert tested == stored
