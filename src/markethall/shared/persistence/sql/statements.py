"""The statements on the common tables of a context."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import bindparam
from sqlalchemy.dialects.postgresql import ARRAY, insert

from markethall.shared.persistence.postgres import Statement
from markethall.shared.persistence.sql.tables import STATE_DEAD, STATE_WAITING


class ContextStatements:
    """The statements on the common tables of one context, built once per context."""

    def __init__(self, metadata: sa.MetaData) -> None:
        tables = {table.name: table for table in metadata.tables.values()}
        self.schema = str(metadata.schema)
        self._build_outbox_statements(tables["outbox"])
        self._build_inbox_statements(tables["inbox"])
        self._idempotency_statements(tables["idempotency_record"])

    def _build_outbox_statements(self, outbox: sa.Table) -> None:
        columns = [c for c in outbox.c if c.name not in {"seq", "published_at", "confirmed_at"}]
        self.insert_event = Statement(
            sa.insert(outbox).values({c.name: bindparam(c.name) for c in columns})
        )
        self.select_unpublished = Statement(
            sa.select(outbox)
            .where(outbox.c.published_at.is_(None))
            .order_by(outbox.c.seq)
            .limit(bindparam("limit", type_=sa.Integer))
        )
        self.mark_published = Statement(
            sa.update(outbox)
            .where(outbox.c.seq == sa.any_(bindparam("seqs", type_=ARRAY(sa.BigInteger))))
            .values(
                published_at=bindparam("now"),
                confirmed_at=sa.case(
                    (
                        outbox.c.event_id
                        == sa.any_(bindparam("awaiting_confirmation", type_=ARRAY(sa.Uuid))),
                        sa.null(),
                    ),
                    else_=bindparam("now"),
                ),
            )
        )
        self.select_unconfirmed = Statement(
            sa.select(outbox)
            .where(
                outbox.c.published_at.is_not(None),
                outbox.c.confirmed_at.is_(None),
                outbox.c.seq > bindparam("after_seq", type_=sa.BigInteger),
            )
            .order_by(outbox.c.seq)
            .limit(bindparam("limit", type_=sa.Integer))
        )
        self.mark_confirmed = Statement(
            sa.update(outbox)
            .where(outbox.c.event_id == sa.any_(bindparam("event_ids", type_=ARRAY(sa.Uuid))))
            .values(confirmed_at=bindparam("now"))
        )
        expired = outbox.c.confirmed_at < bindparam("before")
        self.purge_outbox = _delete_bounded(outbox, [outbox.c.seq], expired)

    def _build_inbox_statements(self, inbox: sa.Table) -> None:
        columns = [c for c in inbox.c if c.name not in {"position", "done_at"}]
        self.insert_delivery = Statement(
            insert(inbox)
            .values({c.name: bindparam(c.name) for c in columns})
            .on_conflict_do_nothing()
        )
        earlier = inbox.alias("earlier")
        # not EXISTS: as an anti-join it is quadratic in the backlog of one key
        first_of_key = (
            sa.select(sa.func.min(earlier.c.position))
            .where(earlier.c.key == inbox.c.key, earlier.c.state == STATE_WAITING)
            .scalar_subquery()
        )
        due_deliveries = (
            sa.select(inbox.c.handler, inbox.c.event_id)
            .where(
                inbox.c.state == STATE_WAITING,
                inbox.c.due_at <= bindparam("now"),
                inbox.c.position == first_of_key,
            )
            .order_by(inbox.c.position)
            .limit(bindparam("limit", type_=sa.Integer))
            .with_for_update(skip_locked=True)
            .cte("due_deliveries")
        )
        self.claim_deliveries = Statement(
            sa.update(inbox)
            .where(
                inbox.c.handler == due_deliveries.c.handler,
                inbox.c.event_id == due_deliveries.c.event_id,
            )
            .values(attempts=inbox.c.attempts + 1, due_at=bindparam("lease_until"))
            .returning(inbox)
        )
        this_delivery = sa.and_(
            inbox.c.handler == bindparam("handler"), inbox.c.event_id == bindparam("event_id")
        )
        self.mark_processed = Statement(
            sa.update(inbox)
            .where(this_delivery, inbox.c.state == STATE_WAITING)
            .values(state="done", done_at=bindparam("now"))
        )
        self.retry_later = Statement(
            sa.update(inbox)
            .where(this_delivery, inbox.c.state == STATE_WAITING)
            .values(
                due_at=bindparam("due_at"),
                error=bindparam("error"),
                attempts=inbox.c.attempts - bindparam("uncounted_attempts", type_=sa.Integer),
            )
        )
        self.dead_letter = Statement(
            sa.update(inbox)
            .where(this_delivery, inbox.c.state == STATE_WAITING)
            .values(state="dead", error=bindparam("error"))
        )
        self.select_dead_letters = Statement(
            sa.select(inbox)
            .where(inbox.c.state == STATE_DEAD)
            .order_by(inbox.c.position)
            .limit(bindparam("limit", type_=sa.Integer))
        )
        requeued = {
            "state": "waiting",
            "attempts": 0,
            "due_at": inbox.c.received_at,
            "done_at": None,
        }
        event_id = bindparam("event_id", type_=sa.Uuid)
        self.requeue_dead_letters = Statement(
            sa.update(inbox)
            .where(
                inbox.c.state == STATE_DEAD,
                sa.or_(event_id.is_(None), inbox.c.event_id == event_id),
            )
            .values(requeued)
        )
        self.replay_event = Statement(
            sa.update(inbox)
            .where(inbox.c.event_id == bindparam("event_id"), inbox.c.state != STATE_WAITING)
            .values(requeued)
        )
        expired = inbox.c.done_at < bindparam("before")
        self.purge_inbox = _delete_bounded(inbox, [inbox.c.handler, inbox.c.event_id], expired)

    def _idempotency_statements(self, t: sa.Table) -> None:
        unfinished = sa.and_(t.c.scope == bindparam("scope"), t.c.response.is_(None))
        insert_record = insert(t).values(
            {c.name: bindparam(c.name) for c in t.c if c.name != "response"}
        )
        self.claim_idempotency_record = Statement(insert_record.on_conflict_do_nothing())
        self.get_idempotency_record = Statement(sa.select(t).where(t.c.scope == bindparam("scope")))
        self.take_over_idempotency_record = Statement(
            sa.update(t)
            .where(unfinished, t.c.lease_until == bindparam("expected_lease_until"))
            .values(lease_until=bindparam("lease_until"))
        )
        self.complete_idempotency_record = Statement(
            sa.update(t)
            .where(unfinished)
            .values(response=bindparam("response"), expires_at=bindparam("expires_at"))
        )
        self.release_idempotency_record = Statement(
            sa.update(t)
            .where(unfinished, t.c.lease_until == bindparam("expected_lease_until"))
            .values(lease_until=bindparam("now"))
        )
        self.purge_idempotency_records = _delete_bounded(
            t, [t.c.scope], t.c.expires_at < bindparam("now")
        )


# so few that a statement ends in its time, however much there is to forget
MAX_PURGED_ROWS = 2000


def _delete_bounded(
    table: sa.Table, key: "Sequence[sa.Column[Any]]", expired: sa.ColumnElement[bool]
) -> Statement:
    bounded = sa.select(*key).where(expired).limit(sa.literal_column(str(MAX_PURGED_ROWS)))
    return Statement(sa.delete(table).where(sa.tuple_(*key).in_(bounded)))
