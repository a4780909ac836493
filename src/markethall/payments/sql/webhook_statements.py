"""The SQL statements of webhook events."""

import sqlalchemy as sa
from sqlalchemy import bindparam

from markethall.payments.sql.statements import LIMIT, insert_new
from markethall.payments.sql.tables import PENDING_LITERAL, operations, webhook_events
from markethall.shared.persistence.postgres import Statement, sql_literal

_event_by_id = sa.and_(
    webhook_events.c.provider == bindparam("provider"),
    webhook_events.c.event_id == bindparam("event_id"),
)
INSERT_EVENT = insert_new(webhook_events)
UPDATE_EVENT_STATE = Statement(
    sa.update(webhook_events)
    .where(_event_by_id)
    .values(state=bindparam("state"), applied_at=bindparam("applied_at"))
)
_NOW = bindparam("now", type_=webhook_events.c.due_at.type)
_is_about_dispute = webhook_events.c.dispute_reference.is_not(None)
_pending = webhook_events.c.state == PENDING_LITERAL
LIST_APPLICABLE_EVENTS = Statement(
    sa.select(webhook_events)
    .outerjoin(operations, operations.c.operation_id == webhook_events.c.operation_id)
    .where(
        _pending,
        sa.or_(operations.c.operation_id.is_not(None), _is_about_dispute),
        webhook_events.c.provider == bindparam("provider"),
        webhook_events.c.due_at <= _NOW,
    )
    .order_by(webhook_events.c.due_at)
    .limit(LIMIT)
)
POSTPONE_EVENT = Statement(
    sa.update(webhook_events)
    .where(_event_by_id, _pending)
    .values(
        due_at=_NOW
        + sa.func.least(
            sa.func.greatest(
                _NOW - webhook_events.c.received_at, bindparam("min_delay", type_=sa.Interval)
            ),
            bindparam("max_delay", type_=sa.Interval),
        )
    )
)


def _ignore_unmatched_events() -> Statement:
    """Set old pending events without an operation to ignored.

    Such events are never postponed, so their `due_at` is the time of their receipt.
    """
    operation = sa.exists().where(operations.c.operation_id == webhook_events.c.operation_id)
    unmatched = (
        sa.select(webhook_events.c.provider, webhook_events.c.event_id)
        .where(
            _pending,
            webhook_events.c.due_at <= bindparam("received_before", type_=_NOW.type),
            ~operation,
            ~_is_about_dispute,
        )
        .order_by(webhook_events.c.due_at)
        .limit(LIMIT)
        .with_for_update(skip_locked=True)
        .cte("unmatched")
    )
    return Statement(
        sa.update(webhook_events)
        .where(
            webhook_events.c.provider == unmatched.c.provider,
            webhook_events.c.event_id == unmatched.c.event_id,
        )
        .values(state=sql_literal("ignored"), applied_at=_NOW)
    )


IGNORE_UNMATCHED_EVENTS = _ignore_unmatched_events()
