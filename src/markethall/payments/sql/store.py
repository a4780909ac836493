"""The Postgres store of payments. It runs the statements and maps rows to entities."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import fields
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import asyncpg
from pydantic import TypeAdapter

from markethall.payments.contract.api import NextAction, PaymentDispute, RefundQuery
from markethall.payments.contract.errors import OrderHasPayment
from markethall.payments.contract.internal import PaymentState
from markethall.payments.contract.statuses import OperationKind, PaymentStatus
from markethall.payments.domain.operation import Operation
from markethall.payments.domain.payment import Payment
from markethall.payments.ports import PaymentFilter, ProviderEvent, Settlement, WebhookState
from markethall.payments.sql import statements as sql
from markethall.payments.sql import webhook_statements
from markethall.payments.sql.integrity import NO_ID, list_payment_states
from markethall.payments.sql.ledger import SqlLedgerStore, posting_values
from markethall.payments.sql.ledger_statements import SETTLE_WITH_KEY, SETTLE_WITHOUT_KEY
from markethall.payments.sql.reconciliation import SqlReconciliationStore
from markethall.payments.sql.rows import OPERATION_COLUMNS, to_operation
from markethall.payments.sql.saved_methods import SqlGuestStore, SqlSavedMethodStore
from markethall.shared.idempotency.records import IdempotentCommand
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.model import Dto
from markethall.shared.kernel.pagination import TimeKeyset
from markethall.shared.messaging.sql.combined_writes import event_values
from markethall.shared.persistence.postgres import Statement

if TYPE_CHECKING:
    from asyncpg.protocol import Record


class SqlPaymentStore(SqlLedgerStore, SqlReconciliationStore, SqlSavedMethodStore, SqlGuestStore):
    # Payments

    async def open_payment(self, payment: Payment) -> Payment:
        row = await self._connection.fetch_one(sql.INSERT_PAYMENT, **_payment_row(payment))
        return _to_payment(row or await self._attach_or_get(payment))

    async def _attach_or_get(self, payment: Payment) -> "Record":
        """Return the stored row with this payment id.

        If the row is a tombstone, write the data of the payment into it first.

        Raises OrderHasPayment when the order has a payment with another id.
        """
        row = None
        with suppress(asyncpg.UniqueViolationError):
            row = await self._connection.fetch_one(
                sql.ATTACH_ORDER_TO_TOMBSTONE, **_payment_row(payment)
            )
        if row is None:
            raise OrderHasPayment(order_id=str(payment.order_id))
        return row

    async def activate_payments(self, payment_ids: Sequence[UUID]) -> Sequence[Payment]:
        match payment_ids:
            case [payment_id]:
                rows = await self._connection.fetch_all(sql.ACTIVATE_PAYMENT, payment_id=payment_id)
            case _:
                rows = await self._connection.fetch_all(
                    sql.ACTIVATE_PAYMENTS, payment_ids=payment_ids
                )
        return [_to_payment(row) for row in rows]

    async def insert_tombstone(self, payment_id: UUID, now: datetime) -> bool:
        return bool(
            await self._connection.execute(sql.INSERT_TOMBSTONE, **_tombstone_row(payment_id, now))
        )

    async def get_payment(self, payment_id: UUID) -> Payment | None:
        row = await self._connection.fetch_one(sql.GET_PAYMENT, payment_id=payment_id)
        return _to_payment(row) if row else None

    async def get_payment_for_update(self, payment_id: UUID) -> Payment | None:
        row = await self._connection.fetch_one(sql.GET_PAYMENT_FOR_UPDATE, payment_id=payment_id)
        return _to_payment(row) if row else None

    async def list_payments(self, payment_filter: PaymentFilter) -> Sequence[Payment]:
        statement, values = sql.list_payments(payment_filter)
        return [_to_payment(row) for row in await self._connection.fetch_all(statement, **values)]

    async def list_payment_states(self, after: UUID | None, limit: int) -> Sequence[PaymentState]:
        return await list_payment_states(self._connection, after, limit)

    async def list_payments_to_refund(self, after: UUID | None, limit: int) -> Sequence[UUID]:
        rows = await self._connection.fetch_all(
            sql.LIST_PAYMENTS_TO_REFUND, after=after or NO_ID, limit=limit
        )
        return [row["payment_id"] for row in rows]

    async def list_overdue_authorizations(self, now: datetime, limit: int) -> Sequence[UUID]:
        rows = await self._connection.fetch_all(
            sql.LIST_OVERDUE_AUTHORIZATIONS, now=now, limit=limit
        )
        return [row["payment_id"] for row in rows]

    async def count(self) -> int:
        count: int = await self._connection.fetch_value(sql.COUNT_PAYMENTS)
        return count

    async def save_payment(self, payment: Payment) -> None:
        _require_one_row(
            await self._connection.execute(sql.UPDATE_PAYMENT, **_update_values(payment))
        )

    async def expire_overdue_payments(
        self, now: datetime, followed_until: datetime, limit: int
    ) -> Sequence[Payment]:
        rows = await self._connection.fetch_all(
            sql.EXPIRE_PAYMENTS, now=now, followed_until=followed_until, limit=limit
        )
        return [_to_payment(row) for row in rows]

    # Operations

    async def add_operation(self, payment: Payment, operation: Operation) -> None:
        values = _update_values(payment) | _operation_row(operation)
        _require_one_row(await self._connection.execute(sql.INSERT_OPERATION, **values))

    async def try_add_operation(self, payment: Payment, operation: Operation) -> bool:
        values = _update_values(payment) | _operation_row(operation)
        return bool(await self._connection.execute(sql.INSERT_OPERATION, **values))

    async def try_settle(
        self, settlement: Settlement, ctx: CallContext, attempt: IdempotentCommand, view: Dto
    ) -> bool:
        row = await self._connection.fetch_one(
            SETTLE_WITH_KEY if attempt.has_key else SETTLE_WITHOUT_KEY,
            **_update_values(settlement.payment)
            | _operation_row(settlement.operation)
            | posting_values(settlement.posting)
            | event_values(self._wrap_events([settlement.event], ctx))
            | self._record_values(attempt, view),
        )
        if row is None:
            return False
        self._note_published([settlement.event])
        return True

    async def save_operation(self, payment: Payment, operation: Operation) -> None:
        await self._update_operation(sql.UPDATE_OPERATION, payment, operation)

    async def save_corrected_operation(self, payment: Payment, operation: Operation) -> None:
        await self._update_operation(sql.UPDATE_CORRECTED_OPERATION, payment, operation)

    async def _update_operation(
        self, statement: Statement, payment: Payment, operation: Operation
    ) -> None:
        values = _update_values(payment) | _operation_row(operation)
        _require_one_row(
            await self._connection.execute(statement, **values, operation_id=operation.operation_id)
        )

    async def get_operation(self, operation_id: UUID) -> Operation | None:
        row = await self._connection.fetch_one(sql.GET_OPERATION, operation_id=operation_id)
        return to_operation(row) if row else None

    async def get_payment_for_operation(
        self, payment_id: UUID, operation_id: UUID
    ) -> tuple[Payment | None, Operation | None]:
        row = await self._connection.fetch_one(
            sql.GET_PAYMENT_FOR_OPERATION, payment_id=payment_id, operation_id=operation_id
        )
        if row is None:
            return None, None
        has_operation = row[f"{sql.OPERATION_PREFIX}operation_id"] is not None
        operation = to_operation(row, sql.OPERATION_PREFIX) if has_operation else None
        return _to_payment(row), operation

    async def list_operations(
        self, payment_id: UUID, kind: OperationKind | None, after: TimeKeyset | None, limit: int
    ) -> Sequence[Operation]:
        rows = await self._connection.fetch_all(
            sql.list_operations(by_kind=kind is not None, has_keyset=after is not None),
            payment_id=payment_id,
            kind=kind,
            **sql.page_values(after, limit),
        )
        return [to_operation(row) for row in rows]

    async def list_refunds(
        self, query: RefundQuery, after: TimeKeyset | None
    ) -> Sequence[tuple[Payment, Operation]]:
        values = {"status": query.status, "provider": query.provider}
        given_values = {name: value for name, value in values.items() if value is not None}
        rows = await self._connection.fetch_all(
            sql.list_refunds(filter_columns=tuple(given_values), has_keyset=after is not None),
            **given_values,
            **sql.page_values(after, query.limit + 1),
        )
        return [(_to_payment(row), to_operation(row, sql.OPERATION_PREFIX)) for row in rows]

    async def get_payment_and_operation_for_update(
        self, operation_id: UUID
    ) -> tuple[Payment, Operation] | None:
        row = await self._connection.fetch_one(
            sql.GET_PAYMENT_AND_OPERATION_FOR_UPDATE, operation_id=operation_id
        )
        return (_to_payment(row), to_operation(row, sql.OPERATION_PREFIX)) if row else None

    async def claim_due_operations(
        self, now: datetime, next_due_at: datetime, limit: int
    ) -> Sequence[Operation]:
        rows = await self._connection.fetch_all(
            sql.CLAIM_DUE_OPERATIONS, now=now, next_due_at=next_due_at, limit=limit
        )
        return [to_operation(row) for row in rows]

    async def hand_to_staff(self, operation_id: UUID) -> bool:
        return bool(await self._connection.execute(sql.HAND_TO_STAFF, operation_id=operation_id))

    async def claim_follow_ups(
        self, now: datetime, next_at: datetime, limit: int
    ) -> Sequence[Operation]:
        rows = await self._connection.fetch_all(
            sql.CLAIM_FOLLOW_UPS, now=now, next_at=next_at, limit=limit
        )
        return [to_operation(row) for row in rows]

    async def set_follow_up(self, operation_id: UUID, follow_up_at: datetime | None) -> None:
        await self._connection.execute(
            sql.SET_FOLLOW_UP, operation_id=operation_id, at=follow_up_at
        )

    # Webhooks

    async def store_event(self, event: ProviderEvent, state: WebhookState, now: datetime) -> bool:
        row = {field.name: getattr(event, field.name) for field in fields(event)}
        values = row | {"state": state, "received_at": now, "due_at": now, "applied_at": None}
        return bool(await self._connection.execute(webhook_statements.INSERT_EVENT, **values))

    async def set_event_state(
        self, event: ProviderEvent, state: WebhookState, now: datetime
    ) -> None:
        await self._connection.execute(
            webhook_statements.UPDATE_EVENT_STATE,
            provider=event.provider,
            event_id=event.event_id,
            state=state,
            applied_at=now,
        )

    async def postpone_event(
        self, event: ProviderEvent, now: datetime, min_delay: timedelta, max_delay: timedelta
    ) -> None:
        await self._connection.execute(
            webhook_statements.POSTPONE_EVENT,
            provider=event.provider,
            event_id=event.event_id,
            now=now,
            min_delay=min_delay,
            max_delay=max_delay,
        )

    async def ignore_unmatched_events(
        self, now: datetime, received_before: datetime, limit: int
    ) -> int:
        return await self._connection.execute(
            webhook_statements.IGNORE_UNMATCHED_EVENTS,
            now=now,
            received_before=received_before,
            limit=limit,
        )

    async def list_applicable_events(
        self, provider: str, now: datetime, limit: int
    ) -> Sequence[ProviderEvent]:
        rows = await self._connection.fetch_all(
            webhook_statements.LIST_APPLICABLE_EVENTS, provider=provider, now=now, limit=limit
        )
        names = [field.name for field in fields(ProviderEvent)]
        return [ProviderEvent(**{name: row[name] for name in names}) for row in rows]


_PAYMENT_COLUMNS = tuple(field.name for field in fields(Payment))
_NEXT_ACTION: TypeAdapter[NextAction] = TypeAdapter(NextAction)


def _to_payment(row: "Record") -> Payment:
    values = {name: row[name] for name in _PAYMENT_COLUMNS}
    action, dispute = row["next_action"], row["dispute"]
    parsed = {
        "status": PaymentStatus(row["status"]),
        "next_action": _NEXT_ACTION.validate_json(action) if action else None,
        "dispute": PaymentDispute.model_validate_json(dispute) if dispute else None,
    }
    return Payment(**values | parsed)


def _payment_row(payment: Payment) -> dict[str, Any]:
    action, dispute = payment.next_action, payment.dispute
    values = {name: getattr(payment, name) for name in _PAYMENT_COLUMNS}
    return values | {
        "next_action": action.model_dump_json() if action else None,
        "dispute": dispute.model_dump_json() if dispute else None,
    }


def _update_values(payment: Payment) -> dict[str, Any]:
    """Return the bind values of an update.

    Each command increases the payment's version by one, so the version of the stored row must be
    one less.
    """
    return _payment_row(payment) | {
        "payment_id": payment.payment_id,
        "expected_version": payment.version - 1,
    }


def _tombstone_row(payment_id: UUID, now: datetime) -> dict[str, Any]:
    empty_values = dict.fromkeys(_PAYMENT_COLUMNS)
    amounts = dict.fromkeys(("amount", "authorized", "captured", "refunded", "refunding"), 0)
    tombstone_values = {
        "payment_id": payment_id,
        "is_activated": False,
        "is_additional": False,
        "status": "cancelled",
        "provider": "",
        "created_at": now,
    }
    return empty_values | amounts | tombstone_values | {"version": 2}


def _operation_row(operation: Operation) -> dict[str, Any]:
    return {sql.OPERATION_PREFIX + name: getattr(operation, name) for name in OPERATION_COLUMNS}


def _require_one_row(row_count: int) -> None:
    if row_count != 1:
        raise AssertionError("a locked payment was changed by another transaction")
