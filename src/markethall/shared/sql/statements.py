"""The statements on the common tables of a context."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import bindparam
from sqlalchemy.dialects.postgresql import ARRAY, insert

from markethall.shared.db import Statement
from markethall.shared.sql.tables import DEAD, WAITING


class ContextStatements:
    """The statements on the common tables of one context, built once per context."""

    def __init__(self, metadata: sa.MetaData) -> None:
        tables = {table.name: table for table in metadata.tables.values()}
        self.schema = str(metadata.schema)
        self._outbox_statements(tables["outbox"])
        self._inbox_statements(tables["inbox"])
        self._key_statements(tables["idempotency_key"])

    def _outbox_statements(self, t: sa.Table) -> None:
        columns = [c for c in t.c if c.name not in {"seq", "published_at", "confirmed_at"}]
        self.publish = Statement(sa.insert(t).values({c.name: bindparam(c.name) for c in columns}))
        self.unpublished = Statement(
            sa.select(t)
            .where(t.c.published_at.is_(None))
            .order_by(t.c.seq)
            .limit(bindparam("limit", type_=sa.Integer))
        )
        self.mark_published = Statement(
            sa.update(t)
            .where(t.c.seq == sa.any_(bindparam("seqs", type_=ARRAY(sa.BigInteger))))
            .values(
                published_at=bindparam("now"),
                confirmed_at=sa.case(
                    (
                        t.c.event_id == sa.any_(bindparam("awaited", type_=ARRAY(sa.Uuid))),
                        sa.null(),
                    ),
                    else_=bindparam("now"),
                ),
            )
        )
        self.unconfirmed = Statement(
            sa.select(t)
            .where(
                t.c.published_at.is_not(None),
                t.c.confirmed_at.is_(None),
                t.c.seq > bindparam("after", type_=sa.BigInteger),
            )
            .order_by(t.c.seq)
            .limit(bindparam("limit", type_=sa.Integer))
        )
        self.mark_confirmed = Statement(
            sa.update(t)
            .where(t.c.event_id == sa.any_(bindparam("events", type_=ARRAY(sa.Uuid))))
            .values(confirmed_at=bindparam("now"))
        )
        old = t.c.confirmed_at < bindparam("before")
        self.purge_outbox = _delete_some(t, [t.c.seq], old)

    def _inbox_statements(self, t: sa.Table) -> None:
        columns = [c for c in t.c if c.name not in {"position", "done_at"}]
        self.accept = Statement(
            insert(t).values({c.name: bindparam(c.name) for c in columns}).on_conflict_do_nothing()
        )
        earlier = t.alias("earlier")
        # not EXISTS: as an anti-join it is quadratic in the backlog of one key
        first_of_key = (
            sa.select(sa.func.min(earlier.c.position))
            .where(earlier.c.key == t.c.key, earlier.c.state == WAITING)
            .scalar_subquery()
        )
        heads = (
            sa.select(t.c.handler, t.c.event_id)
            .where(
                t.c.state == WAITING,
                t.c.due_at <= bindparam("now"),
                t.c.position == first_of_key,
            )
            .order_by(t.c.position)
            .limit(bindparam("limit", type_=sa.Integer))
            .with_for_update(skip_locked=True)
            .cte("heads")
        )
        self.claim = Statement(
            sa.update(t)
            .where(t.c.handler == heads.c.handler, t.c.event_id == heads.c.event_id)
            .values(attempts=t.c.attempts + 1, due_at=bindparam("lease_until"))
            .returning(t)
        )
        one = sa.and_(t.c.handler == bindparam("of"), t.c.event_id == bindparam("event"))
        self.handled = Statement(
            sa.update(t)
            .where(one, t.c.state == WAITING)
            .values(state="done", done_at=bindparam("now"))
        )
        self.postpone = Statement(
            sa.update(t)
            .where(one, t.c.state == WAITING)
            .values(
                due_at=bindparam("due"),
                error=bindparam("why"),
                attempts=t.c.attempts - bindparam("excused", type_=sa.Integer),
            )
        )
        self.bury = Statement(
            sa.update(t)
            .where(one, t.c.state == WAITING)
            .values(state="dead", error=bindparam("why"))
        )
        self.dead = Statement(
            sa.select(t)
            .where(t.c.state == DEAD)
            .order_by(t.c.position)
            .limit(bindparam("limit", type_=sa.Integer))
        )
        again = {"state": "waiting", "attempts": 0, "due_at": t.c.received_at, "done_at": None}
        wanted = bindparam("event", type_=sa.Uuid)
        self.retry_dead = Statement(
            sa.update(t)
            .where(t.c.state == DEAD, sa.or_(wanted.is_(None), t.c.event_id == wanted))
            .values(again)
        )
        self.replay = Statement(
            sa.update(t)
            .where(t.c.event_id == bindparam("event"), t.c.state != WAITING)
            .values(again)
        )
        old = t.c.done_at < bindparam("before")
        self.purge_inbox = _delete_some(t, [t.c.handler, t.c.event_id], old)

    def _key_statements(self, t: sa.Table) -> None:
        unfinished = sa.and_(t.c.scope == bindparam("of"), t.c.answer.is_(None))
        new = insert(t).values({c.name: bindparam(c.name) for c in t.c if c.name != "answer"})
        self.claim_key = Statement(new.on_conflict_do_nothing())
        self.standing_key = Statement(sa.select(t).where(t.c.scope == bindparam("of")))
        self.take_over_key = Statement(
            sa.update(t)
            .where(unfinished, t.c.lease_until == bindparam("was"))
            .values(lease_until=bindparam("until"))
        )
        self.finish_key = Statement(
            sa.update(t)
            .where(unfinished)
            .values(answer=bindparam("text"), expires_at=bindparam("expires"))
        )
        self.hand_back_key = Statement(
            sa.update(t)
            .where(unfinished, t.c.lease_until == bindparam("was"))
            .values(lease_until=bindparam("now"))
        )
        self.purge_keys = _delete_some(t, [t.c.scope], t.c.expires_at < bindparam("now"))


# so few that a statement ends in its time, however much there is to forget
PURGED_AT_ONCE = 2000


def _delete_some(
    t: sa.Table, key: "Sequence[sa.Column[Any]]", old: sa.ColumnElement[bool]
) -> Statement:
    some = sa.select(*key).where(old).limit(sa.literal_column(str(PURGED_AT_ONCE)))
    return Statement(sa.delete(t).where(sa.tuple_(*key).in_(some)))
