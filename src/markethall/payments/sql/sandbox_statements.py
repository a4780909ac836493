"""The SQL statements of the sandbox ledger."""

import sqlalchemy as sa
from sqlalchemy import bindparam
from sqlalchemy.dialects.postgresql import ARRAY, insert

from markethall.payments.sql.statements import column_binds
from markethall.payments.sql.tables import sandbox_charges, sandbox_refunds
from markethall.shared.persistence.postgres import Statement

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
