from typing import Any

import sqlalchemy as sa

from markethall.shared.messaging.backlog import MAX_COUNT, Backlog
from markethall.shared.persistence.postgres import Connection, Statement


def backlog_statement(
    is_waiting: sa.ColumnElement[bool],
    since: "sa.Column[Any]",
    position: "sa.Column[Any]",
    *,
    is_late: sa.ColumnElement[bool] | None = None,
) -> Statement:
    """Count the waiting rows, and read the column `since` of the row with the lowest position.

    If `is_late` is given, only rows that fulfil it are considered for `since`.
    """
    waiting = sa.select(sa.literal(1)).where(is_waiting).limit(MAX_COUNT).subquery()
    conditions = [is_waiting] if is_late is None else [is_waiting, is_late]
    oldest = sa.select(since).where(*conditions).order_by(position).limit(1)
    count = sa.select(sa.func.count()).select_from(waiting)
    return Statement(
        sa.select(
            count.scalar_subquery().label("count"), oldest.scalar_subquery().label("oldest_at")
        )
    )


async def fetch_backlog(connection: Connection, statement: Statement) -> Backlog:
    row = await connection.fetch_one(statement)
    if row is None:  # only for the type checker: a SELECT without FROM returns one row
        return Backlog(0, None)
    return Backlog(row["count"], row["oldest_at"])
