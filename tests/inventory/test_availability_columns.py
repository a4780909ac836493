"""Test that the columns in catalogue/sql/expressions.py equal those of the real tables."""

import pytest
import sqlalchemy as sa

from markethall.inventory.catalogue.sql.expressions import line_columns, stock_columns
from markethall.inventory.reservations.sql.tables import reservation_lines
from markethall.inventory.stock.sql.tables import stock


@pytest.mark.parametrize(
    ("stub", "table"), [(stock_columns, stock), (line_columns, reservation_lines)]
)
def test_stub_has_name_and_columns_of_its_table(stub: sa.TableClause, table: sa.Table) -> None:
    assert (stub.schema, stub.name) == (table.schema, table.name)
    assert {column.name: str(column.type) for column in stub.c} == {
        column.name: str(column.type) for column in table.c if column.name in stub.c
    }
