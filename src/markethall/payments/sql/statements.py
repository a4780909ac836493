"""The statements, each built once."""

from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy import bindparam
from sqlalchemy.dialects.postgresql import ARRAY, insert

from markethall.payments.ports import PaymentFilter
from markethall.payments.sql.tables import (
    OPEN,
    PARKED,
    PAYABLE_NOW,
    entry,
    operation,
    payment,
    posting,
    sandbox_charge,
    sandbox_refund,
    webhook_event,
)
from markethall.shared.db import Statement

# names in an UPDATE's WHERE; the columns' own names are taken by its SET
_the_payment = sa.and_(
    payment.c.payment_id == bindparam("of_payment"), payment.c.version == bindparam("was")
)
_opened = payment.c.order_id.is_not(None)
_limit = bindparam("limit", type_=sa.Integer)


def _parameters(table: sa.Table, prefix: str = "") -> "dict[str, Any]":
    return {column.name: bindparam(prefix + column.name, type_=column.type) for column in table.c}


def _after(time: "sa.Column[Any]") -> "sa.Tuple":
    """The place where the page before ended."""
    return sa.tuple_(bindparam("after_time", type_=time.type), bindparam("after_id", type_=sa.Uuid))


# Payments


def _name() -> Statement:
    """A tombstone becomes the payment that it forbade: cancelled, but with a name."""
    buried = payment.c.order_id.is_(None)
    names = ("order_id", "user_id", "currency", "expires_at", "amount", "provider")
    given = {name: bindparam(f"new_{name}", type_=payment.c[name].type) for name in names}
    known = {name: sa.case((buried, value), else_=payment.c[name]) for name, value in given.items()}
    the_payment = payment.c.payment_id == bindparam("of_payment")
    return Statement(sa.update(payment).where(the_payment).values(known).returning(payment))


# no conflict target: where two do the same at once, the other unique key may be the first to clash
OPEN_PAYMENT = Statement(
    insert(payment).values(_parameters(payment)).on_conflict_do_nothing().returning(payment)
)
NAME_PAYMENT = _name()
FORBID = Statement(insert(payment).values(_parameters(payment)).on_conflict_do_nothing())
_one_payment = sa.select(payment).where(payment.c.payment_id == bindparam("of_payment"), _opened)
PAYMENT = Statement(_one_payment)
LOCKED_PAYMENT = Statement(_one_payment.with_for_update())
PAYMENT_COUNT = Statement(sa.select(sa.func.count()).select_from(payment).where(_opened))

_CHANGING = (
    "status",
    "authorized",
    "captured",
    "refunded",
    "refunding",
    "failure_code",
    "next_action",
    "charge_id",
    "version",
)
_save = (
    sa.update(payment)
    .where(_the_payment)
    .values({name: bindparam(name, type_=payment.c[name].type) for name in _CHANGING})
)
SAVE_PAYMENT = Statement(_save)

_overdue = (
    sa.select(payment.c.payment_id)
    .where(payment.c.status.in_(PAYABLE_NOW), payment.c.expires_at <= bindparam("now"))
    .order_by(payment.c.expires_at)
    .limit(_limit)
    .with_for_update(skip_locked=True)
    .cte("overdue")
)
EXPIRE = Statement(
    sa.update(payment)
    .where(payment.c.payment_id == _overdue.c.payment_id)
    .values(status="expired", version=payment.c.version + 1)
)


@cache
def payments_page(*, filtered: tuple[str, ...], after: bool, descending: bool) -> Statement:
    """One statement per combination of filters, so that each can have its own index."""
    place = sa.tuple_(payment.c.created_at, payment.c.payment_id)
    wanted = [payment.c[name] == bindparam(f"of_{name}") for name in filtered]
    if after:
        there = _after(payment.c.created_at)
        wanted.append(place < there if descending else place > there)
    order = [column.desc() if descending else column.asc() for column in place.clauses]
    return Statement(sa.select(payment).where(_opened, *wanted).order_by(*order).limit(_limit))


