"""The SQL statements of payments. Each is compiled once, because compiling is slow."""

from datetime import datetime
from functools import cache, lru_cache
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import bindparam
from sqlalchemy.dialects.postgresql import ARRAY, insert

from markethall.payments.ports import PaymentFilter
from markethall.payments.sql.tables import (
    AUTHORIZED_LITERAL,
    OPEN_LITERALS,
    PAYABLE_LITERALS,
    has_money_after_end,
    operations,
    payments,
)
from markethall.shared.persistence.postgres import Statement, sql_literal

_payment_at_expected_version = sa.and_(
    payments.c.payment_id == bindparam("payment_id"),
    payments.c.version == bindparam("expected_version"),
)
_not_tombstone = payments.c.order_id.is_not(None)
LIMIT = bindparam("limit", type_=sa.Integer)


def column_binds(table: sa.Table, prefix: str = "") -> "dict[str, Any]":
    return {column.name: bindparam(prefix + column.name, type_=column.type) for column in table.c}


def insert_new(table: sa.Table) -> Statement:
    """Insert a row, unless a row with one of its unique keys exists."""
    return Statement(insert(table).values(column_binds(table)).on_conflict_do_nothing())


def one_page(
    select: "sa.Select[Any]",
    *keyset: "sa.ColumnElement[Any]",
    has_keyset: bool,
    descending: bool = False,
) -> "sa.Select[Any]":
    """Select one page, sorted by the keyset: a time and an id.

    With `has_keyset`, the page begins after the row with the bound time and id.
    """
    if has_keyset:
        after_time = bindparam("after_time", type_=keyset[0].type)
        after = sa.tuple_(after_time, bindparam("after_id", type_=sa.Uuid))
        rows = sa.tuple_(*keyset)
        select = select.where(rows < after if descending else rows > after)
    order = (column.desc() if descending else column.asc() for column in keyset)
    return select.order_by(*order).limit(LIMIT)


def page_values(after: tuple[datetime, UUID] | None, limit: int) -> dict[str, Any]:
    """Return the bind values of `one_page`; `after` is the keyset of the previous page."""
    after_time, after_id = after or (None, None)
    return {"after_time": after_time, "after_id": after_id, "limit": limit}


# Payments


def _attach_order_to_tombstone() -> Statement:
    """Write the data of a new payment into the tombstone with the same payment id.

    A tombstone is the row of a payment that was cancelled before it was opened; it stays cancelled.
    A row that is not a tombstone stays unchanged. The statement returns the row in both cases.
    """
    is_tombstone = payments.c.order_id.is_(None)
    columns = (
        *(
            "order_id",
            "replaces",
            "is_additional",
            "user_id",
            "currency",
            "country",
            "expires_at",
            "amount",
        ),
        "provider",
    )
    new_values = {name: bindparam(name, type_=payments.c[name].type) for name in columns}
    values = {
        name: sa.case((is_tombstone, value), else_=payments.c[name])
        for name, value in new_values.items()
    }
    the_payment = payments.c.payment_id == bindparam("payment_id")
    return Statement(sa.update(payments).where(the_payment).values(values).returning(payments))


# no conflict target, because the payment id or the order id may conflict
INSERT_PAYMENT = Statement(
    insert(payments).values(column_binds(payments)).on_conflict_do_nothing().returning(payments)
)
ATTACH_ORDER_TO_TOMBSTONE = _attach_order_to_tombstone()
INSERT_TOMBSTONE = insert_new(payments)
_select_payment = sa.select(payments).where(
    payments.c.payment_id == bindparam("payment_id"), _not_tombstone
)
GET_PAYMENT = Statement(_select_payment)
GET_PAYMENT_FOR_UPDATE = Statement(_select_payment.with_for_update())
COUNT_PAYMENTS = Statement(sa.select(sa.func.count()).select_from(payments).where(_not_tombstone))


def _activate_payments(has_id: sa.ColumnElement[bool]) -> Statement:
    """Activate payments, and select all of them, also those that were activated before.

    The version stays the same, because no view of a payment shows `is_activated`. The select and
    the update use the same snapshot, so the selected rows have the values before the update.
    """
    activated = (
        sa.update(payments)
        .where(has_id, _not_tombstone, ~payments.c.is_activated)
        .values(is_activated=True)
        .returning(payments.c.payment_id)
        .cte("activated")
    )
    return Statement(sa.select(payments).where(has_id, _not_tombstone).add_cte(activated))


# for one id, because Postgres would plan the statement with an array again at each execution
ACTIVATE_PAYMENT = _activate_payments(payments.c.payment_id == bindparam("payment_id"))
ACTIVATE_PAYMENTS = _activate_payments(
    payments.c.payment_id == sa.any_(bindparam("payment_ids", type_=ARRAY(sa.Uuid)))
)

