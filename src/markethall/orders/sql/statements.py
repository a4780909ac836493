"""The SQL statements of orders. Each is compiled once, because compiling is slow."""

from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy import bindparam, func
from sqlalchemy.dialects.postgresql import ARRAY, insert

from markethall.orders.configuration.sql import (
    insert_children,
    json_array,
    lines_as_json,
    readable_columns,
    select_page,
    unnested_rows,
)
from markethall.orders.invoices.sql import add_invoice
from markethall.orders.sql.tables import (
    fulfilment_lines,
    fulfilments,
    guest_owners,
    lines,
    order_edits,
    orders,
    timeline,
)
from markethall.shared.messaging.sql.combined_writes import (
    insert_events,
    lock_delivery,
    mark_processed,
)
from markethall.shared.persistence.postgres import Statement, sql_literal

_outbox, _inbox = (orders.metadata.tables[f"orders.{name}"] for name in ("outbox", "inbox"))

TIMELINE_COLUMNS = tuple(column.name for column in timeline.c if column.name != "order_id")
LINE_COLUMNS = tuple(column.name for column in lines.c if column.name != "order_id")
LINE_COUNTS = ("fulfilled", "delivered", "failed", "cancelled", "in_return", "returned")
UPDATABLE_COLUMNS = (
    "status",
    "payment_status",
    "fulfilment_status",
    "provider_payment_status",
    "payment_version",
    "expires_at",
    "refunded",
    "reservation_id",
    "user_id",
    "is_guest",
    "shipping_address",
    "tags",
    "staff_note",
    "on_hold",
    "metadata",
    "updated_at",
    "version",
)


def _array_bind(name: str, kind: Any) -> Any:
    return bindparam(name, type_=ARRAY(kind))


def _insert_order() -> Statement:
    """Insert the order, its lines, its timeline and its events.

    Returns the order's number, or no row when the order exists already.
    """
    names = [column.name for column in orders.c if column.name != "number"]
    added = (
        insert(orders)
        .values({name: bindparam(name) for name in names})
        # no conflict target, because any of the unique keys may conflict
        .on_conflict_do_nothing()
        .returning(orders.c.order_id, orders.c.number)
        .cte("added")
    )
    order_lines = insert_children(lines, LINE_COLUMNS, "line", added).cte("order_lines")
    timeline_entries = insert_children(timeline, TIMELINE_COLUMNS, "entry", added).cte(
        "timeline_entries"
    )
    events = insert_events(_outbox, added)
    return Statement(sa.select(added.c.number).add_cte(order_lines, timeline_entries, events))


def _save_order(*conditions: "sa.ColumnElement[bool]") -> tuple[sa.CTE, sa.CTE, Any]:
    """Build the updates of the order and of its lines, and the insert of its timeline entries."""
    saved = (
        sa.update(orders)
        .where(
            orders.c.order_id == bindparam("order_id"),
            orders.c.version == bindparam("expected_version"),
            *conditions,
        )
        .values({name: bindparam(name) for name in UPDATABLE_COLUMNS})
        .returning(orders.c.order_id)
        .cte("saved")
    )
    new_quantities = unnested_rows(lines, ("line_id", *LINE_COUNTS), "line")
    order_lines = (
        sa.update(lines)
        .where(
            lines.c.order_id == saved.c.order_id,
            lines.c.line_id == new_quantities.c.line_id,
            sa.tuple_(*(lines.c[name] for name in LINE_COUNTS))
            != sa.tuple_(*(new_quantities.c[name] for name in LINE_COUNTS)),
        )
        .values({name: new_quantities.c[name] for name in LINE_COUNTS})
        .cte("order_lines")
    )
    return saved, order_lines, insert_children(timeline, TIMELINE_COLUMNS, "entry", saved)


def _update_order() -> Statement:
    """Update the order and its lines, and insert timeline entries.

    The row count is the number of inserted entries; 0 means that the version differs.
    """
    _, order_lines, timeline_entries = _save_order()
    return Statement(timeline_entries.add_cte(order_lines))


