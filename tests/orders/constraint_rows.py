"""A valid row of each table of the schema `orders`, and a second valid row of each table."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from markethall.shared.kernel.ids import new_id

if TYPE_CHECKING:
    import asyncpg
    from asyncpg.pool import PoolConnectionProxy
    from asyncpg.protocol import Record

    Connection = asyncpg.Connection[Record] | PoolConnectionProxy[Record]

NOW: Final = datetime(2026, 11, 30, tzinfo=UTC)
EVENT: Final[dict[str, Any]] = {
    "type": "orders.order_placed",
    "version": 1,
    "key": UUID(int=1),
    "payload": "{}",
    "occurred_at": NOW,
    "request_id": "test",
}
# sorted so that each row comes after the rows to which it refers
ROWS: Final[dict[str, dict[str, Any]]] = {
    "order": {
        "order_id": UUID(int=1),
        "number": 1,
        "user_id": UUID(int=2),
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
        "payment_id": UUID(int=3),
        "provider_payment_status": "created",
        "payment_version": 1,
        "reservation_id": UUID(int=4),
        "cart_id": UUID(int=5),
        "expires_at": NOW,
        "overdue_check_at": NOW,
        "created_at": NOW,
        "updated_at": NOW,
        "version": 1,
    },
    "order_line": {
        "line_id": UUID(int=10),
        "order_id": UUID(int=1),
        "position": 1,
        "product_id": UUID(int=11),
        "sku": "SKU",
        "name": "A thing",
        "unit_price": 500,
        "quantity": 2,
        "fulfilled": 0,
        "delivered": 0,
        "total": 1000,
    },
    "guest_owner": {"guest_id": UUID(int=2)},
    "order_edit": {
        "edit_id": UUID(int=12),
        "order_id": UUID(int=1),
        "version": 2,
        "total": 1000,
        "created_at": NOW,
        "status": "open",
        "payment_id": UUID(int=13),
        "amount": 500,
        "refunded": 0,
        "reservation_id": None,
        "expires_at": NOW,
        "content": "{}",
    },
    "timeline": {
        "order_id": UUID(int=1),
        "version": 1,
        "change": "placed",
        "actor": "me",
        "at": NOW,
        "reason": "",
        "status": "pending",
        "payment_status": "none",
        "fulfilment_status": "unfulfilled",
    },
    "fulfilment": {
        "fulfilment_id": UUID(int=20),
        "order_id": UUID(int=1),
        "status": "shipped",
        "shipped_at": NOW,
    },
    "fulfilment_line": {
        "fulfilment_id": UUID(int=20),
        "line_id": UUID(int=10),
        "quantity": 1,
    },
    "return": {
        "return_id": UUID(int=30),
        "order_id": UUID(int=1),
        "status": "closed",
        "reason": "broken",
        "receipts": "[]",
        "refund": 5,
        "shipping_refund": 5,
        "created_at": NOW,
        "updated_at": NOW,
        "version": 1,
    },
    "return_line": {
        "return_id": UUID(int=30),
        "line_id": UUID(int=10),
        "product_id": UUID(int=11),
        "quantity": 2,
        "restocked": 0,
        "scrapped": 0,
        "price": 10,
        "discount": 0,
        "tax": 0,
        "included_tax": 0,
    },
    "invoice": {
        "kind": "invoice",
        "number": 1,
        "order_id": UUID(int=1),
        "source_id": UUID(int=1),
        "issued_at": NOW,
        "document": "{}",
    },
    "invoice_counter": {"kind": "invoice", "last_number": 1},
    "cart": {
        "cart_id": UUID(int=5),
        "user_id": UUID(int=2),
        "is_guest": False,
        "status": "checked_out",
        "metadata": "{}",
        "order_id": UUID(int=1),
        "created_at": NOW,
        "updated_at": NOW,
        "version": 1,
    },
    "cart_line": {
        "cart_id": UUID(int=5),
        "product_id": UUID(int=11),
        "position": 1,
        "quantity": 1,
        "sku": "SKU",
        "name": "A thing",
        "seen_amount": 500,
        "seen_currency": "EUR",
        "seen_available": 1,
    },
    "draft_order": {
        "draft_order_id": UUID(int=40),
        "status": "completed",
        "fields": "{}",
        "order_id": UUID(int=1),
        "created_by": "staff",
        "created_at": NOW,
        "updated_at": NOW,
        "version": 1,
    },
    "configuration": {
        "item_id": UUID(int=50),
        "kind": "tax_rate",
        "unique_key": "DE",
        "fields": "{}",
        "version": 1,
        "created_at": NOW,
    },
    "promotion": {
        "promotion_id": UUID(int=60),
        "code_key": "spring",
        "is_active": True,
        "usage_limit": 2,
        "per_customer_limit": 1,
        "first_order": True,
        "used": 1,
        "fields": "{}",
        "version": 1,
        "created_at": NOW,
    },
    "promotion_use": {
        "promotion_id": UUID(int=60),
        "order_id": UUID(int=1),
        "customer_id": UUID(int=2),
        "used_by": UUID(int=2),
        "is_first_order": True,
        "used_at": NOW,
    },
    "promotion_customer": {
        "customer_id": UUID(int=2),
        "promotion_id": UUID(int=60),
        "used": 1,
    },
    "outbox": {"seq": 1, "event_id": UUID(int=70), **EVENT},
    "inbox": {
        "handler": "orders.payment_captured",
        "event_id": UUID(int=70),
        "position": 1,
        "source_seq": 1,
        **EVENT,
        "state": "waiting",
        "attempts": 0,
        "error": "",
        "received_at": NOW,
        "due_at": NOW,
    },
    "idempotency_record": {
        "scope": "key",
        "request_hash": "hash",
        "id": UUID(int=1),
        "lease_until": NOW,
        "expires_at": NOW,
    },
}
# the columns in which the second row of a table must differ from the first: its keys and the
# columns of unique constraints
FURTHER: Final[dict[str, dict[str, Any]]] = {
    "order": {"order_id": UUID(int=6), "number": 2, "payment_id": new_id, "cart_id": new_id},
    "order_line": {"line_id": new_id, "product_id": new_id},
    "guest_owner": {"guest_id": new_id},
    "order_edit": {
        "edit_id": new_id,
        "version": 3,
        "status": "applied",
        "payment_id": new_id,
        "content": None,
    },
    "timeline": {"version": 2},
    "fulfilment": {"fulfilment_id": new_id},
    "fulfilment_line": {},
    "return": {"return_id": new_id, "shipping_refund": 0},
    "return_line": {},
    "invoice": {"number": 2, "source_id": new_id},
    "invoice_counter": {"kind": "credit_note"},
    "cart": {"cart_id": new_id, "order_id": new_id},
    "cart_line": {"product_id": new_id},
    "draft_order": {"draft_order_id": new_id, "order_id": new_id},
    "configuration": {"item_id": new_id, "unique_key": "FR"},
    "promotion": {"promotion_id": new_id, "code_key": "autumn"},
    "promotion_use": {"order_id": UUID(int=6), "used_by": new_id},
    "promotion_customer": {"customer_id": new_id},
    "outbox": {"seq": 2, "event_id": new_id},
    "inbox": {"event_id": new_id, "position": 2},
    "idempotency_record": {"scope": "another key"},
}


def further_row(table: str, **changes: Any) -> dict[str, Any]:
    """Return a second row, with keys of its own. Values that are functions are called."""
    row = ROWS[table] | FURTHER[table] | changes
    return {name: value() if callable(value) else value for name, value in row.items()}


async def insert_row(connection: "Connection", table: str, row: Mapping[str, Any]) -> None:
    columns = ", ".join(row)
    places = ", ".join(f"${number}" for number in range(1, len(row) + 1))
    # the database generates the numbers of orders and events, but the tests choose them
    await connection.execute(
        f'INSERT INTO orders."{table}" ({columns}) OVERRIDING SYSTEM VALUE VALUES ({places})',
        *row.values(),
    )
