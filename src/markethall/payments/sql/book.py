"""The sandbox's ledger in Postgres, in transactions of its own."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from uuid import UUID

from markethall.payments.ports import SandboxCharge, SandboxRefund
from markethall.payments.sql import statements as sql
from markethall.shared.db import Postgres, Session


class SqlSandboxBook:
    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def charge(self, charge: SandboxCharge) -> SandboxCharge:
        """One statement, which is its own transaction."""
        async with self._postgres.reading() as session:
            if await session.run(sql.BOOK_CHARGE, **asdict(charge)):
                return charge
            standing = await _charge(session, charge.operation_id)
        return standing or charge

    async def refund(self, refund: SandboxRefund) -> SandboxRefund:
        async with self._postgres.transaction() as session:
            if await session.run(sql.BOOK_REFUND, **asdict(refund)):
                return await _taken(session, refund)
            standing = await _refund(session, refund.operation_id)
        return standing or refund

    async def find_charge(self, operation_id: UUID) -> SandboxCharge | None:
        async with self._postgres.reading() as session:
            return await _charge(session, operation_id)

    async def find_refund(self, operation_id: UUID) -> SandboxRefund | None:
        async with self._postgres.reading() as session:
            return await _refund(session, operation_id)

    async def charges(self) -> Sequence[SandboxCharge]:
        async with self._postgres.reading() as session:
            return [SandboxCharge(**dict(row)) for row in await session.all(sql.CHARGES)]


async def _taken(session: Session, refund: SandboxRefund) -> SandboxRefund:
    """Taken from the charge, or failed."""
    if refund.status == "closed":
        return refund
    taken = await session.run(
        sql.TAKE_FROM_CHARGE,
        of_charge=refund.charge_operation_id,
        of_currency=refund.currency,
        more=refund.amount,
    )
    if taken:
        return refund
    await session.run(sql.FAIL_REFUND, of_operation=refund.operation_id)
    return replace(refund, status="failed")


async def _charge(session: Session, operation_id: UUID) -> SandboxCharge | None:
    row = await session.one(sql.FIND_CHARGE, of_operation=operation_id)
    return SandboxCharge(**dict(row)) if row else None


async def _refund(session: Session, operation_id: UUID) -> SandboxRefund | None:
    row = await session.one(sql.FIND_REFUND, of_operation=operation_id)
    return SandboxRefund(**dict(row)) if row else None