def _save_handled_order(*, with_invoice: bool = False) -> Statement:
    """Save the order, insert its events, and mark the delivery of an event as processed.

    With `with_invoice`, also add its invoice; the counter is locked after the order.

    All of it, or nothing. Selects whether the delivery was waiting and whether the order was saved.
    The locks are taken in the order of the transactions that do the same in several statements.
    """
    delivery = lock_delivery(_inbox)
    saved, order_lines, entries = _save_order(sa.exists().select_from(delivery))
    writes = (
        order_lines,
        entries.cte("timeline_entries"),
        insert_events(_outbox, saved),
        mark_processed(_inbox, saved),
        *([add_invoice(saved).cte("invoice")] if with_invoice else []),
    )
    return Statement(
        sa.select(
            sa.exists().select_from(delivery).label("was_waiting"),
            sa.exists().select_from(saved).label("is_saved"),
        ).add_cte(*writes)
    )


def _select_additional_payments() -> "sa.ScalarSelect[Any]":
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


def select_with_lines() -> "sa.Select[Any]":
    """Select orders, each with its lines as one JSON array."""
    columns = (lines.c[name] for name in LINE_COLUMNS)
    is_of_order = lines.c.order_id == orders.c.order_id
    return sa.select(
        *readable_columns(orders),
        lines_as_json(columns, lines.c.position, is_of_order),
        sa.cast(_select_additional_payments(), sa.Text).label("additional_payments"),
    )


AFTER_KEYSET = sa.tuple_(
    bindparam("after_timestamp", type_=sa.TIMESTAMP(timezone=True)),
    bindparam("after_order_id", type_=sa.Uuid),
)
LIMIT = bindparam("limit", type_=sa.Integer)

INSERT_ORDER = _insert_order()
UPDATE_ORDER = _update_order()
SAVE_HANDLED_ORDER = _save_handled_order()
SAVE_PAID_ORDER = _save_handled_order(with_invoice=True)
GET_ORDER = Statement(select_with_lines().where(orders.c.order_id == bindparam("order_id")))
GET_ORDER_STATUS = Statement(
    sa.select(
        orders.c.order_id,
        orders.c.user_id,
        orders.c.status,
        orders.c.payment_status,
        orders.c.fulfilment_status,
        orders.c.updated_at,
        orders.c.version,
    ).where(orders.c.order_id == bindparam("order_id"))
)
GET_ORDER_VERSIONS = Statement(
    sa.select(orders.c.order_id, orders.c.version).where(
        orders.c.order_id == sa.any_(_array_bind("order_ids", sa.Uuid))
    )
)
LIST_TIMELINE_ENTRIES = Statement(
    sa.select(timeline)
    .where(
        timeline.c.order_id == bindparam("order_id"),
        timeline.c.version > bindparam("after_version"),
    )
    .order_by(timeline.c.version)
    # a limit of null is no limit
    .limit(LIMIT)
)
COUNT_ORDERS = Statement(sa.select(func.count()).select_from(orders))
LIST_OVERDUE_ORDERS = Statement(
    select_with_lines()
    .where(orders.c.status == sql_literal("pending"), orders.c.overdue_check_at <= bindparam("now"))
    .order_by(orders.c.overdue_check_at, orders.c.order_id)
    .limit(LIMIT)
)
_created = (
    func.unnest(
        _array_bind("span_after", orders.c.created_at.type),
        _array_bind("span_until", orders.c.created_at.type),
    )
    .table_valued(
        sa.column("after", orders.c.created_at.type), sa.column("until", orders.c.created_at.type)
    )
    .render_derived(name="created")
)


@lru_cache(maxsize=2)
def list_pending_orders(*, after_keyset: bool) -> Statement:
    """Select the pending orders that were created in one of the time spans.

    Postgres reads short ranges of the index on `created_at`, or the partial index of pending
    orders.
    """
    keyset = sa.tuple_(orders.c.created_at, orders.c.order_id)
    clause = select_with_lines().where(
        orders.c.status == sql_literal("pending"),
        orders.c.overdue_check_at > bindparam("now"),
        orders.c.created_at > _created.c.after,
        orders.c.created_at <= _created.c.until,
        *([keyset > AFTER_KEYSET] if after_keyset else []),
    )
    return Statement(clause.order_by(*keyset.clauses).limit(LIMIT))