_UPDATABLE_COLUMNS = (
    "user_id",
    "status",
    "authorized",
    "captured",
    "refunded",
    "refunding",
    "failure_code",
    "next_action",
    "dispute",
    "charge_id",
    "open_change_id",
    "provider",
    "expires_at",
    "version",
)
_update_payment = (
    sa.update(payments)
    .where(_payment_at_expected_version)
    .values({name: bindparam(name, type_=payments.c[name].type) for name in _UPDATABLE_COLUMNS})
)
UPDATE_PAYMENT = Statement(_update_payment)

_is_followed_up = sa.exists().where(
    operations.c.payment_id == payments.c.payment_id, operations.c.follow_up_at.is_not(None)
)
_overdue = (
    sa.select(payments.c.payment_id)
    .where(
        payments.c.status.in_(PAYABLE_LITERALS),
        payments.c.expires_at <= bindparam("now"),
        sa.or_(payments.c.expires_at <= bindparam("followed_until"), ~_is_followed_up),
    )
    .order_by(payments.c.expires_at)
    .limit(LIMIT)
    .with_for_update(skip_locked=True)
    .cte("overdue")
)
EXPIRE_PAYMENTS = Statement(
    sa.update(payments)
    .where(payments.c.payment_id == _overdue.c.payment_id)
    .values(status="expired", version=payments.c.version + 1)
    .returning(payments)
)


@lru_cache(maxsize=128)
def select_payments(
    *,
    filter_columns: tuple[str, ...],
    has_keyset: bool,
    descending: bool,
    disputed: bool | None = None,
) -> Statement:
    """Build one statement per combination of filters, so that each uses its best index."""
    conditions = [payments.c[name] == bindparam(name) for name in filter_columns]
    if disputed is not None:
        is_disputed = payments.c.dispute.is_not(None)
        conditions.append(is_disputed if disputed else ~is_disputed)
    return Statement(
        one_page(
            sa.select(payments).where(_not_tombstone, *conditions),
            payments.c.created_at,
            payments.c.payment_id,
            has_keyset=has_keyset,
            descending=descending,
        )
    )


def list_payments(payment_filter: PaymentFilter) -> tuple[Statement, dict[str, Any]]:
    """Return the statement for the filters that are set, and its bind values."""
    values = {name: getattr(payment_filter, name) for name in ("user_id", "order_id", "status")}
    given_values = {name: value for name, value in values.items() if value is not None}
    statement = select_payments(
        filter_columns=tuple(given_values),
        disputed=payment_filter.disputed,
        has_keyset=payment_filter.after is not None,
        descending=payment_filter.descending,
    )
    return statement, given_values | page_values(payment_filter.after, payment_filter.limit)


LIST_OVERDUE_AUTHORIZATIONS = Statement(
    sa.select(payments.c.payment_id)
    .where(
        payments.c.status == AUTHORIZED_LITERAL,
        payments.c.expires_at <= bindparam("now"),
        payments.c.open_change_id.is_(None),
    )
    .order_by(payments.c.expires_at)
    .limit(LIMIT)
)
LIST_PAYMENTS_TO_REFUND = Statement(
    sa.select(payments.c.payment_id)
    .where(has_money_after_end, payments.c.payment_id > bindparam("after", type_=sa.Uuid))
    .order_by(payments.c.payment_id)
    .limit(LIMIT)
)

# Operations

# prefix of the operation's column names in rows and bind values that also contain a payment
OPERATION_PREFIX = "operation_"
_OPERATION_KEYSET = (operations.c.created_at, operations.c.operation_id)
FEE_COLUMNS = ("fee_amount", "fee_currency", "fee_recorded_at")

_updated_payment = _update_payment.returning(payments.c.payment_id).cte("updated_payment")
INSERT_OPERATION = Statement(
    sa.insert(operations).from_select(
        [column.name for column in operations.c],
        sa.select(*column_binds(operations, OPERATION_PREFIX).values()).select_from(
            _updated_payment
        ),
    )
)


def _update_operation(
    statuses: "list[sa.ColumnElement[str]]", updated_payment: sa.CTE
) -> "sa.Update":
    """Update an operation of the updated payment, unless it has none of these statuses."""
    names = ("status", "provider_reference", "failure_code", "settled_at", "follow_up_at")
    return (
        sa.update(operations)
        .where(
            operations.c.operation_id == bindparam("operation_id"),
            operations.c.status.in_(statuses),
            operations.c.payment_id == updated_payment.c.payment_id,
        )
        .values(
            {
                name: bindparam(OPERATION_PREFIX + name, type_=operations.c[name].type)
                for name in (*names, *FEE_COLUMNS)
            }
        )
    )


