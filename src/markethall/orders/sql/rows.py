"""Convert orders, their lines, edits, timelines and fulfilments to rows and back."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from pydantic import TypeAdapter

from markethall.orders.carts.sql.store import address_to_json
from markethall.orders.contract import (
    Address,
    EditStatus,
    FulfilmentStatus,
    OrderFilters,
    OrderFulfilmentStatus,
    OrderPaymentStatus,
    OrderStatus,
)
from markethall.orders.domain import (
    AdditionalPayment,
    Fulfilment,
    FulfilmentLine,
    Order,
    OrderEdit,
    OrderLine,
    ShippingLine,
    TimelineEntry,
    split_number,
)
from markethall.orders.sql import statements as sql
from markethall.orders.sql.tables import orders
from markethall.orders.totals.domain import AppliedDiscount, PromotionRule, TaxLine
from markethall.shared.kernel.lookup_key import to_lookup_key
from markethall.shared.kernel.pagination import TimeKeyset

if TYPE_CHECKING:
    from asyncpg.protocol import Record


_SHIPPING_LINE: Final[TypeAdapter[ShippingLine | None]] = TypeAdapter(ShippingLine | None)
_DISCOUNTS: Final = TypeAdapter(tuple[AppliedDiscount, ...])
_PROMOTIONS: Final = TypeAdapter(tuple[PromotionRule, ...])
_TAX_LINES: Final = TypeAdapter(tuple[TaxLine, ...])
_EDIT: Final = TypeAdapter(OrderEdit)
_PAYMENTS: Final = TypeAdapter(tuple[AdditionalPayment, ...])


def _to_json(adapter: "TypeAdapter[Any]", value: Any) -> str | None:
    """Return None for nothing, such as no shipping or no promotions."""
    return adapter.dump_json(value).decode() if value else None


def line_to_json(line: OrderLine) -> str | None:
    """Return the discounts and taxes of a line, or None if it has none."""
    if not (line.discounts or line.tax_lines):
        return None
    discounts = _DISCOUNTS.dump_json(line.discounts).decode()
    tax_lines = _TAX_LINES.dump_json(line.tax_lines).decode()
    included = str(line.prices_include_tax).lower()
    return f'{{"discounts":{discounts},"tax_lines":{tax_lines},"prices_include_tax":{included}}}'


def line_fields(breakdown: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the fields of an order line from the parsed JSON."""
    if not breakdown:
        return {}
    return {
        "discounts": _DISCOUNTS.validate_python(breakdown["discounts"]),
        "tax_lines": _TAX_LINES.validate_python(breakdown["tax_lines"]),
        "prices_include_tax": breakdown["prices_include_tax"],
    }


# columns with the name and type of a field of the entity
_PLAIN_COLUMNS = tuple(
    column.name
    for column in orders.c
    if column.name
    not in {
        "status",
        "payment_status",
        "fulfilment_status",
        "email_key",
        "shipping_address",
        "billing_address",
        "subtotal",
        "total",
        "shipping_line",
        "promotions",
        "tags",
        "metadata",
        "additional_paid",
    }
)
_PLAIN_LINE_COLUMNS = ("sku", "name", "unit_price", "quantity", *sql.LINE_COUNTS)


def order_row(order: Order, names: Iterable[str]) -> dict[str, Any]:
    row = {name: getattr(order, name) for name in names}
    return row | {name: encode(row[name]) for name, encode in _ENCODERS.items() if name in row}


def update_values(order: Order) -> dict[str, Any]:
    return {
        "order_id": order.order_id,
        "expected_version": order.expected_version,
        **order_row(order, sql.UPDATABLE_COLUMNS),
        **arrays("line", ("line_id", *sql.LINE_COUNTS), order.lines),
        **timeline_arrays(order.pending_timeline_entries),
    }


