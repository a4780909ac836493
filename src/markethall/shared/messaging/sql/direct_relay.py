"""Relays events to inboxes of the same database in one statement."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import bindparam
from sqlalchemy.dialects.postgresql import ARRAY, insert

from markethall.shared.messaging.outbox import InboxRoute
from markethall.shared.messaging.sql.tables import ENVELOPE_COLUMNS
from markethall.shared.persistence.postgres import Statement

_NOW = bindparam("now", type_=sa.TIMESTAMP(timezone=True))


def build_direct_relay(outbox: sa.Table, inboxes: Sequence[sa.Table]) -> Statement:
    """Build the statement. It selects the type of each event that it has marked as relayed.

    The handlers of the inbox at position n are the bind values of `route_values`.
    """
    batch = (
        sa.select(outbox)
        .where(outbox.c.published_at.is_(None))
        .order_by(outbox.c.seq)
        .limit(bindparam("limit", type_=sa.Integer))
        .cte("batch")
    )
    marked = (
        sa.update(outbox)
        .where(outbox.c.seq == batch.c.seq)
        .values(published_at=_NOW, confirmed_at=_NOW)
        .returning(outbox.c.type)
        .cte("marked")
    )
    deliveries = [
        _insert_deliveries(batch, inbox, position).cte(f"delivered_{position}")
        for position, inbox in enumerate(inboxes)
    ]
    return Statement(sa.select(marked.c.type).add_cte(*deliveries))


def _insert_deliveries(batch: sa.CTE, inbox: sa.Table, position: int) -> Any:
    """Insert the deliveries in the order of the events and of the handlers of their type.

    The inbox keeps this order.
    """
    route = (
        sa.func.unnest(
            bindparam(f"types_{position}", type_=ARRAY(sa.Text)),
            bindparam(f"handlers_{position}", type_=ARRAY(sa.Text)),
        )
        .table_valued(
            sa.column("type", sa.Text), sa.column("handler", sa.Text), with_ordinality="number"
        )
        .render_derived(name=f"route_{position}")
    )
    values = {
        "handler": route.c.handler,
        "event_id": batch.c.event_id,
        "source_seq": batch.c.seq,
        **{name: batch.c[name] for name in ENVELOPE_COLUMNS},
        "state": sa.literal_column("'waiting'", sa.Text),
        "attempts": sa.literal_column("0", sa.Integer),
        "error": sa.literal_column("''", sa.Text),
        "received_at": _NOW,
        "due_at": _NOW,
    }
    source = (
        sa.select(*(value.label(name) for name, value in values.items()))
        .join_from(batch, route, route.c.type == batch.c.type)
        .order_by(batch.c.seq, route.c.number)
    )
    return insert(inbox).from_select(list(values), source).on_conflict_do_nothing()


def route_values(routes: Sequence[InboxRoute], now: datetime, limit: int) -> dict[str, Any]:
    """Return the bind values of the statement."""
    values: dict[str, Any] = {"now": now, "limit": limit}
    for position, route in enumerate(routes):
        pairs = [
            (event_type, handler)
            for event_type, handlers in route.handlers_by_type.items()
            for handler in handlers
        ]
        values[f"types_{position}"] = [event_type for event_type, _ in pairs]
        values[f"handlers_{position}"] = [handler for _, handler in pairs]
    return values
