"""The Postgres store of the configuration, and the metadata of the schema `orders`."""

from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import bindparam
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, aggregate_order_by, insert

from markethall.orders.configuration.domain import ConfigurationItem, ItemKind
from markethall.shared.composition.sql import SqlUnitOfWork, context_metadata
from markethall.shared.persistence.postgres import Statement, sql_literal
from markethall.shared.persistence.sql import timestamp_column

if TYPE_CHECKING:
    from asyncpg.protocol import Record

# a promotion has a table of its own
_STORED_KINDS: Final = [kind for kind in ItemKind if kind is not ItemKind.PROMOTION]

metadata: Final = context_metadata("orders")


def enum_check(column: str, values: Iterable[StrEnum]) -> sa.CheckConstraint:
    """Build the constraint that the column has one of these values."""
    names = ", ".join(repr(value.value) for value in values)
    return sa.CheckConstraint(f"{column} IN ({names})", name=column)


configuration: Final = sa.Table(
    "configuration",
    metadata,
    sa.Column("item_id", sa.Uuid, primary_key=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("unique_key", sa.Text, nullable=False),
    sa.Column("fields", JSONB, nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    timestamp_column("created_at"),
    sa.UniqueConstraint("kind", "unique_key"),
    enum_check("kind", _STORED_KINDS),
    sa.CheckConstraint("jsonb_typeof(fields) = 'object'", name="fields"),
    sa.CheckConstraint("version >= 1", name="version"),
)
sa.Index("ix_configuration_kind_item_id", configuration.c.kind, configuration.c.item_id)


def readable_columns(table: sa.Table) -> "list[sa.ColumnElement[Any]]":
    """Return the columns; JSON is read as text, because the connection has no JSON codec."""
    return [
        sa.cast(column, sa.Text).label(column.name) if isinstance(column.type, JSONB) else column
        for column in table.c
    ]


def unnested_rows(table: sa.Table, names: Iterable[str], alias: str) -> Any:
    """Build rows from bind arrays: one array per column, with the name `<alias>_<column>`."""
    columns = [sa.column(name, table.c[name].type) for name in names]
    arrays = [bindparam(f"{alias}_{each.name}", type_=ARRAY(each.type)) for each in columns]
    return sa.func.unnest(*arrays).table_valued(*columns).render_derived(name=alias)


def json_array(
    columns: "Iterable[sa.ColumnElement[Any]]", order_by: "sa.ColumnElement[Any]"
) -> "sa.ColumnElement[Any]":
    """Aggregate rows to one JSON array of objects."""
    parts = (part for column in columns for part in (sql_literal(str(column.key)), column))
    return sa.func.jsonb_agg(aggregate_order_by(sa.func.jsonb_build_object(*parts), order_by))


def lines_as_json(
    columns: "Iterable[sa.ColumnElement[Any]]",
    order_by: "sa.ColumnElement[Any]",
    *conditions: "sa.ColumnElement[bool]",
) -> "sa.ColumnElement[str]":
    """Build the column `lines` of a parent row: the text of a JSON array of its children."""
    children = sa.select(json_array(columns, order_by)).where(*conditions).scalar_subquery()
    return sa.cast(children, sa.Text).label("lines")


def insert_children(table: sa.Table, names: Iterable[str], alias: str, parent: sa.CTE) -> Any:
    """Build the insert of children from bind arrays, if the statement `parent` returned a row.

    The first column of `parent` is the id of the parent.
    """
    names = tuple(names)
    parent_id = next(iter(parent.c))
    rows = unnested_rows(table, names, alias)
    source = sa.select(parent_id, *(rows.c[name] for name in names)).join_from(
        parent, rows, sa.true()
    )
    return insert(table).from_select([parent_id.name, *names], source)


def select_page(
    select: "sa.Select[Any]", key: "sa.Column[Any]", *conditions: "sa.ColumnElement[bool]"
) -> Statement:
    """Build a statement of at most `limit` rows with greater keys than `after`, sorted by key."""
    after = bindparam("after", type_=sa.Uuid)
    later = select.where(*conditions, sa.or_(after.is_(None), key > after))
    return Statement(later.order_by(key).limit(bindparam("limit", type_=sa.Integer)))


def lock_name(prefix: str, name: "sa.ColumnElement[str]") -> Statement:
    """Build a statement that locks a name until the end of the transaction.

    It is separate, so that the snapshot of the next statement contains the rows that other
    transactions committed during the wait for the lock.
    """
    key = sa.func.hashtextextended(sql_literal(prefix) + name, 0)
    return Statement(sa.select(sa.func.pg_advisory_xact_lock(key)))


_select: Final = sa.select(*readable_columns(configuration))
_by_id: Final = _select.where(
    configuration.c.kind == bindparam("kind"), configuration.c.item_id == bindparam("item_id")
)
LOCK_KIND: Final = lock_name("markethall.orders.configuration.", bindparam("kind", type_=sa.Text))
GET_ITEM: Final = Statement(_by_id)
GET_ITEM_FOR_UPDATE: Final = Statement(_by_id.with_for_update())
LIST_ITEMS: Final = select_page(
    _select, configuration.c.item_id, configuration.c.kind == bindparam("kind")
)
COUNT_ITEMS: Final = Statement(
    sa.select(sa.func.count())
    .select_from(configuration)
    .where(configuration.c.kind == bindparam("kind"))
)
INSERT_ITEM: Final = Statement(
    insert(configuration)
    .values({column.name: bindparam(column.name) for column in configuration.c})
    # no conflict target, because the id or the unique key may conflict
    .on_conflict_do_nothing()
)
_other: Final = configuration.alias("other")
SAVE_ITEM: Final = Statement(
    sa.update(configuration)
    .where(
        configuration.c.item_id == bindparam("saved_id"),
        ~sa.exists().where(
            _other.c.kind == bindparam("kind"),
            _other.c.unique_key == bindparam("unique_key"),
            _other.c.item_id != bindparam("saved_id"),
        ),
    )
    .values({name: bindparam(name) for name in ("unique_key", "fields", "version")})
)
DELETE_ITEM: Final = Statement(
    sa.delete(configuration).where(configuration.c.item_id == bindparam("item_id"))
)


class SqlConfigurationStore(SqlUnitOfWork):
    async def lock_kind(self, kind: ItemKind) -> None:
        await self._connection.execute(LOCK_KIND, kind=kind)

    async def get_item(self, kind: ItemKind, item_id: UUID) -> ConfigurationItem | None:
        row = await self._connection.fetch_one(GET_ITEM, kind=kind, item_id=item_id)
        return _to_item(row) if row else None

    async def get_item_for_update(self, kind: ItemKind, item_id: UUID) -> ConfigurationItem | None:
        row = await self._connection.fetch_one(GET_ITEM_FOR_UPDATE, kind=kind, item_id=item_id)
        return _to_item(row) if row else None

    async def list_items(
        self, kind: ItemKind, after: UUID | None, limit: int
    ) -> Sequence[ConfigurationItem]:
        rows = await self._connection.fetch_all(LIST_ITEMS, kind=kind, after=after, limit=limit)
        return [_to_item(row) for row in rows]

    async def count_items(self, kind: ItemKind) -> int:
        count: int = await self._connection.fetch_value(COUNT_ITEMS, kind=kind)
        return count

    async def insert_item(self, item: ConfigurationItem) -> bool:
        return bool(await self._connection.execute(INSERT_ITEM, **vars(item)))

    async def save_item(self, item: ConfigurationItem) -> bool:
        return bool(
            await self._connection.execute(
                SAVE_ITEM,
                saved_id=item.item_id,
                kind=item.kind,
                unique_key=item.unique_key,
                fields=item.fields,
                version=item.version,
            )
        )

    async def delete_item(self, item_id: UUID) -> None:
        await self._connection.execute(DELETE_ITEM, item_id=item_id)


def _to_item(row: "Record") -> ConfigurationItem:
    return ConfigurationItem(**{**row, "kind": ItemKind(row["kind"])})
