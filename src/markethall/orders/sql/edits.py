"""Convert edits and their additional payments to rows and back."""

import json
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from pydantic import TypeAdapter

from markethall.orders.configuration.sql import json_array
from markethall.orders.contract import EditStatus
from markethall.orders.domain import AdditionalPayment, Order, OrderEdit
from markethall.orders.sql.tables import order_edits, orders
from markethall.shared.persistence.postgres import sql_literal

_EDIT: Final = TypeAdapter(OrderEdit)
_PAYMENTS: Final = TypeAdapter(tuple[AdditionalPayment, ...])


def edit_row(
    order: Order, edit_id: UUID, payment: AdditionalPayment | None = None
) -> dict[str, Any]:
    """Return the values of the columns. `payment` is None if the edit takes effect at once."""
    edit = payment.edit if payment else None
    return {
        "edit_id": edit_id,
        "order_id": order.order_id,
        "version": order.version,
        "total": edit.total if edit else order.total,
        "created_at": order.updated_at,
        "status": (payment.status if payment else EditStatus.APPLIED).value,
        "payment_id": payment and payment.payment_id,
        "amount": payment and payment.amount,
        "refunded": 0,
        "reservation_id": payment and payment.reservation_id,
        "expires_at": payment and payment.expires_at,
        "content": edit and _EDIT.dump_json(edit).decode(),
    }


def payments_from_json(text: str | None) -> tuple[AdditionalPayment, ...]:
    return _PAYMENTS.validate_python(
        [
            {("edit" if name == "content" else name): value for name, value in row.items()}
            for row in json.loads(text)
        ]
        if text
        else ()
    )


def select_additional_payments() -> "sa.ScalarSelect[Any]":
    """Select the payments of the open edit and of the applied edits, as one JSON array."""
    names = (
        *("edit_id", "payment_id", "amount", "expires_at", "reservation_id", "status"),
        *("refunded", "content"),
    )
    # an alias, because an outer statement may also contain the table
    edits = order_edits.alias("payment_edit")
    return (
        sa.select(json_array((edits.c[name] for name in names), edits.c.version))
        .where(
            edits.c.order_id == orders.c.order_id,
            edits.c.payment_id.is_not(None),
            edits.c.status != sql_literal("dropped"),
        )
        .scalar_subquery()
    )
