"""One transaction on the payments schema, and what its rows mean."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import fields
from datetime import datetime
from itertools import groupby
from typing import TYPE_CHECKING, Any
from uuid import UUID

import asyncpg

from markethall.payments.contract import (
    AccountBalance,
    LedgerReport,
    OperationKind,
    OperationStatus,
    OrderHasPayment,
    PaymentStatus,
    PostingKind,
)
from markethall.payments.domain import Operation, Payment, Posting, account_kind
from markethall.payments.ports import OperationFilter, PaymentFilter, ProviderEvent, WebhookState
from markethall.payments.sql import statements as sql
from markethall.shared import sql as shared
from markethall.shared.money import Money

if TYPE_CHECKING:
    from asyncpg.protocol import Record


class SqlStore(shared.SqlStore):
    # Payments

    async def open(self, payment: Payment) -> Payment:
        row = await self._session.one(sql.OPEN_PAYMENT, **_payment_row(payment))
        return _payment(row or await self._standing(payment))

    async def _standing(self, payment: Payment) -> "Record":
        """What has its id already. Raises OrderHasPayment where only the order is the same."""
        row = None
        with suppress(asyncpg.UniqueViolationError):
            given = {f"new_{name}": value for name, value in _payment_row(payment).items()}
            row = await self._session.one(sql.NAME_PAYMENT, of_payment=payment.payment_id, **given)
        if row is None:
            raise OrderHasPayment(order_id=str(payment.order_id))
        return row

    async def forbid(self, payment_id: UUID, now: datetime) -> bool:
        return bool(await self._session.run(sql.FORBID, **_tombstone(payment_id, now)))

    async def payment(self, payment_id: UUID) -> Payment | None:
        row = await self._session.one(sql.PAYMENT, of_payment=payment_id)
        return _payment(row) if row else None

    async def locked(self, payment_id: UUID) -> Payment | None:
        row = await self._session.one(sql.LOCKED_PAYMENT, of_payment=payment_id)
        return _payment(row) if row else None

    async def payments(self, wanted: PaymentFilter) -> Sequence[Payment]:
        statement, values = sql.page_of(wanted)
        return [_payment(row) for row in await self._session.all(statement, **values)]

    async def count(self) -> int:
        count: int = await self._session.value(sql.PAYMENT_COUNT)
        return count

    async def save(self, payment: Payment) -> None:
        _expect_one(await self._session.run(sql.SAVE_PAYMENT, **_change_of(payment)))

    async def expire_overdue(self, now: datetime, limit: int) -> int:
        return await self._session.run(sql.EXPIRE, now=now, limit=limit)

    # Operations

    async def begin(self, payment: Payment, operation: Operation) -> None:
        values = _change_of(payment) | _operation_row(operation)
        _expect_one(await self._session.run(sql.BEGIN, **values))

    async def settle(self, payment: Payment, operation: Operation) -> None:
        values = _change_of(payment) | _operation_row(operation)
        _expect_one(
            await self._session.run(sql.SETTLE, **values, of_operation=operation.operation_id)
        )

    async def operation(self, operation_id: UUID) -> Operation | None:
        row = await self._session.one(sql.OPERATION, of_operation=operation_id)
        return _operation(row) if row else None

    async def operations(self, wanted: OperationFilter) -> Sequence[Operation]:
        statement = sql.operations_page(
            of_kind=wanted.kind is not None, after=wanted.after is not None
        )
        at, operation_id = wanted.after or (None, None)
        rows = await self._session.all(
            statement,
            of_payment=wanted.payment_id,
            of_kind=wanted.kind,
            after_time=at,
            after_id=operation_id,
            limit=wanted.limit,
        )
        return [_operation(row) for row in rows]

    async def locked_operation(self, operation_id: UUID) -> tuple[Payment, Operation] | None:
        row = await self._session.one(sql.LOCKED_OPERATION, of_operation=operation_id)
        return (_payment(row), _operation(row, sql.OF_OPERATION)) if row else None

    async def claim_due(self, now: datetime, until: datetime, limit: int) -> Sequence[Operation]:
        rows = await self._session.all(sql.CLAIM_DUE, now=now, until=until, limit=limit)
        return [_operation(row) for row in rows]

    # The ledger

    async def post(self, posting: Posting) -> None:
        await self._session.run(
            sql.POST,
            posting_id=posting.posting_id,
            payment_id=posting.payment_id,
            operation_id=posting.operation_id,
            kind=posting.kind.value,
            created_at=posting.created_at,
            currency=posting.currency,
            accounts=[account for account, _ in posting.entries],
            amounts=[amount for _, amount in posting.entries],
        )

    async def postings(
        self, payment_id: UUID | None, before: tuple[datetime, UUID] | None, limit: int
    ) -> Sequence[Posting]:
        statement = sql.postings_page(of_payment=payment_id is not None, before=before is not None)
        at, posting_id = before or (None, None)
        rows = await self._session.all(
            statement, of_payment=payment_id, after_time=at, after_id=posting_id, limit=limit
        )
        groups = groupby(rows, key=lambda row: row["posting_id"])
        return [_posting(list(group)) for _, group in groups]

    async def balances(self) -> Sequence[AccountBalance]:
        return [_balance(row) for row in await self._session.all(sql.BALANCES)]

    async def report(self) -> LedgerReport:
        unbalanced = [row[0] for row in await self._session.all(sql.UNBALANCED)]
        mismatched = [row[0] for row in await self._session.all(sql.MISMATCHED)]
        return LedgerReport(
            balanced=not unbalanced and not mismatched,
            posting_count=await self._session.value(sql.POSTING_COUNT),
            unbalanced_postings=tuple(unbalanced),
            mismatched_payments=tuple(mismatched),
        )

    # Webhooks

    async def keep_event(self, event: ProviderEvent, state: WebhookState, now: datetime) -> bool:
        row = {field.name: getattr(event, field.name) for field in fields(event)}
        new = row | {"state": state, "received_at": now, "applied_at": None}
        return bool(await self._session.run(sql.KEEP_EVENT, **new))

    async def mark_event(self, event: ProviderEvent, state: WebhookState, now: datetime) -> None:
        await self._session.run(
            sql.MARK_EVENT,
            of_provider=event.provider,
            of_event=event.event_id,
            to_state=state,
            now=now,
        )

    async def ripe_events(self, limit: int) -> Sequence[ProviderEvent]:
        rows = await self._session.all(sql.RIPE_EVENTS, limit=limit)
        names = [field.name for field in fields(ProviderEvent)]
        return [ProviderEvent(**{name: row[name] for name in names}) for row in rows]


_PAYMENT = tuple(field.name for field in fields(Payment))
_OPERATION = tuple(field.name for field in fields(Operation))


def _payment(row: "Record") -> Payment:
    values = {name: row[name] for name in _PAYMENT}
    return Payment(**values | {"status": PaymentStatus(row["status"])})


def _payment_row(payment: Payment) -> dict[str, Any]:
    return {name: getattr(payment, name) for name in _PAYMENT}


def _change_of(payment: Payment) -> dict[str, Any]:
    """Every command moves the version by one: what is saved must stand on what was read."""
    return _payment_row(payment) | {
        "of_payment": payment.payment_id,
        "was": payment.version - 1,
    }


def _tombstone(payment_id: UUID, now: datetime) -> dict[str, Any]:
    nothing = dict.fromkeys(_PAYMENT)
    amounts = dict.fromkeys(("amount", "authorized", "captured", "refunded", "refunding"), 0)
    known = {"payment_id": payment_id, "status": "cancelled", "provider": "", "created_at": now}
    return nothing | amounts | known | {"version": 2}


def _operation(row: "Record", prefix: str = "") -> Operation:
    values = {name: row[prefix + name] for name in _OPERATION}
    kind, status = OperationKind(values["kind"]), OperationStatus(values["status"])
    return Operation(**values | {"kind": kind, "status": status})


def _operation_row(operation: Operation) -> dict[str, Any]:
    return {sql.OF_OPERATION + name: getattr(operation, name) for name in _OPERATION}


def _posting(rows: "list[Record]") -> Posting:
    """One row per entry."""
    first = rows[0]
    return Posting(
        posting_id=first["posting_id"],
        payment_id=first["payment_id"],
        operation_id=first["operation_id"],
        kind=PostingKind(first["kind"]),
        currency=first["currency"],
        entries=tuple((row["account"], row["amount"]) for row in rows),
        created_at=first["created_at"],
    )


def _balance(row: "Record") -> AccountBalance:
    return AccountBalance(
        account=row["account"],
        kind=account_kind(row["account"]),
        balance=Money(amount=row["balance"], currency=row["currency"]),
    )


def _expect_one(touched: int) -> None:
    if touched != 1:
        raise AssertionError("a locked payment was changed by somebody else")
