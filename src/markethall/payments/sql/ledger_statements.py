"""SQL statements of the ledger."""

from functools import cache

import sqlalchemy as sa
from sqlalchemy import bindparam
from sqlalchemy.dialects.postgresql import ARRAY

from markethall.payments.sql.statements import LIMIT, after_keyset, column_binds
from markethall.payments.sql.tables import entries, payments, postings
from markethall.shared.persistence.postgres import Statement

_inserted_posting = (
    sa.insert(postings)
    .values(column_binds(postings))
    .returning(postings.c.posting_id)
    .cte("inserted_posting")
)
_entry_rows = (
    sa.func.unnest(
        bindparam("accounts", type_=ARRAY(sa.Text)),
        bindparam("amounts", type_=ARRAY(sa.BigInteger)),
    )
    .table_valued("account", "amount", name="line")
    .render_derived()
)
INSERT_POSTING = Statement(
    sa.insert(entries).from_select(
        ["posting_id", "account", "currency", "amount"],
        sa.select(
            _inserted_posting.c.posting_id,
            _entry_rows.c.account,
            bindparam("currency", type_=sa.Text),
            _entry_rows.c.amount,
        ).select_from(_inserted_posting.join(_entry_rows, sa.true())),
    )
)


@cache
def list_postings(*, by_payment: bool, has_keyset: bool) -> Statement:
    conditions: list[sa.ColumnElement[bool]] = []
    if by_payment:
        conditions.append(postings.c.payment_id == bindparam("payment_id"))
    if has_keyset:
        keyset = sa.tuple_(postings.c.created_at, postings.c.posting_id)
        conditions.append(keyset < after_keyset(postings.c.created_at))
    page = (
        sa.select(postings)
        .where(*conditions)
        .order_by(postings.c.created_at.desc(), postings.c.posting_id.desc())
        .limit(LIMIT)
        .cte("page")
    )
    return Statement(
        sa.select(page, entries.c.account, entries.c.currency, entries.c.amount)
        .join(entries, entries.c.posting_id == page.c.posting_id)
        .order_by(page.c.created_at.desc(), page.c.posting_id.desc(), entries.c.amount.desc())
    )


LIST_ACCOUNT_BALANCES = Statement(
    sa.select(
        entries.c.account,
        entries.c.currency,
        sa.cast(sa.func.sum(entries.c.amount), sa.BigInteger).label("balance"),
    )
    .group_by(entries.c.account, entries.c.currency)
    .order_by(entries.c.account, entries.c.currency)
)
COUNT_POSTINGS = Statement(sa.select(sa.func.count()).select_from(postings))
_unbalanced = (
    sa.select(entries.c.posting_id)
    .group_by(entries.c.posting_id, entries.c.currency)
    .having(sa.func.sum(entries.c.amount) != 0)
)
_without_entries = sa.select(postings.c.posting_id).where(
    ~sa.exists().where(entries.c.posting_id == postings.c.posting_id)
)
FIND_UNBALANCED_POSTINGS = Statement(sa.union(_unbalanced, _without_entries).limit(100))


def _mismatched() -> Statement:
    """Select payments whose balance differs from their balance in the ledger.

    The balance is captured minus refunded. In the ledger it is the sum of the entries of the
    payment on the provider's account.
    """
    ledger_balance = (
        sa.select(sa.func.coalesce(sa.func.sum(entries.c.amount), 0))
        .select_from(postings.join(entries, entries.c.posting_id == postings.c.posting_id))
        .where(
            postings.c.payment_id == payments.c.payment_id,
            entries.c.account == sa.literal_column("'provider:'") + payments.c.provider,
        )
        .correlate(payments)
        .scalar_subquery()
    )
    payment_balance = payments.c.captured - payments.c.refunded
    return Statement(
        sa.select(payments.c.payment_id).where(payment_balance != ledger_balance).limit(100)
    )


FIND_MISMATCHED_PAYMENTS = _mismatched()
