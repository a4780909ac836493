"""The reads of the integrity checks of payments in Postgres."""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime
from typing import Any, Final, TypeVar
from uuid import UUID

from markethall.payments.contract.internal import PaymentState
from markethall.payments.domain.integrity import ChargeSums, PaymentSums, ProviderCharge, WaitingRow
from markethall.payments.sql import integrity_statements as sql
from markethall.shared.kernel.money import Money
from markethall.shared.persistence.postgres import Connection, Statement

F = TypeVar("F")

NO_ID: Final = UUID(int=0)
_BEFORE_ALL: Final = (datetime(1, 1, 2, tzinfo=UTC), "")


class SqlPaymentIntegrityReads:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def list_payment_sums(self, after: UUID | None, limit: int) -> Sequence[PaymentSums]:
        return await self._fetch(PaymentSums, sql.LIST_PAYMENT_SUMS, after, limit)

    async def list_sandbox_charge_sums(
        self, after: UUID | None, limit: int
    ) -> Sequence[ChargeSums]:
        return await self._fetch(ChargeSums, sql.LIST_CHARGE_SUMS, after, limit)

    async def get_sandbox_charges(
        self, operation_ids: Sequence[UUID]
    ) -> Mapping[UUID, ProviderCharge]:
        rows = await self._connection.fetch_all(
            sql.GET_SANDBOX_CHARGES, operation_ids=list(operation_ids)
        )
        return {row["operation_id"]: ProviderCharge(**dict(row)) for row in rows}

    async def list_sandbox_charges(
        self, after: UUID | None, limit: int
    ) -> Sequence[ProviderCharge]:
        return await self._fetch(ProviderCharge, sql.LIST_SANDBOX_CHARGES, after, limit)

    async def get_known_operations(self, operation_ids: Sequence[UUID]) -> AbstractSet[UUID]:
        rows = await self._connection.fetch_all(
            sql.GET_KNOWN_OPERATIONS, operation_ids=list(operation_ids)
        )
        return {row["operation_id"] for row in rows}

    async def list_open_operations(
        self, created_before: datetime, after: tuple[datetime, str] | None, limit: int
    ) -> Sequence[WaitingRow]:
        return await self._fetch_waiting(sql.LIST_OPEN_OPERATIONS, created_before, after, limit)

    async def list_overdue_payments(
        self, expired_before: datetime, after: tuple[datetime, str] | None, limit: int
    ) -> Sequence[WaitingRow]:
        return await self._fetch_waiting(sql.LIST_OVERDUE_PAYMENTS, expired_before, after, limit)

    async def list_unapplied_webhooks(
        self, received_before: datetime, after: tuple[datetime, str] | None, limit: int
    ) -> Sequence[WaitingRow]:
        return await self._fetch_waiting(sql.LIST_UNAPPLIED_WEBHOOKS, received_before, after, limit)

    async def list_money_after_end(
        self, settled_before: datetime, after: tuple[datetime, str] | None, limit: int
    ) -> Sequence[WaitingRow]:
        return await self._fetch_waiting(sql.LIST_MONEY_AFTER_END, settled_before, after, limit)

    async def _fetch(
        self, fact: type[F], statement: Statement, after: UUID | None, limit: int
    ) -> Sequence[F]:
        rows = await self._connection.fetch_all(statement, after=after or NO_ID, limit=limit)
        return [fact(**dict(row)) for row in rows]

    async def _fetch_waiting(
        self, statement: Statement, before: datetime, after: tuple[datetime, str] | None, limit: int
    ) -> Sequence[WaitingRow]:
        after_time, after_id = after or _BEFORE_ALL
        rows: Sequence[Any] = await self._connection.fetch_all(
            statement, before=before, after_time=after_time, after_id=after_id, limit=limit
        )
        return [WaitingRow(**dict(row)) for row in rows]


async def list_payment_states(
    connection: Connection, after: UUID | None, limit: int
) -> Sequence[PaymentState]:
    rows = await connection.fetch_all(sql.LIST_PAYMENT_STATES, after=after or NO_ID, limit=limit)
    return [_payment_state(row) for row in rows]


def _payment_state(row: Any) -> PaymentState:
    def money(name: str) -> Money:
        return Money(amount=row[name], currency=row["currency"])

    return PaymentState(
        payment_id=row["payment_id"],
        order_id=row["order_id"],
        status=row["status"],
        amount=money("amount"),
        captured=money("captured"),
        refunded=money("refunded"),
        settled_at=row["settled_at"],
    )
