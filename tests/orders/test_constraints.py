"""The database constraints and triggers of the schema `orders`."""

import json
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any
from uuid import UUID

import asyncpg
import pytest

from markethall.shared.kernel.ids import new_id
from tests.conftest import plain

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy
    from asyncpg.protocol import Record

    Connection = asyncpg.Connection[Record] | PoolConnectionProxy[Record]

ORDER: dict[str, Any] = {
    "is_guest": False,
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
    "provider_payment_status": "created",
    "payment_version": 1,
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
    ids = {name: new_id() for name in ("order_id", "user_id", "payment_id", "reservation_id")}
    times = await connection.fetchrow(
        "SELECT now() AS expires_at, now() AS created_at, now() AS updated_at,"
        " now() AS overdue_check_at"
    )
    await insert(connection, "order", {**ids, **dict(times or {}), **ORDER, **changes})
    order_id: UUID = changes.get("order_id", ids["order_id"])
    return order_id


async def insert_line(connection: "Connection", order_id: UUID, **changes: Any) -> UUID:
    ids = {"line_id": new_id(), "product_id": new_id(), "order_id": order_id}
    await insert(connection, "order_line", {**ids, **LINE, **changes})
    return ids["line_id"]


async def insert_order_with_line(connection: "Connection", **changes: Any) -> tuple[UUID, UUID]:
    async with connection.transaction():
        order_id = await insert_order(connection, **changes)
        line_id = await insert_line(connection, order_id)
    return order_id, line_id


async def insert_in_savepoint(
    connection: "Connection", order_id: UUID, changes: dict[str, Any]
) -> None:
    async with connection.transaction():
        await insert_line(connection, order_id, **changes)


async def insert_entry(connection: "Connection", order_id: UUID) -> None:
    await connection.execute(
        "INSERT INTO orders.timeline VALUES ($1, 1, 'placed', 'me', now(), '', 'pending', 'none',"
        " 'unfulfilled')",
        order_id,
    )


async def test_valid_order_is_accepted(connection: "Connection") -> None:
    order_id, _ = await insert_order_with_line(connection)

    assert await connection.fetchval(
        'SELECT number FROM orders."order" WHERE order_id = $1', order_id
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"total": 999},
        {"total": 1001},
        {"discount": 1},
        {"shipping": 1},
        {"tax": 1},
        {"discount": 1001, "total": -1},
        {"discount": -1, "total": 1001},
        {"included_tax": -1},
        {"included_tax": 1001},
        {"shipping": -1, "total": 999},
        {"tax": -1, "total": 999},
        {"refunded": -1},
        {"payment_amount": 999},
        {"status": "lost"},
        {"payment_status": "maybe"},
        {"fulfilment_status": "perhaps"},
        {"fulfilment_status": "partial"},
        {"currency": "euro"},
        {"status": "processing"},
        {"status": "processing", "payment_status": "failed"},
        {"status": "completed", "payment_status": "paid", "fulfilment_status": "partial"},
        {"payment_status": "paid"},
        {"version": 0},
        {"tags": ["x"] * 51},
        {"tags": ["x" * 2501]},
        {"staff_note": "x" * 5001},
        {"metadata": "[]"},
        {"metadata": '{"name": 1}'},
        {"metadata": '{"name": null}'},
        {"metadata": json.dumps({f"name{n}": "" for n in range(51)})},
        {"metadata": json.dumps({"name": "x" * 160_000})},
    ],
    ids=str,
)
async def test_inconsistent_order_is_rejected(
    connection: "Connection", changes: dict[str, Any]
) -> None:
    with pytest.raises(asyncpg.CheckViolationError):
        await insert_order_with_line(connection, **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"total": 999},
        {"discount": -1},
        {"discount": 1001},
        {"tax": -1},
        {"included_tax": -1},
        {"discount": 1, "included_tax": 1000},
        {"tax": 1, "included_tax": 1},
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
async def test_inconsistent_line_is_rejected(
    connection: "Connection", changes: dict[str, Any]
) -> None:
    async with connection.transaction():
        order_id = await insert_order(connection)
        await insert_line(connection, order_id)
        with pytest.raises(asyncpg.CheckViolationError):
            await insert_in_savepoint(connection, order_id, changes)


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


async def test_fulfilment_never_exceeds_ordered_quantity(connection: "Connection") -> None:
    await insert_order_with_line(connection)

    for change in ("fulfilled = 3", "failed = 3", "failed = 1, cancelled = 2", "failed = -1"):
        with pytest.raises(asyncpg.CheckViolationError):
            await connection.execute(f"UPDATE orders.order_line SET {change}")


@pytest.mark.parametrize(
    "change",
    ["UPDATE orders.timeline SET reason = 'another'", "DELETE FROM orders.timeline"],
)
async def test_timeline_is_append_only(connection: "Connection", change: str) -> None:
    order_id, _ = await insert_order_with_line(connection)
    await insert_entry(connection, order_id)

    with pytest.raises(asyncpg.RestrictViolationError):
        await connection.execute(change)


async def test_one_entry_per_version_of_an_order(connection: "Connection") -> None:
    order_id, _ = await insert_order_with_line(connection)
    await insert_entry(connection, order_id)

    with pytest.raises(asyncpg.UniqueViolationError):
        await insert_entry(connection, order_id)


