"""The database constraints of carts."""

from typing import TYPE_CHECKING, Any
from uuid import UUID

import asyncpg
import pytest

from markethall.shared.kernel.ids import new_id
from tests.orders.test_constraints import insert, insert_line, insert_order

if TYPE_CHECKING:
    from tests.orders.test_constraints import Connection

CART: dict[str, Any] = {"is_guest": False, "status": "open", "metadata": "{}", "version": 1}
LINE: dict[str, Any] = {
    "position": 1,
    "quantity": 1,
    "sku": "SKU",
    "name": "A thing",
    "seen_amount": 1000,
    "seen_currency": "EUR",
    "seen_available": 1,
}


async def insert_cart(connection: "Connection", **changes: Any) -> UUID:
    ids = {"cart_id": new_id(), "user_id": new_id()}
    times = await connection.fetchrow("SELECT now() AS created_at, now() AS updated_at")
    await insert(connection, "cart", {**ids, **dict(times or {}), **CART, **changes})
    return ids["cart_id"]


@pytest.mark.parametrize(
    "changes",
    [
        {"status": "lost"},
        {"status": "checked_out"},
        {"status": "merged"},
        {"order_id": UUID(int=1)},
        {"merged_into": UUID(int=1)},
        {"status": "merged", "merged_into": UUID(int=1), "cart_id": UUID(int=1)},
        {"currency": "euro"},
        {"email": f"{'a' * 250}@example.com"},
        {"metadata": "[]"},
        {"version": 0},
    ],
    ids=str,
)
async def test_inconsistent_cart_is_rejected(
    connection: "Connection", changes: dict[str, Any]
) -> None:
    with pytest.raises(asyncpg.CheckViolationError):
        await insert_cart(connection, **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"quantity": 0},
        {"quantity": 1000},
        {"position": 0},
        {"position": 101},
        {"seen_available": -1},
        {"seen_available": 1000},
    ],
    ids=str,
)
async def test_inconsistent_cart_line_is_rejected(
    connection: "Connection", changes: dict[str, Any]
) -> None:
    cart_id = await insert_cart(connection)
    row = {"cart_id": cart_id, "product_id": new_id(), **LINE, **changes}
    with pytest.raises(asyncpg.CheckViolationError):
        await insert(connection, "cart_line", row)


async def test_product_is_in_a_cart_once(connection: "Connection") -> None:
    row = {"cart_id": await insert_cart(connection), "product_id": new_id(), **LINE}
    await insert(connection, "cart_line", row)

    with pytest.raises(asyncpg.UniqueViolationError):
        await insert(connection, "cart_line", row)


async def test_cart_has_one_order(connection: "Connection") -> None:
    cart_id = new_id()
    async with connection.transaction():
        await insert_line(connection, await insert_order(connection, cart_id=cart_id))

    with pytest.raises(asyncpg.UniqueViolationError):
        await insert_order(connection, cart_id=cart_id)


async def test_order_is_of_one_cart(connection: "Connection") -> None:
    order_id = new_id()
    await insert_cart(connection, status="checked_out", order_id=order_id)

    with pytest.raises(asyncpg.UniqueViolationError):
        await insert_cart(connection, status="checked_out", order_id=order_id)
