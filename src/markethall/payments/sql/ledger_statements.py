"""SQL statements of the ledger."""

from functools import cache, lru_cache
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import bindparam
from sqlalchemy.dialects.postgresql import ARRAY, insert

from markethall.payments.domain.ledger import CUSTOMER_PAYMENTS_ACCOUNT, GENESIS_HASH
from markethall.payments.sql.statements import (
    FEE_COLUMNS,
    LIMIT,
    lock_payment,
    one_page,
    settle_open_operation,
)
from markethall.payments.sql.tables import entries, operations, payments, posting_chains, postings
from markethall.shared.idempotency.sql import complete_record, lock_open_record
from markethall.shared.messaging.sql.combined_writes import insert_events
from markethall.shared.persistence.postgres import Statement, sql_literal

_content = bindparam("content", type_=sa.LargeBinary)
_posting_columns = ("posting_id", "payment_id", "operation_id", "kind", "created_at")
_entry_rows = (
    sa.func.unnest(
        bindparam("accounts", type_=ARRAY(sa.Text)),
        bindparam("amounts", type_=ARRAY(sa.BigInteger)),
    )
    .table_valued("account", "amount", name="line")
    .render_derived()
)
_outbox, _records = (
    payments.metadata.tables[f"payments.{name}"] for name in ("outbox", "idempotency_record")
)


def insert_posting(source: sa.CTE | None = None) -> Any:
    """Insert a posting with its entries; if there is a `source`, only if it has a row."""
    chain_head = _advance_chain(source)
    posting = (
        sa.insert(postings)
        .from_select(
            [*_posting_columns, "chain", "sequence", "hash"],
            sa.select(
                *(bindparam(name, type_=postings.c[name].type) for name in _posting_columns),
                *chain_head.c,
            ),
        )
        .returning(postings.c.posting_id)
        .cte("inserted_posting")
    )
    return sa.insert(entries).from_select(
        ["posting_id", "account", "currency", "amount"],
        sa.select(
            posting.c.posting_id,
            _entry_rows.c.account,
            bindparam("currency", type_=sa.Text),
            _entry_rows.c.amount,
        ).select_from(posting.join(_entry_rows, sa.true())),
    )


def _advance_chain(source: sa.CTE | None) -> sa.CTE:
    """Lock the row of the chain, and compute the hash from its latest committed version."""
    first = sa.select(
        bindparam("chain", type_=sa.SmallInteger),
        sa.literal(1, posting_chains.c.sequence.type),
        sa.func.sha256(sa.literal(GENESIS_HASH, sa.LargeBinary).op("||")(_content)),
    )
    return (
        insert(posting_chains)
        .from_select(
            ["chain", "sequence", "hash"],
            first if source is None else first.where(sa.exists().select_from(source)),
        )
        .on_conflict_do_update(
            index_elements=[posting_chains.c.chain],
            set_={
                "sequence": posting_chains.c.sequence + 1,
                "hash": sa.func.sha256(posting_chains.c.hash.op("||")(_content)),
            },
        )
        .returning(posting_chains)
        .cte("chain_head")
    )


INSERT_POSTING = Statement(insert_posting())

SAVE_FEE = Statement(
    sa.update(operations)
    .where(
        operations.c.operation_id == bindparam("operation_id"), operations.c.fee_amount.is_(None)
    )
    .values({name: bindparam(name, type_=operations.c[name].type) for name in FEE_COLUMNS})
)

# Reading

# filter name -> condition of `list_postings`
_FILTERS: "dict[str, sa.ColumnElement[bool]]" = {
    "payment_id": postings.c.payment_id == bindparam("payment_id"),
    "account": postings.c.posting_id.in_(
        sa.select(entries.c.posting_id).where(entries.c.account == bindparam("account"))
    ),
    "kind": postings.c.kind == bindparam("kind"),
    "created_after": postings.c.created_at > bindparam("created_after"),
    "created_before": postings.c.created_at < bindparam("created_before"),
}
FILTER_NAMES: Final = tuple(_FILTERS)


def _with_entries(page: sa.CTE, *order: "sa.ColumnElement[Any]") -> Statement:
    """Select a page of postings with their entries, the debits first.

    A posting whose entries were deleted has one row without account.
    """
    return Statement(
        sa.select(page, entries.c.account, entries.c.currency, entries.c.amount)
        .outerjoin(entries, entries.c.posting_id == page.c.posting_id)
        .order_by(*order, entries.c.amount.desc(), entries.c.account)
    )


@lru_cache(maxsize=128)
def list_postings(*, filters: tuple[str, ...], has_keyset: bool, descending: bool) -> Statement:
    """Build one statement per combination of filters, so that each uses its best index."""
    conditions = [_FILTERS[name] for name in filters]
    page = one_page(
        sa.select(postings).where(*conditions),
        postings.c.created_at,
        postings.c.posting_id,
        has_keyset=has_keyset,
        descending=descending,
    ).cte("page")
    order = (page.c.created_at, page.c.posting_id)
    return _with_entries(page, *(each.desc() if descending else each.asc() for each in order))