_next_checks = unnested_rows(orders, ("order_id", "overdue_check_at"), "check")
POSTPONE_OVERDUE_CHECKS = Statement(
    sa.update(orders)
    .where(orders.c.order_id == _next_checks.c.order_id)
    .values(overdue_check_at=_next_checks.c.overdue_check_at)
)

_FILTERS: dict[str, "sa.ColumnElement[bool]"] = {
    name: orders.c[name] == bindparam(name)
    for name in ("user_id", "status", "payment_status", "fulfilment_status", "number")
} | {
    # the user whose orders the caller may see; `user_id` is a filter that the caller chose
    "owner_id": orders.c.user_id == bindparam("owner_id"),
    # the number is unique, so the prefix needs no index
    "number_prefix": func.lower(orders.c.number_prefix) == bindparam("number_prefix"),
    "email": orders.c.email_key == bindparam("email"),
    "created_after": orders.c.created_at > bindparam("created_after"),
    "created_before": orders.c.created_at < bindparam("created_before"),
}


@lru_cache(maxsize=1024)
def list_orders(filters: frozenset[str], sort: str, *, after_keyset: bool) -> Statement:
    """Build one statement per combination of filters, so that each uses its best index."""
    keyset = sa.tuple_(orders.c.created_at, orders.c.order_id)
    newest_first = sort.startswith("-")
    clause = select_with_lines().where(*(_FILTERS[name] for name in sorted(filters))).limit(LIMIT)
    if after_keyset:
        clause = clause.where(keyset < AFTER_KEYSET if newest_first else keyset > AFTER_KEYSET)
    columns = (orders.c.created_at, orders.c.order_id)
    return Statement(clause.order_by(*(c.desc() if newest_first else c.asc() for c in columns)))


# Inserts a row, or locks and returns the existing row. On conflict, `user_id` is set to its own
# value, because DO NOTHING would neither lock nor return the row.
GET_GUEST_OWNER_FOR_UPDATE = Statement(
    insert(guest_owners)
    .values(guest_id=bindparam("guest_id"))
    .on_conflict_do_update(
        index_elements=[guest_owners.c.guest_id], set_={"user_id": guest_owners.c.user_id}
    )
    .returning(guest_owners.c.user_id)
)
SET_GUEST_OWNER = Statement(
    insert(guest_owners)
    .values(guest_id=bindparam("guest_id"), user_id=bindparam("user_id"))
    .on_conflict_do_update(
        index_elements=[guest_owners.c.guest_id], set_={"user_id": bindparam("user_id")}
    )
)


def _insert_fulfilment() -> Statement:
    added = (
        sa.insert(fulfilments)
        .values({column.name: bindparam(column.name) for column in fulfilments.c})
        .returning(fulfilments.c.fulfilment_id)
        .cte("added")
    )
    return Statement(insert_children(fulfilment_lines, ("line_id", "quantity"), "line", added))


def _select_fulfilments() -> "sa.Select[Any]":
    columns = (lines.c.line_id, lines.c.product_id, fulfilment_lines.c.quantity)
    shipped = lines_as_json(
        columns,
        lines.c.position,
        fulfilment_lines.c.fulfilment_id == fulfilments.c.fulfilment_id,
        fulfilment_lines.c.line_id == lines.c.line_id,
    )
    return sa.select(fulfilments, shipped)


INSERT_FULFILMENT = _insert_fulfilment()
GET_FULFILMENT = Statement(
    _select_fulfilments().where(fulfilments.c.fulfilment_id == bindparam("fulfilment_id"))
)
LIST_FULFILMENTS = select_page(
    _select_fulfilments(),
    fulfilments.c.fulfilment_id,
    fulfilments.c.order_id == bindparam("order_id"),
)
# a fulfilment ends once: the second of two concurrent updates changes no row
UPDATE_FULFILMENT = Statement(
    sa.update(fulfilments)
    .where(
        fulfilments.c.fulfilment_id == bindparam("fulfilment_id"),
        fulfilments.c.status == sql_literal("shipped"),
    )
    .values(
        {name: bindparam(name) for name in ("status", "delivered_at", "failed_at", "restocked")}
    )
)
