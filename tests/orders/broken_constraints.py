"""For each constraint of the schema `orders`: changes that make a valid row break it.

The keys are the name of the table, and the name of the constraint without its prefix.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from markethall.shared.kernel.ids import new_id
from tests.orders.constraint_rows import NOW

Changes = Mapping[str, Any]

NO_VERSION: Final = {"version": 0}
NO_OBJECT: Final = {"fields": "[]"}
OPEN: Final = {"status": "open", "order_id": None}
SHIPPED_AND_DELIVERED: Final = {"fulfilled": 2, "delivered": 2}

CHECKS: Final[dict[str, dict[str, Sequence[Changes]]]] = {
    "order": {
        "status": [{"status": "lost"}],
        "payment_status": [{"payment_status": "maybe"}],
        "fulfilment_status": [
            {"status": "processing", "payment_status": "paid", "fulfilment_status": "x"}
        ],
        "currency": [{"currency": "euro"}],
        "total": [
            {"total": 999},
            {"total": 1001},
            {"discount": 1},
            {"shipping": 1},
            {"tax": 1},
        ],
        "amounts": [
            {"discount": 1001, "total": -1},
            {"discount": -1, "total": 1001},
            {"shipping": -1, "total": 999},
            {"tax": -1, "total": 999},
            {"subtotal": -1, "discount": -1001},
            {"refunded": -1},
        ],
        "included_tax": [{"included_tax": -1}, {"included_tax": 1001}],
        "payment_amount": [
            {"payment_amount": 999},
            {"payment_amount": 500, "additional_paid": 499},
        ],
        "additional_paid": [{"additional_paid": -1}, {"additional_paid": 1}],
        "nothing_shipped": [{"fulfilment_status": "partial"}],
        "completed": [
            {"status": "completed", "payment_status": "paid", "fulfilment_status": "partial"}
        ],
        "paid": [
            {"status": "processing"},
            {"status": "processing", "payment_status": "failed"},
            {"payment_status": "paid"},
        ],
        "email": [
            {"email": "ada@example.com"},
            {"email_key": "ada@example.com"},
            {"email": f"{'a' * 250}@example.com", "email_key": "a"},
        ],
        "tags": [{"tags": ["x"] * 51}, {"tags": ["x" * 2501]}],
        "staff_note": [{"staff_note": "x" * 5001}],
        "metadata": [
            {"metadata": "[]"},
            {"metadata": '{"name": 1}'},
            {"metadata": '{"name": null}'},
            {"metadata": json.dumps({f"name{number}": "" for number in range(51)})},
            {"metadata": json.dumps({"name": "x" * 160_000})},
        ],
        "version": [NO_VERSION],
    },
    "order_line": {
        "discount": [{"discount": -1}, {"discount": 1001}],
        "tax": [
            {"tax": -1},
            {"included_tax": -1},
            {"discount": 1, "included_tax": 1000},
            {"tax": 1, "included_tax": 1},
        ],
        "quantity": [{"quantity": 0, "total": 0}, {"quantity": 1000, "total": 500_000}],
        "fulfilled": [{"fulfilled": 3}, {"fulfilled": -1}],
        "delivered": [{"delivered": 1}, {"delivered": -1}],
        "failed": [{"failed": 3}, {"failed": -1}],
        "cancelled": [
            {"failed": 1, "cancelled": 2},
            {"fulfilled": 2, "cancelled": 1},
            {"cancelled": -1},
        ],
        "returned": [
            {"in_return": 1},
            {"returned": 1},
            {"in_return": -1},
            {"returned": -1},
            {**SHIPPED_AND_DELIVERED, "in_return": 2, "returned": 1},
        ],
        "unit_price": [{"unit_price": -1, "total": -2}],
        "total": [{"total": 999}],
    },
    "order_edit": {
        "total": [{"total": -1}],
        "status": [{"status": "lost"}],
        "payment": [
            {"payment_id": None},
            {"amount": None},
            {"expires_at": None},
            {"payment_id": None, "amount": None, "expires_at": None, "status": "dropped"},
        ],
        "amount": [{"amount": 0}],
        "refunded": [{"refunded": -1}, {"refunded": 501}, {"refunded": 1, "status": "dropped"}],
        "content": [{"content": "{}"}, {"status": "open"}],
    },
    "fulfilment": {
        "status": [{"status": "misplaced"}],
        "delivered_at": [{"status": "delivered"}, {"delivered_at": NOW}],
        "failed_at": [
            {"status": "lost"},
            {"status": "returned_to_sender"},
            {"failed_at": NOW},
        ],
        "restocked": [{"restocked": True}],
    },
    "fulfilment_line": {"quantity": [{"quantity": 0}, {"quantity": 1000}]},
    "return": {
        "status": [{"status": "lost"}],
        "receipts": [{"receipts": "{}"}],
        "refund": [
            {"refund": 1, "status": "requested"},
            {"shipping_refund": -1},
            {"refund": 1, "shipping_refund": 2},
        ],
        "refunded": [
            {"refunded": 0, "status": "requested"},
            {"refunded": -1},
            {"refund": 1, "refunded": 2},
        ],
        "version": [NO_VERSION],
    },
    "return_line": {
        "quantity": [{"quantity": 0}, {"quantity": 1000}],
        "received": [{"restocked": 2, "scrapped": 1}, {"scrapped": -1}, {"restocked": -1}],
        "refund": [
            {"discount": 11},
            {"discount": -1},
            {"tax": -1},
            {"included_tax": -1},
            {"tax": 1, "included_tax": 1},
            {"discount": 5, "included_tax": 6},
        ],
    },
    "invoice": {
        "kind": [{"kind": "receipt"}],
        "number": [{"number": 0}],
        "document": [{"document": "[]"}],
    },
    "invoice_counter": {"kind": [{"kind": "receipt"}], "last_number": [{"last_number": 0}]},
    "cart": {
        "status": [{"status": "lost"}],
        "order_id": [{"order_id": None}, {"status": "open"}],
        "merged_into": [
            {**OPEN, "status": "merged"},
            {**OPEN, "merged_into": new_id()},
            {**OPEN, "status": "merged", "cart_id": UUID(int=9), "merged_into": UUID(int=9)},
        ],
        "currency": [{"currency": "euro"}],
        "email": [{"email": f"{'a' * 250}@example.com"}],
        "metadata": [{"metadata": "[]"}],
        "version": [NO_VERSION],
    },
    "cart_line": {
        "position": [{"position": 0}, {"position": 101}],
        "quantity": [{"quantity": 0}, {"quantity": 1000}],
        "seen_available": [{"seen_available": -1}, {"seen_available": 1000}],
    },
    "draft_order": {
        "status": [{"status": "lost"}],
        "completed": [{"order_id": None}, {"status": "open"}],
        "fields": [NO_OBJECT],
        "version": [NO_VERSION],
    },
    "configuration": {
        "kind": [{"kind": "promotion"}],
        "fields": [NO_OBJECT],
        "version": [NO_VERSION],
    },
    "promotion": {
        "code_key": [{"code_key": ""}],
        "limits": [
            {"usage_limit": 0},
            {"per_customer_limit": 0},
            {"usage_limit": None, "per_customer_limit": 0},
            {"usage_limit": 0, "per_customer_limit": None},
        ],
        "used": [{"used": 3}, {"used": -1}, {"used": -1, "usage_limit": None}],
        "fields": [NO_OBJECT],
        "version": [NO_VERSION],
    },
    "promotion_customer": {"used": [{"used": -1}]},
    "inbox": {"state": [{"state": "lost"}]},
}
# by unique constraint, the columns in which the second row equals the first one
UNIQUE: Final[dict[str, dict[str, Sequence[str]]]] = {
    "order": {"number": ["number"], "payment_id": ["payment_id"], "cart_id": ["cart_id"]},
    "order_line": {"order_id_product_id": ["product_id"]},
    "order_edit": {
        "order_id_version": ["version"],
        "payment_id": ["payment_id"],
        "open": ["status", "content"],
    },
    "return": {"shipping_refund": ["shipping_refund"]},
    "invoice": {"kind_source_id": ["source_id"]},
    "cart": {"order_id": ["order_id"]},
    "draft_order": {"order_id": ["order_id"]},
    "configuration": {"kind_unique_key": ["unique_key"]},
    "promotion": {"active_code_key": ["code_key"]},
    "promotion_use": {"first_order": ["used_by"]},
    "outbox": {"event_id": ["event_id"]},
}
FOREIGN_KEYS: Final[dict[str, Sequence[str]]] = {
    "order_line": ["order_id"],
    "order_edit": ["order_id"],
    "timeline": ["order_id"],
    "fulfilment": ["order_id"],
    "fulfilment_line": ["fulfilment_id", "line_id"],
    "return": ["order_id"],
    "return_line": ["return_id", "line_id"],
    "invoice": ["order_id"],
    "cart_line": ["cart_id"],
    "promotion_use": ["promotion_id", "order_id"],
    "promotion_customer": ["promotion_id"],
}
