"""The mistake that most shops make: to look whether there is enough, and then to take it.

`planted()` puts it in the place of the one conditional statement, for as long as it lasts.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from itertools import count
from typing import Final

import pytest
import sqlalchemy as sa

from markethall.inventory.domain import Goods, Hold, Line
from markethall.inventory.sql import SqlStore, reservations
from markethall.inventory.sql.parameters import units, uuid
from markethall.inventory.sql.tables import stock
from markethall.shared.db import Statement

ENOUGH: Final = "stock.reserved >= "
LOOK: Final = Statement(
    sa.select(stock.c.on_hand - stock.c.reserved >= units("units")).where(
        stock.c.product_id == uuid("of"), stock.c.warehouse_id == uuid("in_warehouse")
    )
)


@contextmanager
def planted() -> Iterator[None]:
    """Two buyers look at the same moment, whatever the machine is doing."""
    take, looked, second = SqlStore.take, count(1), asyncio.Event()

    async def careless(store: SqlStore, hold: Hold, goods: Goods) -> Line | None:
        if not await _looks_enough(store, goods):
            return None
        if next(looked) == 2:
            second.set()
        await second.wait()
        return await take(store, hold, goods)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reservations, "TAKE", _without_condition())
        patch.setattr(SqlStore, "take", careless)
        yield


async def _looks_enough(store: SqlStore, goods: Goods) -> bool:
    return bool(
        await store._session.value(
            LOOK, of=goods.product_id, in_warehouse=goods.warehouse_id, units=goods.quantity
        )
    )


def _without_condition() -> Statement:
    blind = copy(reservations.TAKE)
    blind._compile()
    assert ENOUGH in blind._sql
    blind._sql = blind._sql.replace(ENOUGH, f"{ENOUGH}-1000000 + ", 1)
    return blind
