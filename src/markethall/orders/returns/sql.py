"""The Postgres storage of returns: tables, statements and store."""

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import sqlalchemy as sa
from pydantic import TypeAdapter
from sqlalchemy import bindparam
from sqlalchemy.dialects.postgresql import JSONB

from markethall.orders.configuration.sql import (
    enum_check,
    insert_children,
    lines_as_json,
    metadata,
    readable_columns,
    select_page,
    unnested_rows,
)
from markethall.orders.contract import MAX_QUANTITY
from markethall.orders.returns.contract import ReturnStatus
from markethall.orders.returns.domain import Receipt, Return, ReturnLine
from markethall.shared.composition.sql import SqlUnitOfWork
from markethall.shared.persistence.postgres import Statement
from markethall.shared.persistence.sql import timestamp_column

if TYPE_CHECKING:
    from asyncpg.protocol import Record

_COUNTS: Final = ("restocked", "scrapped")
_AMOUNTS: Final = ("price", "discount", "tax", "included_tax")
_RECEIPTS: Final = TypeAdapter(tuple[Receipt, ...])
_LINES: Final = TypeAdapter(tuple[ReturnLine, ...])

returns: Final = sa.Table(
    "return",
    metadata,
    sa.Column("return_id", sa.Uuid, primary_key=True),
    sa.Column("order_id", sa.Uuid, sa.ForeignKey("orders.order.order_id"), nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("receipts", JSONB, nullable=False),
    sa.Column("refund", sa.BigInteger, nullable=False),
    sa.Column("shipping_refund", sa.BigInteger, nullable=False),
    sa.Column("refunded", sa.BigInteger),
    timestamp_column("created_at"),
    timestamp_column("updated_at"),
    sa.Column("version", sa.Integer, nullable=False),
    enum_check("status", ReturnStatus),
    sa.CheckConstraint("jsonb_typeof(receipts) = 'array'", name="receipts"),
    sa.CheckConstraint(
        "0 <= shipping_refund AND shipping_refund <= refund AND (refund = 0 OR status = 'closed')",
        name="refund",
    ),
    sa.CheckConstraint(
        "refunded IS NULL OR (status = 'closed' AND refunded BETWEEN 0 AND refund)", name="refunded"
    ),
    sa.CheckConstraint("version >= 1", name="version"),
)
sa.Index("ix_return_order_id", returns.c.order_id, returns.c.return_id)
# the shipping of an order is refunded by one return
sa.Index(
    "uq_return_shipping_refund",
    returns.c.order_id,
    unique=True,
    postgresql_where=returns.c.shipping_refund > sa.literal_column("0"),
)

return_lines: Final = sa.Table(
    "return_line",
    metadata,
    sa.Column("return_id", sa.Uuid, sa.ForeignKey(returns.c.return_id), primary_key=True),
    sa.Column("line_id", sa.Uuid, sa.ForeignKey("orders.order_line.line_id"), primary_key=True),
    sa.Column("product_id", sa.Uuid, nullable=False),
    sa.Column("quantity", sa.Integer, nullable=False),
    *(sa.Column(name, sa.Integer, nullable=False) for name in _COUNTS),
    *(sa.Column(name, sa.BigInteger, nullable=False) for name in _AMOUNTS),
    sa.CheckConstraint(f"quantity BETWEEN 1 AND {MAX_QUANTITY}", name="quantity"),
    sa.CheckConstraint(
        "restocked >= 0 AND scrapped >= 0 AND restocked + scrapped <= quantity", name="received"
    ),
    sa.CheckConstraint(
        "discount BETWEEN 0 AND price AND tax >= 0"
        " AND included_tax BETWEEN 0 AND price - discount AND (tax = 0 OR included_tax = 0)",
        name="refund",
    ),
)
sa.Index("ix_return_line_line_id", return_lines.c.line_id)

_LINE_COLUMNS: Final = tuple(column.name for column in return_lines.c if column.name != "return_id")
_SAVED_COLUMNS: Final = (
    "status",
    "receipts",
    "refund",
    "shipping_refund",
    "refunded",
    "updated_at",
    "version",
)


def _insert_return() -> Statement:
    added = (
        sa.insert(returns)
        .values({column.name: bindparam(column.name) for column in returns.c})
        .returning(returns.c.return_id)
        .cte("added")
    )
    return Statement(insert_children(return_lines, _LINE_COLUMNS, "line", added))


def _update_return() -> Statement:
    """Update the return and its lines.

    The row count is the number of its lines; 0 means that the version differs.
    """
    saved = (
        sa.update(returns)
        .where(
            returns.c.return_id == bindparam("saved_id"),
            returns.c.version == bindparam("expected_version"),
        )
        .values({name: bindparam(name) for name in _SAVED_COLUMNS})
        .returning(returns.c.return_id)
        .cte("saved")
    )
    rows = unnested_rows(return_lines, _LINE_COLUMNS, "line")
    return Statement(
        sa.update(return_lines)
        .where(
            return_lines.c.return_id == saved.c.return_id, return_lines.c.line_id == rows.c.line_id
        )
        .values({name: rows.c[name] for name in (*_COUNTS, *_AMOUNTS)})
    )


def _select_returns() -> "sa.Select[Any]":
    """Select returns, each with its lines as one JSON array, sorted by id."""
    columns = (return_lines.c[name] for name in _LINE_COLUMNS)
    is_of_return = return_lines.c.return_id == returns.c.return_id
    lines = lines_as_json(columns, return_lines.c.line_id, is_of_return)
    return sa.select(*readable_columns(returns), lines)


INSERT_RETURN: Final = _insert_return()
UPDATE_RETURN: Final = _update_return()
GET_RETURN: Final = Statement(
    _select_returns().where(returns.c.return_id == bindparam("return_id"))
)
LIST_RETURNS: Final = select_page(
    _select_returns(), returns.c.return_id, returns.c.order_id == bindparam("order_id")
)
HAS_SHIPPING_REFUND: Final = Statement(
    sa.select(
        sa.exists().where(
            returns.c.order_id == bindparam("order_id"),
            returns.c.shipping_refund > sa.literal_column("0"),
        )
    )
)


class SqlReturnStore(SqlUnitOfWork):
    async def get_return(self, return_id: UUID) -> Return | None:
        row = await self._connection.fetch_one(GET_RETURN, return_id=return_id)
        return _to_return(row) if row else None

    async def list_returns(
        self, order_id: UUID, after: UUID | None, limit: int
    ) -> Sequence[Return]:
        rows = await self._connection.fetch_all(
            LIST_RETURNS, order_id=order_id, after=after, limit=limit
        )
        return [_to_return(row) for row in rows]

    async def has_shipping_refund(self, order_id: UUID) -> bool:
        return bool(await self._connection.fetch_value(HAS_SHIPPING_REFUND, order_id=order_id))

    async def add_return(self, requested: Return) -> None:
        names = (column.name for column in returns.c)
        await self._connection.execute(
            INSERT_RETURN, **_row(requested, names), **_line_arrays(requested)
        )

    async def save_return(self, changed: Return) -> bool:
        saved = await self._connection.execute(
            UPDATE_RETURN,
            saved_id=changed.return_id,
            expected_version=changed.version - 1,
            **_row(changed, _SAVED_COLUMNS),
            **_line_arrays(changed),
        )
        return bool(saved)


def _row(entity: Return, names: Iterable[str]) -> dict[str, Any]:
    row = {name: getattr(entity, name) for name in names}
    return row | {"receipts": _RECEIPTS.dump_json(entity.receipts).decode()}


def _line_arrays(entity: Return) -> dict[str, list[Any]]:
    return {
        f"line_{name}": [getattr(line, name) for line in entity.lines] for name in _LINE_COLUMNS
    }


def _to_return(row: "Record") -> Return:
    values = dict(row)
    del values["refund"]
    return Return(
        **values
        | {
            "status": ReturnStatus(row["status"]),
            "receipts": _RECEIPTS.validate_json(row["receipts"]),
            "lines": _LINES.validate_python(json.loads(row["lines"])),
        }
    )
