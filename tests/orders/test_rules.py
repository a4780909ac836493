"""What the database refuses by itself, whoever asks."""

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any
from uuid import UUID

import asyncpg
import pytest

from markethall.shared.ids import new_id
from tests.conftest import plain

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy
    from asyncpg.protocol import Record

    Connection = asyncpg.Connection[Record] | PoolConnectionProxy[Record]

ORDER: dict[str, Any] = {
    "status": "pending",
    "payment_status": "none",
    "fulfilment_status": "unfulfilled",
    "currency": "EUR",
    "subtotal": 1000,
    "discount": 0,
    "shipping": 0,
    "tax": 0,
    "total": 1000,
    "refunded": 0,
    "shipping_address": '"Market 1"',
    "payment_state": "created",
    "version": 1,
}
LINE: dict[str, Any] = {
    "position": 1,
    "sku": "SKU",
    "name": "A thing",
    "unit_price": 500,
    "quantity": 2,
    "fulfilled": 0,
    "delivered": 0,
    "total": 1000,
}


@pytest.fixture
async def sql(database_url: str) -> AsyncIterator["Connection"]:
    connection = await asyncpg.connect(plain(database_url))
    yield connection
    await connection.close()


async def insert(sql: "Connection", table: str, row: dict[str, Any]) -> None:
    columns = ", ".join(row)
    places = ", ".join(f"${n}" for n in range(1, len(row) + 1))
    await sql.execute(f'INSERT INTO orders."{table}" ({columns}) VALUES ({places})', *row.values())  # noqa: S608 - our own names


async def insert_order(sql: "Connection", **changes: Any) -> UUID:
    ids = {name: new_id() for name in ("order_id", "user_id", "payment_id", "reservation_id")}
    times = await sql.fetchrow("SELECT now() AS expires_at, now() AS created_at, now() updated_at")
    await insert(sql, "order", {**ids, **dict(times or {}), **ORDER, **changes})
    order_id: UUID = changes.get("order_id", ids["order_id"])
    return order_id


async def insert_line(sql: "Connection", order_id: UUID, **changes: Any) -> UUID:
    ids = {"line_id": new_id(), "product_id": new_id(), "order_id": order_id}
    await insert(sql, "order_line", {**ids, **LINE, **changes})
    return ids["line_id"]


async def insert_both(sql: "Connection", **changes: Any) -> tuple[UUID, UUID]:
    async with sql.transaction():
        order_id = await insert_order(sql, **changes)
        line_id = await insert_line(sql, order_id)
    return order_id, line_id


async def insert_in_savepoint(sql: "Connection", order_id: UUID, lie: dict[str, Any]) -> None:
    async with sql.transaction():
        await insert_line(sql, order_id, **lie)


async def insert_entry(sql: "Connection", order_id: UUID) -> None:
    await sql.execute(
        "INSERT INTO orders.timeline VALUES ($1, 1, 'placed', 'me', now(), '', 'pending', 'none',"
        " 'unfulfilled')",
        order_id,
    )


async def test_a_true_order_is_taken(sql: "Connection") -> None:
    order_id, _ = await insert_both(sql)

    assert await sql.fetchval('SELECT number FROM orders."order" WHERE order_id = $1', order_id)


@pytest.mark.parametrize(
    "lie",
    [
        {"total": 999},
        {"total": 1001},
        {"discount": 1},
        {"shipping": 1},
        {"tax": 1},
        {"discount": 1001, "total": -1},
        {"discount": -1, "total": 1001},
        {"shipping": -1, "total": 999},
        {"tax": -1, "total": 999},
        {"refunded": -1},
        {"status": "lost"},
        {"payment_status": "maybe"},
        {"fulfilment_status": "perhaps"},
        {"fulfilment_status": "partial"},
        {"currency": "euro"},
        {"status": "processing"},
        {"status": "processing", "payment_status": "failed"},
        {"status": "completed", "payment_status": "paid"},
        {"payment_status": "paid"},
        {"version": 0},
    ],
    ids=str,
)
async def test_an_order_that_is_not_true_in_itself_is_refused(
    sql: "Connection", lie: dict[str, Any]
) -> None:
    with pytest.raises(asyncpg.CheckViolationError):
        await insert_both(sql, **lie)


@pytest.mark.parametrize(
    "lie",
    [
        {"total": 999},
        {"quantity": 0, "total": 0},
        {"quantity": 1000, "total": 500000},
        {"quantity": -1, "total": -500},
        {"unit_price": -500, "total": -1000},
        {"fulfilled": 3},
        {"fulfilled": -1},
        {"delivered": 1},
        {"delivered": -1},
    ],
    ids=str,
)
async def test_a_line_that_is_not_true_in_itself_is_refused(
    sql: "Connection", lie: dict[str, Any]
) -> None:
    async with sql.transaction():
        order_id = await insert_order(sql)
        await insert_line(sql, order_id)
        with pytest.raises(asyncpg.CheckViolationError):
            await insert_in_savepoint(sql, order_id, lie)


