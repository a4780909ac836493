"""The charges, captures and refunds of the sandbox provider in Postgres.

Their transactions are separate from those of payments, because the sandbox stands for an external
provider.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import cache
from typing import Any, Final, TypeVar
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import bindparam
from sqlalchemy.dialects.postgresql import ARRAY

from markethall.payments.ports import (
    EARLIER_CHARGE_STATUSES,
    SandboxCapture,
    SandboxCharge,
    SandboxMovement,
    SandboxRefund,
    SandboxSavedMethod,
)
from markethall.payments.sql.statements import insert_new, one_page, page_values
from markethall.payments.sql.tables import (
    sandbox_captures,
    sandbox_charges,
    sandbox_refunds,
    sandbox_saved_methods,
)
from markethall.shared.persistence.postgres import Connection, Postgres, Statement, sql_literal

R = TypeVar("R")

INSERT_SANDBOX_CHARGE = insert_new(sandbox_charges)
INSERT_SANDBOX_REFUND = insert_new(sandbox_refunds)
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
INSERT_SANDBOX_CAPTURE = insert_new(sandbox_captures)
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


def _select(table: sa.Table) -> Statement:
    return Statement(sa.select(table).where(table.c.operation_id == bindparam("operation_id")))


GET_SANDBOX_ROW: Final[Mapping[type[Any], Statement]] = {
    SandboxCharge: _select(sandbox_charges),
    SandboxCapture: _select(sandbox_captures),
    SandboxRefund: _select(sandbox_refunds),
}
INSERT_SANDBOX_SAVED_METHOD = insert_new(sandbox_saved_methods)
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


class SqlSandboxLedger:
    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def record_charge(self, charge: SandboxCharge) -> SandboxCharge:
        """Insert the charge unless its id exists. One statement needs no transaction."""
        async with self._postgres.read_session() as connection:
            if await connection.execute(INSERT_SANDBOX_CHARGE, **vars(charge)):
                return charge
            existing = await _get(connection, SandboxCharge, charge.operation_id)
        return existing or charge

    async def record_refund(self, refund: SandboxRefund) -> SandboxRefund:
        async with self._postgres.transaction() as connection:
            if await connection.execute(INSERT_SANDBOX_REFUND, **vars(refund)):
                return await _deduct_from_charge(connection, refund)
            existing = await _get(connection, SandboxRefund, refund.operation_id)
        return existing or refund

    async def record_capture(self, capture: SandboxCapture) -> SandboxCapture:
        async with self._postgres.transaction() as connection:
            if await connection.execute(INSERT_SANDBOX_CAPTURE, **vars(capture)):
                return await _change_authorization(connection, capture)
            existing = await _get(connection, SandboxCapture, capture.operation_id)
        return existing or capture

    async def advance_charge(self, charge: SandboxCharge) -> None:
        async with self._postgres.transaction() as connection:
            if not await connection.execute(INSERT_SANDBOX_CHARGE, **vars(charge)):
                await connection.execute(
                    ADVANCE_SANDBOX_CHARGE,
                    operation_id=charge.operation_id,
                    status=charge.status,
                    failure_code=charge.failure_code,
                    captured=charge.captured,
                    expires_at=charge.expires_at,
                    earlier_statuses=EARLIER_CHARGE_STATUSES[charge.status],
                )

    async def get_charge(self, operation_id: UUID) -> SandboxCharge | None:
        async with self._postgres.read_session() as connection:
            return await _get(connection, SandboxCharge, operation_id)

    async def get_capture(self, operation_id: UUID) -> SandboxCapture | None:
        async with self._postgres.read_session() as connection:
            return await _get(connection, SandboxCapture, operation_id)

    async def get_refund(self, operation_id: UUID) -> SandboxRefund | None:
        async with self._postgres.read_session() as connection:
            return await _get(connection, SandboxRefund, operation_id)

    async def record_saved_method(self, method: SandboxSavedMethod) -> None:
        async with self._postgres.read_session() as connection:
            await connection.execute(INSERT_SANDBOX_SAVED_METHOD, **vars(method))

    async def get_saved_method(self, token: str) -> SandboxSavedMethod | None:
        async with self._postgres.read_session() as connection:
            row = await connection.fetch_one(GET_SANDBOX_SAVED_METHOD, token=token)
        return SandboxSavedMethod(**dict(row)) if row else None

    async def detach_saved_method(self, token: str) -> None:
        async with self._postgres.read_session() as connection:
            await connection.execute(DETACH_SANDBOX_SAVED_METHOD, token=token)

    async def list_charges(self) -> Sequence[SandboxCharge]:
        async with self._postgres.read_session() as connection:
            return [
                SandboxCharge(**dict(row))
                for row in await connection.fetch_all(LIST_SANDBOX_CHARGES)
            ]

    async def list_movements(
        self, start: datetime, end: datetime, after: tuple[datetime, UUID] | None, limit: int
    ) -> Sequence[SandboxMovement]:
        async with self._postgres.read_session() as connection:
            rows = await connection.fetch_all(
                list_movements(has_keyset=after is not None),
                starts_at=start,
                ends_at=end,
                **page_values(after, limit),
            )
        return [SandboxMovement(**dict(row)) for row in rows]


async def _change_authorization(connection: Connection, capture: SandboxCapture) -> SandboxCapture:
    """Apply the capture or void to its authorization.

    If the authorization does not allow it, store and return it as failed.
    """
    if capture.status == "closed":
        return capture
    is_void = capture.kind == "void"
    is_applied = await connection.execute(
        VOID_SANDBOX_CHARGE if is_void else CAPTURE_SANDBOX_CHARGE,
        operation_id=capture.charge_operation_id,
        currency=capture.currency,
        captured_at=capture.created_at,
        capture_amount=capture.amount,
        is_final=capture.is_final,
    )
    if is_applied:
        return capture
    await connection.execute(FAIL_SANDBOX_CAPTURE, operation_id=capture.operation_id)
    return replace(capture, status="failed")


async def _deduct_from_charge(connection: Connection, refund: SandboxRefund) -> SandboxRefund:
    """Add the refund to the refunded amount of its charge, and return the refund.

    If the charge does not cover the refund, store and return the refund as failed.
    """
    if refund.status == "closed":
        return refund
    is_deducted = await connection.execute(
        DEDUCT_FROM_SANDBOX_CHARGE,
        operation_id=refund.charge_operation_id,
        currency=refund.currency,
        refund_amount=refund.amount,
    )
    if is_deducted:
        return refund
    await connection.execute(FAIL_SANDBOX_REFUND, operation_id=refund.operation_id)
    return replace(refund, status="failed")


async def _get(connection: Connection, row_type: type[R], operation_id: UUID) -> R | None:
    row = await connection.fetch_one(GET_SANDBOX_ROW[row_type], operation_id=operation_id)
    return row_type(**dict(row)) if row else None