def page_of(wanted: PaymentFilter) -> tuple[Statement, dict[str, Any]]:
    """The statement and its values."""
    values = {name: getattr(wanted, name) for name in ("user_id", "order_id", "status")}
    filtered = {name: value for name, value in values.items() if value is not None}
    statement = payments_page(
        filtered=tuple(filtered), after=wanted.after is not None, descending=wanted.descending
    )
    at, payment_id = wanted.after or (None, None)
    return statement, {f"of_{name}": value for name, value in filtered.items()} | {
        "limit": wanted.limit,
        "after_time": at,
        "after_id": payment_id,
    }


# Operations

OF_OPERATION = "op_"  # before each column of an operation that comes with its payment

_moved = _save.returning(payment.c.payment_id).cte("moved")
BEGIN = Statement(
    sa.insert(operation).from_select(
        [column.name for column in operation.c],
        sa.select(*_parameters(operation, OF_OPERATION).values()).select_from(_moved),
    )
)
SETTLE = Statement(
    sa.update(operation)
    .where(
        operation.c.operation_id == bindparam("of_operation"),
        operation.c.status.in_(OPEN),
        operation.c.payment_id == _moved.c.payment_id,
    )
    .values(
        {
            name: bindparam(OF_OPERATION + name, type_=operation.c[name].type)
            for name in ("status", "provider_reference", "failure_code", "settled_at")
        }
    )
)
OPERATION = Statement(
    sa.select(operation).where(operation.c.operation_id == bindparam("of_operation"))
)


@cache
def operations_page(*, of_kind: bool, after: bool) -> Statement:
    place = sa.tuple_(operation.c.created_at, operation.c.operation_id)
    wanted = [operation.c.payment_id == bindparam("of_payment")]
    if of_kind:
        wanted.append(operation.c.kind == bindparam("of_kind"))
    if after:
        wanted.append(place > _after(operation.c.created_at))
    return Statement(sa.select(operation).where(*wanted).order_by(*place.clauses).limit(_limit))


LOCKED_OPERATION = Statement(
    sa.select(payment, *(column.label(OF_OPERATION + column.name) for column in operation.c))
    .join(operation, operation.c.payment_id == payment.c.payment_id)
    .where(operation.c.operation_id == bindparam("of_operation"))
    .with_for_update(of=[payment, operation])
)

_due = (
    sa.select(operation.c.operation_id)
    .where(operation.c.status.in_(OPEN), operation.c.due_at <= bindparam("now"))
    .order_by(operation.c.due_at)
    .limit(_limit)
    .with_for_update(skip_locked=True)
    .cte("due")
)
CLAIM_DUE = Statement(
    sa.update(operation)
    .where(operation.c.operation_id == _due.c.operation_id)
    .values(due_at=bindparam("until"))
    .returning(operation)
)

# The ledger

_written = (
    sa.insert(posting).values(_parameters(posting)).returning(posting.c.posting_id).cte("written")
)
_lines = (
    sa.func.unnest(
        bindparam("accounts", type_=ARRAY(sa.Text)),
        bindparam("amounts", type_=ARRAY(sa.BigInteger)),
    )
    .table_valued("account", "amount", name="line")
    .render_derived()
)
POST = Statement(
    sa.insert(entry).from_select(
        ["posting_id", "account", "currency", "amount"],
        sa.select(
            _written.c.posting_id,
            _lines.c.account,
            bindparam("currency", type_=sa.Text),
            _lines.c.amount,
        ).select_from(_written.join(_lines, sa.true())),
    )
)


@cache
def postings_page(*, of_payment: bool, before: bool) -> Statement:
    wanted: list[sa.ColumnElement[bool]] = []
    if of_payment:
        wanted.append(posting.c.payment_id == bindparam("of_payment"))
    if before:
        place = sa.tuple_(posting.c.created_at, posting.c.posting_id)
        wanted.append(place < _after(posting.c.created_at))
    page = (
        sa.select(posting)
        .where(*wanted)
        .order_by(posting.c.created_at.desc(), posting.c.posting_id.desc())
        .limit(_limit)
        .cte("page")
    )
    return Statement(
        sa.select(page, entry.c.account, entry.c.currency, entry.c.amount)
        .join(entry, entry.c.posting_id == page.c.posting_id)
        .order_by(page.c.created_at.desc(), page.c.posting_id.desc(), entry.c.amount.desc())
    )


