"""Parts of statements: they write the outbox and the inbox in the statement of the effect.

A transaction with one statement needs one round trip. `source` is a CTE with at most one row: the
row of the effect. Without this row, nothing is written.
"""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import bindparam
from sqlalchemy.dialects.postgresql import ARRAY

from markethall.shared.messaging.events import Delivery, EventEnvelope
from markethall.shared.messaging.sql.tables import ENVELOPE_COLUMNS, STATE_WAITING

_EVENT_COLUMNS = ("event_id", *ENVELOPE_COLUMNS)


def insert_events(outbox: sa.Table, source: sa.CTE) -> sa.CTE:
    """Insert the events of `event_values` in their order."""
    arrays = [
        bindparam(f"event_{name}", type_=ARRAY(outbox.c[name].type)) for name in _EVENT_COLUMNS
    ]
    columns = [sa.column(name, outbox.c[name].type) for name in _EVENT_COLUMNS]
    rows = (
        sa.func.unnest(*arrays)
        .table_valued(*columns, with_ordinality="number")
        .render_derived(name="new_events")
    )
    values = (
        sa.select(*(rows.c[name] for name in _EVENT_COLUMNS))
        .join_from(source, rows, sa.true())
        .order_by(rows.c.number)
    )
    return sa.insert(outbox).from_select(list(_EVENT_COLUMNS), values).cte("published")


def event_values(envelopes: Sequence[EventEnvelope]) -> dict[str, Any]:
    """Return the bind values of `insert_events`."""
    return {
        f"event_{name}": [getattr(envelope, name) for envelope in envelopes]
        for name in _EVENT_COLUMNS
    }


def _is_waiting_delivery(inbox: sa.Table) -> "sa.ColumnElement[bool]":
    return sa.and_(
        inbox.c.handler == bindparam("delivery_handler"),
        inbox.c.event_id == bindparam("delivery_event_id"),
        inbox.c.state == STATE_WAITING,
    )


def lock_delivery(inbox: sa.Table) -> sa.CTE:
    """Select and lock the delivery of `delivery_values` if it is not processed yet."""
    delivery = sa.select(inbox.c.event_id).where(_is_waiting_delivery(inbox))
    return delivery.with_for_update().cte("delivery")


def mark_processed(inbox: sa.Table, source: sa.CTE) -> sa.CTE:
    """Mark the delivery of `delivery_values` as processed."""
    return (
        sa.update(inbox)
        .where(_is_waiting_delivery(inbox), sa.exists().select_from(source))
        .values(state="done", done_at=bindparam("delivery_done_at"))
        .cte("processed")
    )


def delivery_values(delivery: Delivery, done_at: Any) -> dict[str, Any]:
    """Return the bind values of `lock_delivery` and `mark_processed`."""
    return {
        "delivery_handler": delivery.handler,
        "delivery_event_id": delivery.envelope.event_id,
        "delivery_done_at": done_at,
    }
