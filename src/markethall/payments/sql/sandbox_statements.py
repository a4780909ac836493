"""The SQL statements of the sandbox ledger."""

from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy import bindparam
from sqlalchemy.dialects.postgresql import ARRAY, insert

from markethall.payments.sql.statements import LIMIT, column_binds
from markethall.payments.sql.tables import sandbox_charges, sandbox_refunds
from markethall.shared.persistence.postgres import Statement, sql_literal

INSERT_SANDBOX_CHARGE = Statement(
    insert(sandbox_charges).values(column_binds(sandbox_charges)).on_conflict_do_nothing()
)
INSERT_SANDBOX_REFUND = Statement(
    insert(sandbox_refunds).values(column_binds(sandbox_refunds)).on_conflict_do_nothing()
)
ADVANCE_SANDBOX_CHARGE = Statement(
    sa.update(sandbox_charges)
    .where(
        sandbox_charges.c.operation_id == bindparam("operation_id"),
        sandbox_charges.c.status == sa.any_(bindparam("earlier_statuses", type_=ARRAY(sa.Text))),
    )
    .values(status=bindparam("status"), failure_code=bindparam("failure_code"))
)
DEDUCT_FROM_SANDBOX_CHARGE = Statement(
    sa.update(sandbox_charges)
    .where(
        sandbox_charges.c.operation_id == bindparam("operation_id"),
        sandbox_charges.c.status == "succeeded",
        sandbox_charges.c.currency == bindparam("currency"),
        sandbox_charges.c.refunded + bindparam("refund_amount", type_=sa.BigInteger)
        <= sandbox_charges.c.amount,
    )
    .values(refunded=sandbox_charges.c.refunded + bindparam("refund_amount", type_=sa.BigInteger))
)
FAIL_SANDBOX_REFUND = Statement(
    sa.update(sandbox_refunds)
    .where(sandbox_refunds.c.operation_id == bindparam("operation_id"))
    .values(status="failed")
)
GET_SANDBOX_CHARGE = Statement(
    sa.select(sandbox_charges).where(sandbox_charges.c.operation_id == bindparam("operation_id"))
)
GET_SANDBOX_REFUND = Statement(
    sa.select(sandbox_refunds).where(sandbox_refunds.c.operation_id == bindparam("operation_id"))
)
LIST_SANDBOX_CHARGES = Statement(sa.select(sandbox_charges).order_by(sandbox_charges.c.created_at))


def _movements() -> "sa.Subquery":
    def succeeded(kind: str, table: sa.Table) -> "sa.Select[Any]":
        names = ("operation_id", "created_at", "amount", "currency")
        return sa.select(sql_literal(kind).label("kind"), *(table.c[name] for name in names)).where(
            table.c.status == "succeeded",
            table.c.created_at >= bindparam("starts_at", type_=table.c.created_at.type),
            table.c.created_at < bindparam("ends_at", type_=table.c.created_at.type),
        )

    charges, refunds = succeeded("charge", sandbox_charges), succeeded("refund", sandbox_refunds)
    return sa.union_all(charges, refunds).subquery("movement")


@cache
def list_movements(*, has_keyset: bool) -> Statement:
    movements = _movements()
    keyset = sa.tuple_(movements.c.created_at, movements.c.operation_id)
    statement = sa.select(movements)
    if has_keyset:
        after = sa.tuple_(
            bindparam("after_created_at", type_=movements.c.created_at.type),
            bindparam("after_id", type_=sa.Uuid),
        )
        statement = statement.where(keyset > after)
    return Statement(statement.order_by(*keyset.clauses).limit(LIMIT))
