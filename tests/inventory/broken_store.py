"""The mistake that most shops make: to look whether there is enough, and then to take it.

Each of these puts it in the place of the one conditional statement, for as long as it lasts.
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

from markethall.inventory.catalogue.sql.availability import allocatable_quantity
from markethall.inventory.catalogue.sql.parameters import bigint_parameter, uuid_parameter
from markethall.inventory.reservations.domain.reservations import Reservation, ReservationLine
from markethall.inventory.reservations.sql import statements
from markethall.inventory.sql import SqlInventoryStore
from markethall.inventory.stock.domain.stock import StockQuantity
from markethall.inventory.stock.sql.tables import stock
from markethall.shared.persistence.postgres import Statement

IS_ALLOCATABLE: Final = re.compile(r"ELSE 0 END >= ")
RESERVE_STOCK_CALL: Final = re.compile(
    r"(inventory\.reserve_stock\((\S+), (\S+), line\.reserved\))"
)
UNCONDITIONAL_UPDATE: Final = """, blind AS (
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
    """Two buyers look at the same moment, whatever the machine is doing."""
    reserve_line, looked, second = SqlInventoryStore.reserve_line, count(1), asyncio.Event()

    async def careless(
        store: SqlInventoryStore,
        reservation: Reservation,
        stock_quantity: StockQuantity,
        *,
        include_backorder: bool,
    ) -> ReservationLine | None:
        if not await _has_enough(store, stock_quantity):
            return None
        if next(looked) == 2:
            second.set()
        await second.wait()
        return await reserve_line(
            store, reservation, stock_quantity, include_backorder=include_backorder
        )

    async def not_at_once(*_: object) -> None:
        pass

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SqlInventoryStore, "reserve_single_statement", not_at_once)
        patch.setattr(statements, "RESERVE_LINE", _without_condition(statements.RESERVE_LINE))
        patch.setattr(SqlInventoryStore, "reserve_line", careless)
        yield


@contextmanager
def unconditional_single_statement() -> Iterator[None]:
    """It looks and takes in one statement, but what it takes is not what it looks at."""
    blind = _without_reserve_function(statements.RESERVE_SINGLE_STATEMENT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(statements, "RESERVE_SINGLE_STATEMENT", blind)
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
    """Without its condition."""
    blind = copy(statement)
    blind._compile()
    [condition] = IS_ALLOCATABLE.finditer(blind._sql)
    blind._sql = f"{blind._sql[: condition.end()]}-1000000 + {blind._sql[condition.end() :]}"
    return blind


def _without_reserve_function(statement: Statement) -> Statement:
    """It takes without asking the function that has the condition."""
    blind = copy(statement)
    blind._compile()
    [(call, product, warehouse)] = RESERVE_STOCK_CALL.findall(blind._sql)
    before, select, after = blind._sql.replace(call, "NULL").rpartition("\n SELECT")
    blind._sql = (
        before + UNCONDITIONAL_UPDATE.format(product=product, warehouse=warehouse) + select + after
    )
    return blind