async def test_an_order_without_lines_is_refused(sql: "Connection") -> None:
    with pytest.raises(asyncpg.CheckViolationError, match="lines sum to <NULL>"):
        await insert_order(sql)


async def test_lines_that_do_not_add_up_are_refused(sql: "Connection") -> None:
    with pytest.raises(asyncpg.CheckViolationError, match="subtotal is 1001"):
        await insert_both(sql, subtotal=1001, total=1001)


async def test_one_more_line_is_refused(sql: "Connection") -> None:
    order_id, _ = await insert_both(sql)

    with pytest.raises(asyncpg.CheckViolationError, match="lines sum to 2000"):
        await insert_line(sql, order_id)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE orders.order_line SET quantity = 1, total = 500",
        "UPDATE orders.order_line SET unit_price = 1, total = 2",
        'UPDATE orders."order" SET subtotal = 500, total = 500',
        "DELETE FROM orders.order_line",
    ],
)
async def test_what_was_agreed_stays_as_it_was(sql: "Connection", change: str) -> None:
    await insert_both(sql)

    with pytest.raises(asyncpg.CheckViolationError, match="subtotal"):
        await sql.execute(change)


async def test_a_line_stays_with_its_order(sql: "Connection") -> None:
    await insert_both(sql)
    other, _ = await insert_both(sql)

    with pytest.raises(asyncpg.RestrictViolationError):
        await sql.execute("UPDATE orders.order_line SET order_id = $1", other)


async def test_more_than_was_ordered_is_never_fulfilled(sql: "Connection") -> None:
    await insert_both(sql)

    with pytest.raises(asyncpg.CheckViolationError):
        await sql.execute("UPDATE orders.order_line SET fulfilled = fulfilled + 3")


@pytest.mark.parametrize(
    "change",
    ["UPDATE orders.timeline SET reason = 'another'", "DELETE FROM orders.timeline"],
)
async def test_the_timeline_is_only_added_to(sql: "Connection", change: str) -> None:
    order_id, _ = await insert_both(sql)
    await insert_entry(sql, order_id)

    with pytest.raises(asyncpg.RestrictViolationError):
        await sql.execute(change)


async def test_one_entry_per_version_of_an_order(sql: "Connection") -> None:
    order_id, _ = await insert_both(sql)
    await insert_entry(sql, order_id)

    with pytest.raises(asyncpg.UniqueViolationError):
        await insert_entry(sql, order_id)


async def test_one_order_per_id_and_per_payment(sql: "Connection") -> None:
    order_id, _ = await insert_both(sql)
    payment_id = await sql.fetchval('SELECT payment_id FROM orders."order"')

    for same in ({"order_id": order_id}, {"payment_id": payment_id}):
        with pytest.raises(asyncpg.UniqueViolationError):
            await insert_both(sql, **same)


async def insert_twice(sql: "Connection", product_id: UUID) -> None:
    async with sql.transaction():
        order_id = await insert_order(sql, subtotal=2000, total=2000)
        await insert_line(sql, order_id, product_id=product_id)
        await insert_line(sql, order_id, product_id=product_id)


async def test_one_line_per_product(sql: "Connection") -> None:
    with pytest.raises(asyncpg.UniqueViolationError):
        await insert_twice(sql, new_id())


async def test_nobody_picks_an_orders_number(sql: "Connection") -> None:
    with pytest.raises(asyncpg.GeneratedAlwaysError):
        await insert_order(sql, number=7)


@pytest.mark.parametrize(
    "lie",
    [{"status": "lost"}, {"status": "delivered"}, {"delivered_at": "now"}],
    ids=str,
)
async def test_a_fulfilment_that_is_not_true_in_itself_is_refused(
    sql: "Connection", lie: dict[str, Any]
) -> None:
    order_id, _ = await insert_both(sql)
    now = await sql.fetchval("SELECT now()")
    row = {
        "fulfilment_id": new_id(),
        "order_id": order_id,
        "status": "shipped",
        "carrier": "DHL",
        "tracking_number": "JD01",
        "shipped_at": now,
        "delivered_at": None,
        **lie,
    }
    if row["delivered_at"]:
        row["delivered_at"] = now

    with pytest.raises(asyncpg.CheckViolationError):
        await insert(sql, "fulfilment", row)


async def test_an_order_with_a_past_is_not_deleted(sql: "Connection") -> None:
    order_id, _ = await insert_both(sql)
    await insert_entry(sql, order_id)

    with pytest.raises(asyncpg.ForeignKeyViolationError):
        await sql.execute('DELETE FROM orders."order"')
