"""Products on their way into their table while others are rendered."""

from dataclasses import replace

import pytest
import sqlalchemy as sa

from markethall.inventory.contract import NewProduct, Price
from markethall.inventory.domain import Item
from markethall.inventory.sql.staging import Staging
from markethall.shared.clock import utc_now
from markethall.shared.db import Postgres, Statement
from markethall.shared.ids import new_id
from tests.inventory.conftest import House


def item(number: int) -> Item:
    price = Price(amount=number, currency="EUR")
    command = NewProduct(sku=f"S-{number:04d}", name=f"Number {number}", price=price)
    return Item.new(new_id(), command, utc_now())


async def put(postgres: Postgres, fresh: list[Item], changed: list[Item]) -> int:
    async with postgres.transaction() as session:
        return await Staging(session).put(fresh, changed)


async def asked(postgres: Postgres, sql: str) -> int:
    async with postgres.reading() as session:
        return int(await session.value(Statement(sa.text(sql))))


async def test_new_and_changed_ones_of_many_pieces_are_all_written(
    sql_house: House, postgres: Postgres
) -> None:
    there = [item(number) for number in range(600)]
    await put(postgres, there, [])
    changed = [replace(one, name="Changed", version=2) for one in there[:550]]

    added = await put(postgres, [item(number) for number in range(600, 1200)], changed)

    assert added == 600
    assert await sql_house.catalogue.count() == 1200
    sql = "SELECT count(*) FROM inventory.product WHERE name = 'Changed' AND version = 2"
    assert await asked(postgres, sql) == 550


async def test_a_sku_that_is_taken_is_told_in_whatever_piece(postgres: Postgres) -> None:
    await put(postgres, [item(1)], [])

    added = await put(postgres, [item(number) for number in range(600)], [])

    assert added == 599


async def test_one_that_cannot_be_rendered_leaves_a_connection_that_nobody_uses(
    sql_house: House, postgres: Postgres
) -> None:
    pid = "SELECT pg_backend_pid()"
    before = await asked(postgres, pid)
    odd = replace(item(400), options={"size": object()})  # type: ignore[dict-item]

    with pytest.raises(TypeError):
        await put(postgres, [*(item(number) for number in range(400)), odd], [])

    assert await sql_house.catalogue.count() == 0
    assert await asked(postgres, pid) == before
