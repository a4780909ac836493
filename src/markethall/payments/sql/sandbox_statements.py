"""The SQL statements of the sandbox ledger."""

from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy import bindparam
from sqlalchemy.dialects.postgresql import ARRAY, insert

from markethall.payments.sql.statements import column_binds, one_page
from markethall.payments.sql.tables import (
    sandbox_captures,
    sandbox_charges,
    sandbox_refunds,
    sandbox_saved_methods,
)
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
    .values(
        status=bindparam("status"),
        failure_code=bindparam("failure_code"),
        captured=bindparam("captured"),
        expires_at=bindparam("expires_at"),
    )
)
INSERT_SANDBOX_CAPTURE = Statement(
    insert(sandbox_captures).values(column_binds(sandbox_captures)).on_conflict_do_nothing()
)
_open_authorization = sa.and_(
    sandbox_charges.c.operation_id == bindparam("operation_id"),
    sandbox_charges.c.status == "authorized",
    sandbox_charges.c.currency == bindparam("currency"),
    sandbox_charges.c.expires_at
    > bindparam("captured_at", type_=sandbox_charges.c.expires_at.type),
)
_captured = sandbox_charges.c.captured + bindparam("capture_amount", type_=sa.BigInteger)
_is_last = sa.or_(bindparam("is_final", type_=sa.Boolean), _captured == sandbox_charges.c.amount)
CAPTURE_SANDBOX_CHARGE = Statement(
    sa.update(sandbox_charges)
    .where(_open_authorization, _captured <= sandbox_charges.c.amount)
    .values(captured=_captured, status=sa.case((_is_last, "succeeded"), else_="authorized"))
)
VOID_SANDBOX_CHARGE = Statement(
    sa.update(sandbox_charges)
    .where(_open_authorization)
    .values(status=sa.case((sandbox_charges.c.captured > 0, "succeeded"), else_="voided"))
)
FAIL_SANDBOX_CAPTURE = Statement(
    sa.update(sandbox_captures)
    .where(sandbox_captures.c.operation_id == bindparam("operation_id"))
    .values(status="failed")
)
DEDUCT_FROM_SANDBOX_CHARGE = Statement(
    sa.update(sandbox_charges)
    .where(
        sandbox_charges.c.operation_id == bindparam("operation_id"),
        sandbox_charges.c.currency == bindparam("currency"),
        sandbox_charges.c.refunded + bindparam("refund_amount", type_=sa.BigInteger)
        <= sandbox_charges.c.captured,
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
GET_SANDBOX_CAPTURE = Statement(
    sa.select(sandbox_captures).where(sandbox_captures.c.operation_id == bindparam("operation_id"))
)
GET_SANDBOX_REFUND = Statement(
    sa.select(sandbox_refunds).where(sandbox_refunds.c.operation_id == bindparam("operation_id"))
)
INSERT_SANDBOX_SAVED_METHOD = Statement(
    insert(sandbox_saved_methods)
    .values(column_binds(sandbox_saved_methods))
    .on_conflict_do_nothing()
)
_has_token = sandbox_saved_methods.c.token == bindparam("token")
GET_SANDBOX_SAVED_METHOD = Statement(sa.select(sandbox_saved_methods).where(_has_token))
DETACH_SANDBOX_SAVED_METHOD = Statement(
    sa.update(sandbox_saved_methods).where(_has_token).values(is_attached=False)
)
LIST_SANDBOX_CHARGES = Statement(sa.select(sandbox_charges).order_by(sandbox_charges.c.created_at))


def _movements() -> "sa.Subquery":
    def succeeded(
        kind: str, table: sa.Table, *conditions: sa.ColumnElement[bool]
    ) -> "sa.Select[Any]":
        names = ("operation_id", "created_at", "amount", "currency")
        return sa.select(sql_literal(kind).label("kind"), *(table.c[name] for name in names)).where(
            table.c.status == "succeeded",
            *conditions,
            table.c.created_at >= bindparam("starts_at", type_=table.c.created_at.type),
            table.c.created_at < bindparam("ends_at", type_=table.c.created_at.type),
        )

    # the table of charges also has authorizations, the rows with `expires_at`; they are left out,
    # because only their captures move money
    charges = succeeded("charge", sandbox_charges, sandbox_charges.c.expires_at.is_(None))
    captures = succeeded("capture", sandbox_captures, sandbox_captures.c.kind == "capture")
    refunds = succeeded("refund", sandbox_refunds)
    return sa.union_all(charges, captures, refunds).subquery("movement")


@cache
def list_movements(*, has_keyset: bool) -> Statement:
    movements = _movements()
    keyset = (movements.c.created_at, movements.c.operation_id)
    return Statement(one_page(sa.select(movements), *keyset, has_keyset=has_keyset))
