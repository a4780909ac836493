"""The charges, captures and refunds of the sandbox provider in Postgres.

Their transactions are separate from those of payments, because the sandbox stands for an external
provider.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from uuid import UUID

from markethall.payments.ports import (
    EARLIER_CHARGE_STATUSES,
    SandboxCapture,
    SandboxCharge,
    SandboxMovement,
    SandboxRefund,
    SandboxSavedMethod,
)
from markethall.payments.sql import sandbox_statements as sql
from markethall.payments.sql.statements import page_values
from markethall.shared.persistence.postgres import Connection, Postgres


class SqlSandboxLedger:
    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def record_charge(self, charge: SandboxCharge) -> SandboxCharge:
        """Insert the charge unless its id exists. One statement needs no transaction."""
        async with self._postgres.read_session() as connection:
            if await connection.execute(sql.INSERT_SANDBOX_CHARGE, **vars(charge)):
                return charge
            existing = await _get_charge(connection, charge.operation_id)
        return existing or charge

    async def record_refund(self, refund: SandboxRefund) -> SandboxRefund:
        async with self._postgres.transaction() as connection:
            if await connection.execute(sql.INSERT_SANDBOX_REFUND, **vars(refund)):
                return await _deduct_from_charge(connection, refund)
            existing = await _get_refund(connection, refund.operation_id)
        return existing or refund

    async def record_capture(self, capture: SandboxCapture) -> SandboxCapture:
        async with self._postgres.transaction() as connection:
            if await connection.execute(sql.INSERT_SANDBOX_CAPTURE, **vars(capture)):
                return await _change_authorization(connection, capture)
            existing = await _get_capture(connection, capture.operation_id)
        return existing or capture

    async def advance_charge(self, charge: SandboxCharge) -> None:
        async with self._postgres.transaction() as connection:
            if not await connection.execute(sql.INSERT_SANDBOX_CHARGE, **vars(charge)):
                await connection.execute(
                    sql.ADVANCE_SANDBOX_CHARGE,
                    operation_id=charge.operation_id,
                    status=charge.status,
                    failure_code=charge.failure_code,
                    captured=charge.captured,
                    expires_at=charge.expires_at,
                    earlier_statuses=EARLIER_CHARGE_STATUSES[charge.status],
                )

    async def get_charge(self, operation_id: UUID) -> SandboxCharge | None:
        async with self._postgres.read_session() as connection:
            return await _get_charge(connection, operation_id)

    async def get_capture(self, operation_id: UUID) -> SandboxCapture | None:
        async with self._postgres.read_session() as connection:
            return await _get_capture(connection, operation_id)

    async def get_refund(self, operation_id: UUID) -> SandboxRefund | None:
        async with self._postgres.read_session() as connection:
            return await _get_refund(connection, operation_id)

    async def record_saved_method(self, method: SandboxSavedMethod) -> None:
        async with self._postgres.read_session() as connection:
            await connection.execute(sql.INSERT_SANDBOX_SAVED_METHOD, **vars(method))

    async def get_saved_method(self, token: str) -> SandboxSavedMethod | None:
        async with self._postgres.read_session() as connection:
            row = await connection.fetch_one(sql.GET_SANDBOX_SAVED_METHOD, token=token)
        return SandboxSavedMethod(**dict(row)) if row else None

    async def detach_saved_method(self, token: str) -> None:
        async with self._postgres.read_session() as connection:
            await connection.execute(sql.DETACH_SANDBOX_SAVED_METHOD, token=token)

    async def list_charges(self) -> Sequence[SandboxCharge]:
        async with self._postgres.read_session() as connection:
            return [
                SandboxCharge(**dict(row))
                for row in await connection.fetch_all(sql.LIST_SANDBOX_CHARGES)
            ]

    async def list_movements(
        self, start: datetime, end: datetime, after: tuple[datetime, UUID] | None, limit: int
    ) -> Sequence[SandboxMovement]:
        async with self._postgres.read_session() as connection:
            rows = await connection.fetch_all(
                sql.list_movements(has_keyset=after is not None),
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
        sql.VOID_SANDBOX_CHARGE if is_void else sql.CAPTURE_SANDBOX_CHARGE,
        operation_id=capture.charge_operation_id,
        currency=capture.currency,
        captured_at=capture.created_at,
        capture_amount=capture.amount,
        is_final=capture.is_final,
    )
    if is_applied:
        return capture
    await connection.execute(sql.FAIL_SANDBOX_CAPTURE, operation_id=capture.operation_id)
    return replace(capture, status="failed")


async def _deduct_from_charge(connection: Connection, refund: SandboxRefund) -> SandboxRefund:
    """Add the refund to the refunded amount of its charge, and return the refund.

    If the charge does not cover the refund, store and return the refund as failed.
    """
    if refund.status == "closed":
        return refund
    is_deducted = await connection.execute(
        sql.DEDUCT_FROM_SANDBOX_CHARGE,
        operation_id=refund.charge_operation_id,
        currency=refund.currency,
        refund_amount=refund.amount,
    )
    if is_deducted:
        return refund
    await connection.execute(sql.FAIL_SANDBOX_REFUND, operation_id=refund.operation_id)
    return replace(refund, status="failed")


async def _get_charge(connection: Connection, operation_id: UUID) -> SandboxCharge | None:
    row = await connection.fetch_one(sql.GET_SANDBOX_CHARGE, operation_id=operation_id)
    return SandboxCharge(**dict(row)) if row else None


async def _get_capture(connection: Connection, operation_id: UUID) -> SandboxCapture | None:
    row = await connection.fetch_one(sql.GET_SANDBOX_CAPTURE, operation_id=operation_id)
    return SandboxCapture(**dict(row)) if row else None


async def _get_refund(connection: Connection, operation_id: UUID) -> SandboxRefund | None:
    row = await connection.fetch_one(sql.GET_SANDBOX_REFUND, operation_id=operation_id)
    return SandboxRefund(**dict(row)) if row else None
