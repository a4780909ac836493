"""The Postgres store of draft orders."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import bindparam
from sqlalchemy.dialects.postgresql import JSONB, insert

from markethall.orders.configuration.sql import metadata, readable_columns
from markethall.orders.drafts.contract import DraftStatus, NewDraftOrder
from markethall.orders.drafts.domain import DraftOrder, DraftRef
from markethall.shared.kernel.pagination import TimeKeyset
from markethall.shared.persistence.postgres import Connection, Statement, sql_literal
from markethall.shared.persistence.sql import timestamp_column

if TYPE_CHECKING:
    from asyncpg.protocol import Record

drafts: Final = sa.Table(
    "draft_order",
    metadata,
    sa.Column("draft_order_id", sa.Uuid, primary_key=True),
    sa.Column("status", sa.Text, nullable=False),
    # the JSON of a NewDraftOrder
    sa.Column("fields", JSONB, nullable=False),
    sa.Column("order_id", sa.Uuid),
    sa.Column("created_by", sa.Text, nullable=False),
    timestamp_column("created_at"),
    timestamp_column("updated_at"),
    sa.Column("version", sa.Integer, nullable=False),
    sa.UniqueConstraint("order_id"),
    sa.CheckConstraint("status IN ('open', 'completed')", name="status"),
    sa.CheckConstraint("(status = 'completed') = (order_id IS NOT NULL)", name="completed"),
    sa.CheckConstraint("jsonb_typeof(fields) = 'object'", name="fields"),
    sa.CheckConstraint("version >= 1", name="version"),
)
sa.Index("ix_draft_order_created_at", drafts.c.created_at, drafts.c.draft_order_id)

_select: Final = sa.select(*readable_columns(drafts))
_by_id: Final = _select.where(drafts.c.draft_order_id == bindparam("draft_order_id"))
_keyset: Final = (drafts.c.created_at, drafts.c.draft_order_id)
GET_DRAFT: Final = Statement(_by_id)
GET_DRAFT_FOR_UPDATE: Final = Statement(_by_id.with_for_update())
_status: Final = bindparam("status", type_=sa.Text)
LIST_DRAFTS: Final = Statement(
    _select.where(
        sa.or_(_status.is_(None), drafts.c.status == _status),
        sa.tuple_(*_keyset)
        < sa.tuple_(
            bindparam("after_timestamp", type_=sa.TIMESTAMP(timezone=True)),
            bindparam("after_id", type_=sa.Uuid),
        ),
    )
    .order_by(*(column.desc() for column in _keyset))
    .limit(bindparam("limit", type_=sa.Integer))
)
INSERT_DRAFT: Final = Statement(
    insert(drafts)
    .values({column.name: bindparam(column.name) for column in drafts.c})
    .on_conflict_do_nothing()
)
UPDATE_DRAFT: Final = Statement(
    sa.update(drafts)
    .where(drafts.c.draft_order_id == bindparam("saved_id"))
    .values({name: bindparam(name) for name in ("fields", "updated_at", "version")})
)
DELETE_DRAFT: Final = Statement(
    sa.delete(drafts).where(drafts.c.draft_order_id == bindparam("draft_order_id"))
)
COMPLETE_DRAFT: Final = Statement(
    sa.update(drafts)
    .where(
        drafts.c.draft_order_id == bindparam("draft_order_id"),
        drafts.c.version == bindparam("expected_version"),
        drafts.c.status == sql_literal("open"),
    )
    .values(
        status=sql_literal("completed"),
        order_id=bindparam("placed_order_id"),
        updated_at=bindparam("now"),
        version=drafts.c.version + 1,
    )
)
_LATEST: Final = TimeKeyset(datetime(9999, 12, 31, tzinfo=UTC), UUID(int=2**128 - 1))


class SqlDraftStore:
    """The part of the store for draft orders. `_connection` is set by the whole store."""

    _connection: Connection

    async def get_draft(self, draft_order_id: UUID) -> DraftOrder | None:
        row = await self._connection.fetch_one(GET_DRAFT, draft_order_id=draft_order_id)
        return _to_draft(row) if row else None

    async def get_draft_for_update(self, draft_order_id: UUID) -> DraftOrder | None:
        row = await self._connection.fetch_one(GET_DRAFT_FOR_UPDATE, draft_order_id=draft_order_id)
        return _to_draft(row) if row else None

    async def list_drafts(
        self, status: DraftStatus | None, after: TimeKeyset | None, limit: int
    ) -> Sequence[DraftOrder]:
        after = after or _LATEST
        rows = await self._connection.fetch_all(
            LIST_DRAFTS,
            status=status,
            after_timestamp=after.timestamp,
            after_id=after.row_id,
            limit=limit,
        )
        return [_to_draft(row) for row in rows]

    async def add_draft(self, draft: DraftOrder) -> bool:
        return bool(await self._connection.execute(INSERT_DRAFT, **_to_row(draft)))

    async def save_draft(self, draft: DraftOrder) -> None:
        row = _to_row(draft)
        await self._connection.execute(
            UPDATE_DRAFT,
            saved_id=draft.draft_order_id,
            **{name: row[name] for name in ("fields", "updated_at", "version")},
        )

    async def delete_draft(self, draft_order_id: UUID) -> None:
        await self._connection.execute(DELETE_DRAFT, draft_order_id=draft_order_id)

    async def complete_draft(self, draft: DraftRef, order_id: UUID, now: datetime) -> bool:
        return bool(
            await self._connection.execute(
                COMPLETE_DRAFT,
                draft_order_id=draft.draft_order_id,
                expected_version=draft.version,
                placed_order_id=order_id,
                now=now,
            )
        )


def _to_row(draft: DraftOrder) -> dict[str, Any]:
    return {**vars(draft), "fields": draft.fields.model_dump_json()}


def _to_draft(row: "Record") -> DraftOrder:
    fields = NewDraftOrder.model_validate_json(row["fields"])
    return DraftOrder(**{**row, "fields": fields, "status": DraftStatus(row["status"])})