_day = sa.cast(sa.func.date_trunc("day", sa.func.timezone("UTC", postings.c.created_at)), sa.Date)
LIST_CHAIN_HEADS = Statement(sa.select(posting_chains).order_by(posting_chains.c.chain))
# Postgres sums bigint as numeric, so a sum cannot overflow
SUM_ENTRIES = Statement(
    sa.select(
        _day.label("day"),
        entries.c.account,
        entries.c.currency,
        *(
            sa.func.coalesce(sa.func.sum(sa.func.abs(entries.c.amount)).filter(condition), 0).label(
                name
            )
            for name, condition in (
                ("debits", entries.c.amount > 0),
                ("credits", entries.c.amount < 0),
            )
        ),
    )
    .join(postings, postings.c.posting_id == entries.c.posting_id)
    .where(
        postings.c.chain == bindparam("chain"),
        postings.c.sequence > bindparam("after_sequence"),
        postings.c.sequence <= bindparam("until_sequence"),
    )
    .group_by(sa.literal_column("1"), entries.c.account, entries.c.currency)
)


# Verification

_highest = (
    sa.select(postings.c.chain, sa.func.max(postings.c.sequence).label("max_sequence"))
    .group_by(postings.c.chain)
    .cte("highest")
)
LIST_CHAINS = Statement(
    sa.select(
        sa.func.coalesce(posting_chains.c.chain, _highest.c.chain).label("chain"),
        posting_chains.c.sequence,
        posting_chains.c.hash,
        sa.func.coalesce(_highest.c.max_sequence, 0).label("max_sequence"),
    )
    .select_from(
        posting_chains.outerjoin(_highest, _highest.c.chain == posting_chains.c.chain, full=True)
    )
    .order_by(sa.literal_column("1"))
)
_chain_page = (
    sa.select(postings)
    .where(
        postings.c.chain == bindparam("chain"), postings.c.sequence > bindparam("after_sequence")
    )
    .order_by(postings.c.sequence)
    .limit(LIMIT)
    .cte("page")
)
LIST_CHAIN = _with_entries(_chain_page, _chain_page.c.sequence)


@cache
def list_succeeded_operations(*, has_after: bool, has_until: bool) -> Statement:
    """Select a page of operations, or all of a range if the limit is NULL."""
    conditions = [
        operations.c.status == sql_literal("succeeded"),
        *_id_range(operations.c.operation_id, has_after=has_after, has_until=has_until),
    ]
    return Statement(
        sa.select(operations).where(*conditions).order_by(operations.c.operation_id).limit(LIMIT)
    )


@cache
def list_postings_of_operations(*, has_after: bool, has_until: bool) -> Statement:
    conditions = _id_range(postings.c.operation_id, has_after=has_after, has_until=has_until)
    page = sa.select(postings).where(*conditions).cte("page")
    return _with_entries(page, page.c.operation_id, page.c.kind, page.c.posting_id)


def _id_range(
    column: "sa.Column[Any]", *, has_after: bool, has_until: bool
) -> "list[sa.ColumnElement[bool]]":
    after = [column > bindparam("after")] if has_after else []
    return [*after, column <= bindparam("until")] if has_until else after


@cache
def list_payment_differences(*, has_keyset: bool) -> Statement:
    """Select payments with the difference between their amounts and their postings.

    The money of a payment is a credit of the customers' account, so it is negative there.
    """
    page = sa.select(
        payments.c.payment_id, (payments.c.captured - payments.c.refunded).label("balance")
    )
    if has_keyset:
        page = page.where(payments.c.payment_id > bindparam("after"))
    limited = page.order_by(payments.c.payment_id).limit(LIMIT).cte("page")
    ledger_balance = (
        sa.select(sa.func.coalesce(sa.func.sum(entries.c.amount), 0))
        .select_from(postings.join(entries, entries.c.posting_id == postings.c.posting_id))
        .where(
            postings.c.payment_id == limited.c.payment_id,
            entries.c.account == sql_literal(CUSTOMER_PAYMENTS_ACCOUNT),
        )
        .correlate(limited)
        .scalar_subquery()
    )
    difference = sa.cast(limited.c.balance + ledger_balance, sa.BigInteger).label("difference")
    return Statement(sa.select(limited.c.payment_id, difference).order_by(limited.c.payment_id))


def _settle(*, has_key: bool) -> Statement:
    """Update payment and operation, and insert event, posting and response: all or nothing.

    Selects a row if it has written. It writes nothing if the version of the payment differs, if the
    operation is not open, or if the key has a response already. The locks are taken in the order of
    the transactions that do the same in several statements: payment, record, chain of postings.
    """
    payment = lock_payment()
    record = lock_open_record(_records, payment) if has_key else payment
    settled = settle_open_operation(sa.exists().select_from(record))
    writes = [insert_events(_outbox, settled), insert_posting(settled).cte("entries")]
    if has_key:
        writes.append(complete_record(_records, settled))
    return Statement(sa.select(settled.c.operation_id).add_cte(*writes))


SETTLE_WITH_KEY = _settle(has_key=True)
SETTLE_WITHOUT_KEY = _settle(has_key=False)
