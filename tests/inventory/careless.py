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

from markethall.inventory.domain import Goods, Hold, Line
from markethall.inventory.sql import SqlStore, reservations
from markethall.inventory.sql.parameters import free_of, units, uuid
from markethall.inventory.sql.tables import stock
from markethall.shared.db import Statement

ENOUGH: Final = re.compile(r"ELSE 0 END >= ")
TAKING: Final = re.compile(r"(inventory\.take\((\S+), (\S+), line\.reserved\))")
BLIND: Final = """, blind AS (
    UPDATE inventory.stock s SET reserved = s.reserved + line.reserved FROM line
    WHERE s.product_id = {product} AND s.warehouse_id = {warehouse})"""
LOOK: Final = Statement(
    sa.select(free_of(stock) >= units("units")).where(
        stock.c.product_id == uuid("of"), stock.c.warehouse_id == uuid("in_warehouse")
    )
)


@contextmanager
def in_steps() -> Iterator[None]:
    """Two buyers look at the same moment, whatever the machine is doing."""
    take, looked, second = SqlStore.take, count(1), asyncio.Event()

    async def careless(store: SqlStore, hold: Hold, goods: Goods, *, ahead: bool) -> Line | None:
        if not await _looks_enough(store, goods):
            return None
        if next(looked) == 2:
            second.set()
        await second.wait()
        return await take(store, hold, goods, ahead=ahead)

    async def not_at_once(*_: object) -> None:
        pass

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SqlStore, "reserve_at_once", not_at_once)
        patch.setattr(reservations, "TAKE", _blind(reservations.TAKE))
        patch.setattr(SqlStore, "take", careless)
        yield


@contextmanager
def at_once() -> Iterator[None]:
    """It looks and takes in one statement, but what it takes is not what it looks at."""
    blind = _blind_at_once(reservations.RESERVE_AT_ONCE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reservations, "RESERVE_AT_ONCE", blind)
        yield


async def _looks_enough(store: SqlStore, goods: Goods) -> bool:
    return bool(
        await store._session.value(
            LOOK, of=goods.product_id, in_warehouse=goods.warehouse_id, units=goods.quantity
        )
    )


def _blind(statement: Statement) -> Statement:
    """Without its condition."""
    blind = copy(statement)
    blind._compile()
    [condition] = ENOUGH.finditer(blind._sql)
    blind._sql = f"{blind._sql[: condition.end()]}-1000000 + {blind._sql[condition.end() :]}"
    return blind


def _blind_at_once(statement: Statement) -> Statement:
    """It takes without asking the function that has the condition."""
    blind = copy(statement)
    blind._compile()
    [(call, product, warehouse)] = TAKING.findall(blind._sql)
    before, select, after = blind._sql.replace(call, "NULL").rpartition("\n SELECT")
    blind._sql = before + BLIND.format(product=product, warehouse=warehouse) + select + after
    return blind
