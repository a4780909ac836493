"""Two broken versions of SqlInventoryStore: their UPDATE of the stock has no condition.

Each context manager patches SqlInventoryStore until it exits.
"""

import asyncio
import re
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from itertools import count
from typing import Final

import pytest
import sqlalchemy as sa

from markethall.inventory.catalogue.sql.expressions import (
    allocatable_quantity,
    bigint_parameter,
    uuid_parameter,
)
from markethall.inventory.reservations.domain.reservations import Reservation, ReservationLine
from markethall.inventory.reservations.sql import statements
from markethall.inventory.sql import SqlInventoryStore
from markethall.inventory.stock.domain import StockQuantity
from markethall.inventory.stock.sql.tables import stock
from markethall.shared.persistence.postgres import Statement

IS_ALLOCATABLE: Final = re.compile(r"ELSE 0 END >= ")
RESERVE_STOCK_CALL: Final = re.compile(
    r"(inventory\.reserve_stock\((\S+), (\S+), line\.reserved\))"
)
UNCONDITIONAL_UPDATE: Final = """, unconditional AS (
    UPDATE inventory.stock s SET reserved = s.reserved + line.reserved FROM line
    WHERE s.product_id = {product} AND s.warehouse_id = {warehouse})"""
CHECK_STOCK: Final = Statement(
    sa.select(allocatable_quantity(stock) >= bigint_parameter("quantity")).where(
        stock.c.product_id == uuid_parameter("product_id"),
        stock.c.warehouse_id == uuid_parameter("warehouse_id"),
    )
)


@contextmanager
def check_then_reserve() -> Iterator[None]:
    """Check the stock and reserve in two statements.

    No buyer reserves until two buyers have checked, so both see the last unit as available.
    """
    reserve_line, checks, two_have_checked = (
        SqlInventoryStore.reserve_line,
        count(1),
        asyncio.Event(),
    )

    async def check_and_reserve(
        store: SqlInventoryStore,
        reservation: Reservation,
        stock_quantity: StockQuantity,
        *,
        include_backorder: bool,
    ) -> ReservationLine | None:
        if not await _has_enough(store, stock_quantity):
            return None
        if next(checks) == 2:
            two_have_checked.set()
        await two_have_checked.wait()
        return await reserve_line(
            store, reservation, stock_quantity, include_backorder=include_backorder
        )

    async def no_single_statement(*_: object) -> None:
        pass

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SqlInventoryStore, "reserve_single_statement", no_single_statement)
        patch.setattr(statements, "RESERVE_LINE", _without_condition(statements.RESERVE_LINE))
        patch.setattr(SqlInventoryStore, "reserve_line", check_and_reserve)
        yield


@contextmanager
def unconditional_single_statement() -> Iterator[None]:
    """Reserve in one statement, whose UPDATE has no condition on the stock."""
    unconditional = _without_reserve_function(statements.RESERVE_SINGLE_STATEMENT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(statements, "RESERVE_SINGLE_STATEMENT", unconditional)
        yield


async def _has_enough(store: SqlInventoryStore, stock_quantity: StockQuantity) -> bool:
    return bool(
        await store._connection.fetch_value(
            CHECK_STOCK,
            product_id=stock_quantity.product_id,
            warehouse_id=stock_quantity.warehouse_id,
            quantity=stock_quantity.quantity,
        )
    )


def _without_condition(statement: Statement) -> Statement:
    sql = statement.sql
    [condition] = IS_ALLOCATABLE.finditer(sql)
    changed = copy(statement)
    changed._sql = f"{sql[: condition.end()]}-1000000 + {sql[condition.end() :]}"
    return changed


def _without_reserve_function(statement: Statement) -> Statement:
    """Replace the call of the SQL function `reserve_stock` with an UPDATE without a condition."""
    sql = statement.sql
    [(call, product, warehouse)] = RESERVE_STOCK_CALL.findall(sql)
    before, select, after = sql.replace(call, "NULL").rpartition("\n SELECT")
    changed = copy(statement)
    changed._sql = (
        before + UNCONDITIONAL_UPDATE.format(product=product, warehouse=warehouse) + select + after
    )
    return changed
