"""The reads of the integrity checks of payments in Postgres, and their statements."""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime
from typing import Any, Final, TypeVar
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import bindparam
from sqlalchemy.dialects.postgresql import ARRAY

from markethall.payments.contract.internal import PaymentState
from markethall.payments.domain.integrity import (
    ChargeSums,
    PaymentSums,
    ProviderCharge,
    Waiting,
    WaitingRow,
)
from markethall.payments.sql.tables import (
    AUTHORIZED_LITERAL,
    OPEN_LITERALS,
    PAYABLE_LITERALS,
    PENDING_LITERAL,
    has_money_after_end,
    operations,
    payments,
    sandbox_charges,
    webhook_events,
)
from markethall.shared.kernel.money import Money
from markethall.shared.persistence.postgres import Connection, Statement, sql_literal

_LIMIT: Final = bindparam("limit", type_=sa.Integer)
_AFTER: Final = bindparam("after", type_=sa.Uuid)
_SANDBOX: Final = sql_literal("sandbox")
_CHARGE_KINDS: Final = [sql_literal("charge"), sql_literal("authorize")]
F = TypeVar("F")

NO_ID: Final = UUID(int=0)
_BEFORE_ALL: Final = (datetime(1, 1, 2, tzinfo=UTC), "")


def _sum(
    column: "sa.ColumnElement[int]", *conditions: sa.ColumnElement[bool]
) -> "sa.ColumnElement[int]":
    """Sum the column over the rows that satisfy all conditions; 0 for no row."""
    total = sa.func.sum(column).filter(*conditions) if conditions else sa.func.sum(column)
    return sa.func.coalesce(sa.cast(total, sa.BigInteger), sa.literal_column("0", sa.BigInteger))


def _kind_is(table: Any, *kinds: str) -> sa.ColumnElement[bool]:
    return sa.and_(table.c.kind.in_([sql_literal(kind) for kind in kinds]))


def _succeeded(table: Any) -> sa.ColumnElement[bool]:
    return sa.and_(table.c.status == sql_literal("succeeded"))


def _is_open(table: Any) -> sa.ColumnElement[bool]:
    return sa.and_(table.c.status.in_(OPEN_LITERALS))


def _payment_sums() -> Statement:
    of_payment = (
        sa.select(
            sa.func.count()
            .filter(_kind_is(operations, "charge", "authorize"), _succeeded(operations))
            .label("charged_count"),
            _sum(
                operations.c.amount,
                _kind_is(operations, "charge", "capture"),
                _succeeded(operations),
            ).label("operations_captured"),
            _sum(operations.c.amount, _kind_is(operations, "refund"), _succeeded(operations)).label(
                "operations_refunded"
            ),
            _sum(operations.c.amount, _kind_is(operations, "refund"), _is_open(operations)).label(
                "operations_refunding"
            ),
            sa.func.count()
            .filter(operations.c.currency != payments.c.currency)
            .label("other_currency_count"),
        )
        .where(operations.c.payment_id == payments.c.payment_id)
        .lateral("of_payment")
    )
    columns = ("payment_id", "status", "amount", "authorized", "captured", "refunded", "refunding")
    return Statement(
        sa.select(*(payments.c[name] for name in columns), *of_payment.c)
        .join_from(payments, of_payment, sa.true())
        .where(payments.c.payment_id > _AFTER)
        .order_by(payments.c.payment_id)
        .limit(_LIMIT)
    )