UPDATE_OPERATION = Statement(_update_operation(OPEN_LITERALS, _updated_payment))
UPDATE_CORRECTED_OPERATION = Statement(_update_operation([sql_literal("failed")], _updated_payment))


def lock_payment() -> sa.CTE:
    """Select and lock the payment if its version is the expected one."""
    payment = sa.select(payments.c.payment_id).where(_payment_at_expected_version)
    return payment.with_for_update().cte("locked_payment")


def settle_open_operation(condition: "sa.ColumnElement[bool]") -> sa.CTE:
    """Update the payment and its open operation. Selects a row if both are updated, else none."""
    is_open = sa.exists().where(
        operations.c.operation_id == bindparam("operation_id"),
        operations.c.status.in_(OPEN_LITERALS),
    )
    updated_payment = (
        _update_payment.where(condition, is_open)
        .returning(payments.c.payment_id)
        .cte("updated_payment")
    )
    operation = _update_operation(OPEN_LITERALS, updated_payment)
    return operation.returning(operations.c.operation_id).cte("settled")


GET_OPERATION = Statement(
    sa.select(operations).where(operations.c.operation_id == bindparam("operation_id"))
)


@cache
def list_operations(*, by_kind: bool, has_keyset: bool) -> Statement:
    conditions = [operations.c.payment_id == bindparam("payment_id")]
    if by_kind:
        conditions.append(operations.c.kind == bindparam("kind"))
    select = sa.select(operations).where(*conditions)
    return Statement(one_page(select, *_OPERATION_KEYSET, has_keyset=has_keyset))


_select_payment_and_operation = sa.select(
    payments, *(column.label(OPERATION_PREFIX + column.name) for column in operations.c)
).join(operations, operations.c.payment_id == payments.c.payment_id)


@lru_cache(maxsize=128)
def list_refunds(*, filter_columns: tuple[str, ...], has_keyset: bool) -> Statement:
    conditions = [operations.c[name] == bindparam(name) for name in filter_columns]
    is_refund = operations.c.kind == sql_literal("refund")
    select = _select_payment_and_operation.where(is_refund, *conditions)
    return Statement(one_page(select, *_OPERATION_KEYSET, has_keyset=has_keyset))


# the payment, and the operation if it exists
GET_PAYMENT_FOR_OPERATION = Statement(
    sa.select(payments, *(c.label(OPERATION_PREFIX + c.name) for c in operations.c))
    .outerjoin(operations, operations.c.operation_id == bindparam("operation_id", type_=sa.Uuid))
    .where(payments.c.payment_id == bindparam("payment_id"), _not_tombstone)
)
GET_PAYMENT_AND_OPERATION_FOR_UPDATE = Statement(
    _select_payment_and_operation.where(
        operations.c.operation_id == bindparam("operation_id")
    ).with_for_update(of=[payments, operations])
)

_due = (
    sa.select(operations.c.operation_id)
    .where(operations.c.status.in_(OPEN_LITERALS), operations.c.due_at <= bindparam("now"))
    .order_by(operations.c.due_at)
    .limit(LIMIT)
    .with_for_update(skip_locked=True)
    .cte("due")
)
CLAIM_DUE_OPERATIONS = Statement(
    sa.update(operations)
    .where(operations.c.operation_id == _due.c.operation_id)
    .values(due_at=bindparam("next_due_at"))
    .returning(operations)
)
HAND_TO_STAFF = Statement(
    sa.update(operations)
    .where(
        operations.c.operation_id == bindparam("operation_id"),
        operations.c.status.in_(OPEN_LITERALS),
        operations.c.due_at.is_not(None),
    )
    .values(status="pending", due_at=None)
)

_to_follow_up = (
    sa.select(operations.c.operation_id)
    .where(operations.c.follow_up_at <= bindparam("now"))
    .order_by(operations.c.follow_up_at)
    .limit(LIMIT)
    .with_for_update(skip_locked=True)
    .cte("to_follow_up")
)
CLAIM_FOLLOW_UPS = Statement(
    sa.update(operations)
    .where(operations.c.operation_id == _to_follow_up.c.operation_id)
    .values(follow_up_at=bindparam("next_at", type_=operations.c.follow_up_at.type))
    .returning(operations)
)
SET_FOLLOW_UP = Statement(
    sa.update(operations)
    .where(operations.c.operation_id == bindparam("operation_id"))
    .values(follow_up_at=bindparam("at", type_=operations.c.follow_up_at.type))
)
