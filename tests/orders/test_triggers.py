"""The triggers of the schema `orders`; `test_each_constraint.py` tests the constraints."""

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any
from uuid import UUID

import asyncpg
import pytest

from markethall.shared.kernel.ids import new_id
from tests.conftest import plain
from tests.orders.constraint_rows import ROWS

if TYPE_CHECKING:
    from tests.orders.constraint_rows import Connection


@pytest.fixture
async def connection(database_url: str) -> AsyncIterator["Connection"]:
    connection = await asyncpg.connect(plain(database_url))
    yield connection
    await connection.close()


async def insert(connection: "Connection", table: str, row: dict[str, Any]) -> None:
    columns = ", ".join(row)
    places = ", ".join(f"${n}" for n in range(1, len(row) + 1))
    await connection.execute(
        f'INSERT INTO orders."{table}" ({columns}) VALUES ({places})', *row.values()
    )


async def insert_order(connection: "Connection", **changes: Any) -> UUID:
    row = {name: value for name, value in ROWS["order"].items() if name != "number"}
    ids = {name: new_id() for name in ("order_id", "payment_id", "cart_id")}
    await insert(connection, "order", {**row, **ids, **changes})
    return ids["order_id"]


async def insert_line(connection: "Connection", order_id: UUID) -> UUID:
    ids = {"line_id": new_id(), "product_id": new_id(), "order_id": order_id}
    await insert(connection, "order_line", {**ROWS["order_line"], **ids})
    return ids["line_id"]


async def insert_order_with_line(connection: "Connection", **changes: Any) -> tuple[UUID, UUID]:
    async with connection.transaction():
        order_id = await insert_order(connection, **changes)
        line_id = await insert_line(connection, order_id)
    return order_id, line_id


async def insert_entry(connection: "Connection", order_id: UUID) -> None:
    await insert(connection, "timeline", {**ROWS["timeline"], "order_id": order_id})


async def test_valid_order_is_accepted(connection: "Connection") -> None:
    order_id, _ = await insert_order_with_line(connection)

    assert await connection.fetchval(
        'SELECT number FROM orders."order" WHERE order_id = $1', order_id
    )


async def test_an_order_without_lines_is_rejected(connection: "Connection") -> None:
    with pytest.raises(asyncpg.CheckViolationError, match="lines sum to <NULL>"):
        await insert_order(connection)


async def test_line_total_mismatch_is_rejected(connection: "Connection") -> None:
    with pytest.raises(asyncpg.CheckViolationError, match="subtotal is 1001"):
        await insert_order_with_line(connection, subtotal=1001, total=1001)


async def test_adding_line_later_is_rejected(connection: "Connection") -> None:
    order_id, _ = await insert_order_with_line(connection)

    with pytest.raises(asyncpg.CheckViolationError, match="lines sum to 2000"):
        await insert_line(connection, order_id)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE orders.order_line SET quantity = 1, total = 500",
        "UPDATE orders.order_line SET unit_price = 1, total = 2",
        'UPDATE orders."order" SET subtotal = 500, total = 500',
        "DELETE FROM orders.order_line",
    ],
)
async def test_agreed_fields_are_immutable(connection: "Connection", change: str) -> None:
    await insert_order_with_line(connection)

    with pytest.raises(asyncpg.CheckViolationError, match="subtotal"):
        await connection.execute(change)


async def test_line_cannot_change_order(connection: "Connection") -> None:
    await insert_order_with_line(connection)
    other, _ = await insert_order_with_line(connection)

    with pytest.raises(asyncpg.RestrictViolationError):
        await connection.execute("UPDATE orders.order_line SET order_id = $1", other)


@pytest.mark.parametrize(
    "change",
    ["UPDATE orders.timeline SET reason = 'another'", "DELETE FROM orders.timeline"],
)
async def test_timeline_is_append_only(connection: "Connection", change: str) -> None:
    order_id, _ = await insert_order_with_line(connection)
    await insert_entry(connection, order_id)

    with pytest.raises(asyncpg.RestrictViolationError):
        await connection.execute(change)


async def test_order_number_cannot_be_chosen(connection: "Connection") -> None:
    with pytest.raises(asyncpg.GeneratedAlwaysError):
        await insert_order(connection, number=7)


async def test_order_with_timeline_cannot_be_deleted(connection: "Connection") -> None:
    order_id, _ = await insert_order_with_line(connection)
    await insert_entry(connection, order_id)

    with pytest.raises(asyncpg.ForeignKeyViolationError):
        await connection.execute('DELETE FROM orders."order"')