BALANCES = Statement(
    sa.select(
        entry.c.account,
        entry.c.currency,
        sa.cast(sa.func.sum(entry.c.amount), sa.BigInteger).label("balance"),
    )
    .group_by(entry.c.account, entry.c.currency)
    .order_by(entry.c.account, entry.c.currency)
)
POSTING_COUNT = Statement(sa.select(sa.func.count()).select_from(posting))
_tilted = (
    sa.select(entry.c.posting_id)
    .group_by(entry.c.posting_id, entry.c.currency)
    .having(sa.func.sum(entry.c.amount) != 0)
)
_empty = sa.select(posting.c.posting_id).where(
    ~sa.exists().where(entry.c.posting_id == posting.c.posting_id)
)
UNBALANCED = Statement(sa.union(_tilted, _empty).limit(100))


def _mismatched() -> Statement:
    """Payments whose balance is not what the ledger says the provider holds for them."""
    booked = (
        sa.select(sa.func.coalesce(sa.func.sum(entry.c.amount), 0))
        .select_from(posting.join(entry, entry.c.posting_id == posting.c.posting_id))
        .where(
            posting.c.payment_id == payment.c.payment_id,
            entry.c.account == sa.literal_column("'provider:'") + payment.c.provider,
        )
        .correlate(payment)
        .scalar_subquery()
    )
    held = payment.c.captured - payment.c.refunded
    return Statement(sa.select(payment.c.payment_id).where(held != booked).limit(100))


MISMATCHED = _mismatched()

# Webhooks

_the_event = sa.and_(
    webhook_event.c.provider == bindparam("of_provider"),
    webhook_event.c.event_id == bindparam("of_event"),
)
KEEP_EVENT = Statement(
    insert(webhook_event).values(_parameters(webhook_event)).on_conflict_do_nothing()
)
MARK_EVENT = Statement(
    sa.update(webhook_event)
    .where(_the_event)
    .values(state=bindparam("to_state"), applied_at=bindparam("now"))
)
RIPE_EVENTS = Statement(
    sa.select(webhook_event)
    .join(operation, operation.c.operation_id == webhook_event.c.operation_id)
    .where(webhook_event.c.state == PARKED)
    .order_by(webhook_event.c.received_at)
    .limit(_limit)
)

# The sandbox's book

BOOK_CHARGE = Statement(
    insert(sandbox_charge).values(_parameters(sandbox_charge)).on_conflict_do_nothing()
)
BOOK_REFUND = Statement(
    insert(sandbox_refund).values(_parameters(sandbox_refund)).on_conflict_do_nothing()
)
TAKE_FROM_CHARGE = Statement(
    sa.update(sandbox_charge)
    .where(
        sandbox_charge.c.operation_id == bindparam("of_charge"),
        sandbox_charge.c.status == "succeeded",
        sandbox_charge.c.currency == bindparam("of_currency"),
        sandbox_charge.c.refunded + bindparam("more", type_=sa.BigInteger)
        <= sandbox_charge.c.amount,
    )
    .values(refunded=sandbox_charge.c.refunded + bindparam("more", type_=sa.BigInteger))
)
FAIL_REFUND = Statement(
    sa.update(sandbox_refund)
    .where(sandbox_refund.c.operation_id == bindparam("of_operation"))
    .values(status="failed")
)
FIND_CHARGE = Statement(
    sa.select(sandbox_charge).where(sandbox_charge.c.operation_id == bindparam("of_operation"))
)
FIND_REFUND = Statement(
    sa.select(sandbox_refund).where(sandbox_refund.c.operation_id == bindparam("of_operation"))
)
CHARGES = Statement(sa.select(sandbox_charge).order_by(sandbox_charge.c.created_at))