def _charge_sums() -> Statement:
    change = operations.alias("change")
    of_charge = (
        sa.select(
            _sum(change.c.amount, _kind_is(change, "capture"), _succeeded(change)).label(
                "captured"
            ),
            _sum(change.c.amount, _kind_is(change, "refund"), _succeeded(change)).label("refunded"),
            _sum(change.c.amount, _kind_is(change, "capture"), _is_open(change)).label(
                "open_captured"
            ),
            _sum(change.c.amount, _kind_is(change, "refund"), _is_open(change)).label(
                "open_refunded"
            ),
        )
        .where(
            # redundant, but lets Postgres use the index on payment_id; charge_id has none
            change.c.payment_id == operations.c.payment_id,
            change.c.charge_id == operations.c.operation_id,
        )
        .lateral("of_charge")
    )
    is_charge = _kind_is(operations, "charge")
    zero = sa.literal_column("0", sa.BigInteger)
    return Statement(
        sa.select(
            operations.c.operation_id,
            operations.c.currency,
            (
                sa.case(
                    (sa.and_(is_charge, _succeeded(operations)), operations.c.amount), else_=zero
                )
                + of_charge.c.captured
            ).label("captured"),
            of_charge.c.refunded,
            (
                sa.case((sa.and_(is_charge, _is_open(operations)), operations.c.amount), else_=zero)
                + of_charge.c.open_captured
            ).label("open_captured"),
            of_charge.c.open_refunded,
            operations.c.follow_up_at.is_not(None).label("awaits_action"),
        )
        .join_from(operations, of_charge, sa.true())
        .where(
            operations.c.kind.in_(_CHARGE_KINDS),
            operations.c.provider == _SANDBOX,
            operations.c.operation_id > _AFTER,
        )
        .order_by(operations.c.operation_id)
        .limit(_LIMIT)
    )


def _waiting(
    name: str,
    row_id: "sa.ColumnElement[str]",
    since: "sa.ColumnElement[Any]",
    problem: "sa.ColumnElement[str]",
    *conditions: sa.ColumnElement[bool],
) -> Statement:
    """Return the statement for a page of rows that have waited since before a time."""
    position = sa.tuple_(since, row_id)
    after = sa.tuple_(
        bindparam("after_time", type_=sa.TIMESTAMP(timezone=True)),
        bindparam("after_id", type_=sa.Text),
    )
    return Statement(
        sa.select(
            sql_literal(name).label("name"),
            row_id.label("row_id"),
            since.label("since"),
            problem.label("problem"),
        )
        .where(*conditions, since < bindparam("before"), position > after)
        .order_by(since, row_id)
        .limit(_LIMIT)
    )


def _text(column: "sa.ColumnElement[Any]") -> "sa.ColumnElement[str]":
    return sa.cast(column, sa.Text)


def _money_after_end() -> Statement:
    latest = (
        sa.select(sa.func.max(sa.func.coalesce(operations.c.settled_at, operations.c.created_at)))
        .where(operations.c.payment_id == payments.c.payment_id)
        .scalar_subquery()
    )
    left = payments.c.captured - payments.c.refunded - payments.c.refunding
    problem = _text(left) + " " + payments.c.currency + " of an ended payment is not refunded since"
    return _waiting(
        "payment payment_id", _text(payments.c.payment_id), latest, problem, has_money_after_end
    )


_sandbox_columns: Final = [
    sandbox_charges.c[name] for name in ("operation_id", "currency", "captured", "refunded")
]
_of_operation_ids: Final = sa.any_(bindparam("operation_ids", type_=ARRAY(sa.Uuid)))