def to_order(row: "Record") -> Order:
    return Order(
        **{name: row[name] for name in _PLAIN_COLUMNS},
        **_statuses(row),
        shipping_line=_SHIPPING_LINE.validate_json(row["shipping_line"] or "null"),
        promotions=_PROMOTIONS.validate_json(row["promotions"] or "[]"),
        shipping_address=_address_from_json(row["shipping_address"]),
        billing_address=row["billing_address"] and _address_from_json(row["billing_address"]),
        tags=tuple(row["tags"]),
        metadata=json.loads(row["metadata"]),
        lines=tuple(to_line(line) for line in json.loads(row["lines"])),
        additional_payments=_payments_from_json(row["additional_payments"]),
    )


def to_line(line: Mapping[str, Any]) -> OrderLine:
    return OrderLine(
        line_id=UUID(line["line_id"]),
        product_id=UUID(line["product_id"]),
        **{name: line[name] for name in _PLAIN_LINE_COLUMNS},
        **line_fields(line["breakdown"]),
    )


def to_timeline_entry(row: "Record") -> TimelineEntry:
    values = {name: row[name] for name in sql.TIMELINE_COLUMNS}
    return TimelineEntry(**values | _statuses(row))


def _statuses(row: "Record") -> dict[str, Any]:
    return {
        "status": OrderStatus(row["status"]),
        "payment_status": OrderPaymentStatus(row["payment_status"]),
        "fulfilment_status": OrderFulfilmentStatus(row["fulfilment_status"]),
    }


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


def _payments_from_json(text: str | None) -> tuple[AdditionalPayment, ...]:
    return _PAYMENTS.validate_python(
        [
            {("edit" if name == "content" else name): value for name, value in row.items()}
            for row in json.loads(text)
        ]
        if text
        else ()
    )


def to_fulfilment(row: "Record") -> Fulfilment:
    lines = tuple(
        FulfilmentLine(UUID(line["line_id"]), UUID(line["product_id"]), line["quantity"])
        for line in json.loads(row["lines"])
    )
    return Fulfilment(**dict(row) | {"status": FulfilmentStatus(row["status"]), "lines": lines})


def _address_from_json(text: str) -> str | Address:
    value = json.loads(text)
    return value if isinstance(value, str) else Address.model_validate(value)


# encoders of the columns that are stored as JSON
_ENCODERS: Final[Mapping[str, Callable[[Any], str | None]]] = {
    "shipping_line": partial(_to_json, _SHIPPING_LINE),
    "promotions": partial(_to_json, _PROMOTIONS),
    "shipping_address": address_to_json,
    "billing_address": address_to_json,
    "metadata": lambda metadata: json.dumps(dict(metadata)),
}


def timeline_arrays(entries: Sequence[TimelineEntry]) -> dict[str, list[Any]]:
    return arrays("entry", sql.TIMELINE_COLUMNS, entries)


def line_arrays(lines: Sequence[OrderLine]) -> dict[str, list[Any]]:
    names = tuple(name for name in sql.LINE_COLUMNS if name not in {"position", "breakdown"})
    return arrays("line", names, lines) | {
        "line_position": list(range(1, len(lines) + 1)),
        "line_breakdown": [line_to_json(line) for line in lines],
    }


def arrays(alias: str, names: Iterable[str], items: Sequence[Any]) -> dict[str, list[Any]]:
    """Return one array per column, named `<alias>_<column>`."""
    return {f"{alias}_{name}": [getattr(thing, name) for thing in items] for name in names}


def filter_values(query: OrderFilters, owner_id: UUID | None) -> dict[str, Any]:
    filters = query.model_dump(exclude={"limit", "cursor", "sort"}, exclude_none=True)
    if query.email:
        filters["email"] = to_lookup_key(query.email)
    if query.number:
        filters["number_prefix"], filters["number"] = split_number(query.number)
    return filters if owner_id is None else filters | {"owner_id": owner_id}


def keyset_values(keyset: TimeKeyset | None) -> dict[str, Any]:
    if keyset is None:
        return {}
    return {"after_timestamp": keyset.timestamp, "after_order_id": keyset.row_id}