async def test_one_order_per_id_and_per_payment(connection: "Connection") -> None:
    order_id, _ = await insert_order_with_line(connection)
    payment_id = await connection.fetchval('SELECT payment_id FROM orders."order"')

    for same in ({"order_id": order_id}, {"payment_id": payment_id}):
        with pytest.raises(asyncpg.UniqueViolationError):
            await insert_order_with_line(connection, **same)


async def insert_twice(connection: "Connection", product_id: UUID) -> None:
    async with connection.transaction():
        order_id = await insert_order(connection, subtotal=2000, total=2000)
        await insert_line(connection, order_id, product_id=product_id)
        await insert_line(connection, order_id, product_id=product_id)


async def test_one_line_per_product(connection: "Connection") -> None:
    with pytest.raises(asyncpg.UniqueViolationError):
        await insert_twice(connection, new_id())


async def test_order_number_cannot_be_chosen(connection: "Connection") -> None:
    with pytest.raises(asyncpg.GeneratedAlwaysError):
        await insert_order(connection, number=7)


@pytest.mark.parametrize(
    "changes",
    [
        {"status": "misplaced"},
        {"status": "delivered"},
        {"status": "lost"},
        {"status": "returned_to_sender"},
        {"delivered_at": "now"},
        {"failed_at": "now"},
        {"restocked": True},
    ],
    ids=str,
)
async def test_inconsistent_fulfilment_is_rejected(
    connection: "Connection", changes: dict[str, Any]
) -> None:
    order_id, _ = await insert_order_with_line(connection)
    now = await connection.fetchval("SELECT now()")
    row = {
        "fulfilment_id": new_id(),
        "order_id": order_id,
        "status": "shipped",
        "carrier": "DHL",
        "tracking_number": "JD01",
        "shipped_at": now,
        **{name: now if value == "now" else value for name, value in changes.items()},
    }

    with pytest.raises(asyncpg.CheckViolationError):
        await insert(connection, "fulfilment", row)


async def test_order_with_timeline_cannot_be_deleted(connection: "Connection") -> None:
    order_id, _ = await insert_order_with_line(connection)
    await insert_entry(connection, order_id)

    with pytest.raises(asyncpg.ForeignKeyViolationError):
        await connection.execute('DELETE FROM orders."order"')


RETURN: dict[str, Any] = {
    "status": "requested",
    "reason": "broken",
    "receipts": "[]",
    "refund": 0,
    "shipping_refund": 0,
    "refunded": None,
    "version": 1,
}
RETURN_LINE: dict[str, Any] = {
    "quantity": 2,
    "restocked": 0,
    "scrapped": 0,
    "price": 0,
    "discount": 0,
    "tax": 0,
    "included_tax": 0,
}


async def insert_return(connection: "Connection", order_id: UUID, **changes: Any) -> UUID:
    times = await connection.fetchrow("SELECT now() AS created_at, now() AS updated_at")
    return_id = new_id()
    ids = {"return_id": return_id, "order_id": order_id}
    await insert(connection, "return", {**ids, **dict(times or {}), **RETURN, **changes})
    return return_id


@pytest.mark.parametrize(
    "changes",
    [
        {"status": "lost"},
        {"receipts": "{}"},
        {"refund": 1},
        {"refund": -1, "status": "closed"},
        {"refund": 1, "shipping_refund": 2, "status": "closed"},
        {"refunded": 0},
        {"refund": 1, "refunded": 2, "status": "closed"},
        {"version": 0},
    ],
    ids=str,
)
async def test_inconsistent_return_is_rejected(
    connection: "Connection", changes: dict[str, Any]
) -> None:
    order_id, _ = await insert_order_with_line(connection)

    with pytest.raises(asyncpg.CheckViolationError):
        await insert_return(connection, order_id, **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"quantity": 0},
        {"restocked": 2, "scrapped": 1},
        {"scrapped": -1},
        {"discount": 1},
        {"price": 10, "tax": -1},
        {"price": 10, "tax": 1, "included_tax": 1},
        {"price": 10, "discount": 5, "included_tax": 6},
    ],
    ids=str,
)
async def test_inconsistent_line_of_a_return_is_rejected(
    connection: "Connection", changes: dict[str, Any]
) -> None:
    order_id, line_id = await insert_order_with_line(connection)
    ids = {"return_id": await insert_return(connection, order_id), "line_id": line_id}

    with pytest.raises(asyncpg.CheckViolationError):
        await insert(
            connection, "return_line", {**ids, "product_id": new_id(), **RETURN_LINE, **changes}
        )


async def test_shipping_is_refunded_once_per_order(connection: "Connection") -> None:
    order_id, _ = await insert_order_with_line(connection)
    closed = {"status": "closed", "refund": 5, "shipping_refund": 5}
    await insert_return(connection, order_id, **closed)

    with pytest.raises(asyncpg.UniqueViolationError):
        await insert_return(connection, order_id, **closed)


@pytest.mark.parametrize(
    "change", ["in_return = 1", "returned = 1", "in_return = -1", "returned = -1"]
)
async def test_only_delivered_units_are_in_returns(connection: "Connection", change: str) -> None:
    await insert_order_with_line(connection)

    with pytest.raises(asyncpg.CheckViolationError):
        await connection.execute(f"UPDATE orders.order_line SET {change}")