LIST_PAYMENT_SUMS: Final = _payment_sums()
LIST_CHARGE_SUMS: Final = _charge_sums()
GET_SANDBOX_CHARGES: Final = Statement(
    sa.select(*_sandbox_columns).where(sandbox_charges.c.operation_id == _of_operation_ids)
)
LIST_SANDBOX_CHARGES: Final = Statement(
    sa.select(*_sandbox_columns)
    .where(
        sandbox_charges.c.captured > sandbox_charges.c.refunded,
        sandbox_charges.c.operation_id > _AFTER,
    )
    .order_by(sandbox_charges.c.operation_id)
    .limit(_LIMIT)
)
GET_KNOWN_OPERATIONS: Final = Statement(
    sa.select(operations.c.operation_id).where(operations.c.operation_id == _of_operation_ids)
)
LIST_WAITING: Final = {
    Waiting.OPEN_OPERATIONS: _waiting(
        "operation operation_id",
        _text(operations.c.operation_id),
        operations.c.created_at,
        operations.c.kind
        + " at "
        + operations.c.provider
        + " is "
        + operations.c.status
        + " since",
        # staff settle an operation without due_at, at any time
        sa.and_(_is_open(operations), operations.c.due_at.is_not(None)),
    ),
    Waiting.OVERDUE_PAYMENTS: _waiting(
        "payment payment_id",
        _text(payments.c.payment_id),
        payments.c.expires_at,
        payments.c.status + ", although it has expired at",
        payments.c.status.in_([*PAYABLE_LITERALS, AUTHORIZED_LITERAL]),
    ),
    Waiting.UNAPPLIED_WEBHOOKS: _waiting(
        "webhook_event event_id",
        webhook_events.c.event_id,
        webhook_events.c.received_at,
        webhook_events.c.type + " of " + webhook_events.c.provider + " is pending since",
        webhook_events.c.state == PENDING_LITERAL,
        sa.exists().where(operations.c.operation_id == webhook_events.c.operation_id),
    ),
    Waiting.MONEY_AFTER_END: _money_after_end(),
}
LIST_PAYMENT_STATES: Final = Statement(
    sa.select(
        *(
            payments.c[name]
            for name in (
                "payment_id",
                "order_id",
                "status",
                "currency",
                "amount",
                "captured",
                "refunded",
            )
        ),
        sa.select(sa.func.max(operations.c.settled_at))
        .where(operations.c.payment_id == payments.c.payment_id)
        .scalar_subquery()
        .label("settled_at"),
    )
    .where(payments.c.payment_id > _AFTER, payments.c.order_id.is_not(None))
    .order_by(payments.c.payment_id)
    .limit(_LIMIT)
)


class SqlPaymentIntegrityReads:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def list_payment_sums(self, after: UUID | None, limit: int) -> Sequence[PaymentSums]:
        return await self._fetch(PaymentSums, LIST_PAYMENT_SUMS, after, limit)

    async def list_sandbox_charge_sums(
        self, after: UUID | None, limit: int
    ) -> Sequence[ChargeSums]:
        return await self._fetch(ChargeSums, LIST_CHARGE_SUMS, after, limit)

    async def get_sandbox_charges(
        self, operation_ids: Sequence[UUID]
    ) -> Mapping[UUID, ProviderCharge]:
        rows = await self._connection.fetch_all(
            GET_SANDBOX_CHARGES, operation_ids=list(operation_ids)
        )
        return {row["operation_id"]: ProviderCharge(**dict(row)) for row in rows}

    async def list_sandbox_charges(
        self, after: UUID | None, limit: int
    ) -> Sequence[ProviderCharge]:
        return await self._fetch(ProviderCharge, LIST_SANDBOX_CHARGES, after, limit)

    async def get_known_operations(self, operation_ids: Sequence[UUID]) -> AbstractSet[UUID]:
        rows = await self._connection.fetch_all(
            GET_KNOWN_OPERATIONS, operation_ids=list(operation_ids)
        )
        return {row["operation_id"] for row in rows}

    async def list_waiting(
        self, kind: Waiting, before: datetime, after: tuple[datetime, str] | None, limit: int
    ) -> Sequence[WaitingRow]:
        after_time, after_id = after or _BEFORE_ALL
        rows: Sequence[Any] = await self._connection.fetch_all(
            LIST_WAITING[kind], before=before, after_time=after_time, after_id=after_id, limit=limit
        )
        return [WaitingRow(**dict(row)) for row in rows]

    async def _fetch(
        self, fact: type[F], statement: Statement, after: UUID | None, limit: int
    ) -> Sequence[F]:
        rows = await self._connection.fetch_all(statement, after=after or NO_ID, limit=limit)
        return [fact(**dict(row)) for row in rows]


async def list_payment_states(
    connection: Connection, after: UUID | None, limit: int
) -> Sequence[PaymentState]:
    rows = await connection.fetch_all(LIST_PAYMENT_STATES, after=after or NO_ID, limit=limit)
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
