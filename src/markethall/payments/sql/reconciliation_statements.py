"""The SQL statements of comparisons with the reports of providers."""

from functools import cache, lru_cache

import sqlalchemy as sa
from sqlalchemy import bindparam
from sqlalchemy.dialects.postgresql import ARRAY, insert

from markethall.payments.domain.reconciliation import MONEY_KINDS
from markethall.payments.sql.reconciliation_tables import differences, reconciliations
from markethall.payments.sql.statements import LIMIT, column_binds, one_page
from markethall.payments.sql.tables import operations
from markethall.shared.persistence.postgres import Statement, sql_literal

_moves_money = operations.c.kind.in_([sql_literal(kind.value) for kind in sorted(MONEY_KINDS)])
_of_provider = operations.c.provider == bindparam("provider")
_is_settled = sa.and_(
    _of_provider,
    _moves_money,
    operations.c.status == sql_literal("succeeded"),
    operations.c.settled_at >= bindparam("starts_at", type_=operations.c.settled_at.type),
    operations.c.settled_at < bindparam("ends_at", type_=operations.c.settled_at.type),
)

FIND_REPORTED_OPERATIONS = Statement(
    sa.select(operations).where(
        _of_provider,
        _moves_money,
        sa.or_(
            operations.c.operation_id == sa.any_(bindparam("operation_ids", type_=ARRAY(sa.Uuid))),
            operations.c.provider_reference
            == sa.any_(bindparam("references", type_=ARRAY(sa.Text))),
        ),
    )
)
GET_FIRST_CREATION = Statement(sa.select(sa.func.min(operations.c.created_at)).where(_is_settled))
GET_LAST_RECONCILED = Statement(
    sa.select(sa.func.max(reconciliations.c.ends_at)).where(
        reconciliations.c.provider == bindparam("provider"),
        reconciliations.c.status == sql_literal("completed"),
    )
)
LIST_UNFINISHED_STARTS = Statement(
    sa.select(reconciliations.c.starts_at)
    .where(
        reconciliations.c.provider == bindparam("provider"),
        reconciliations.c.status != sql_literal("completed"),
        reconciliations.c.starts_at >= bindparam("earliest"),
    )
    .order_by(reconciliations.c.starts_at)
)


@cache
def list_settled_operations(*, has_keyset: bool) -> Statement:
    select = sa.select(operations).where(_is_settled)
    keyset = (operations.c.settled_at, operations.c.operation_id)
    return Statement(one_page(select, *keyset, has_keyset=has_keyset))


@lru_cache(maxsize=128)
def list_reconciliations(*, filter_columns: tuple[str, ...], has_keyset: bool) -> Statement:
    conditions = [reconciliations.c[name] == bindparam(name) for name in filter_columns]
    return Statement(
        one_page(
            sa.select(reconciliations).where(*conditions),
            reconciliations.c.starts_at,
            reconciliations.c.reconciliation_id,
            has_keyset=has_keyset,
            descending=True,
        )
    )


GET_RECONCILIATION = Statement(
    sa.select(reconciliations).where(
        reconciliations.c.reconciliation_id == bindparam("reconciliation_id")
    )
)


def _claim() -> Statement:
    """Insert a comparison, or start the existing one of the period again if it is due."""
    new = insert(reconciliations).values(column_binds(reconciliations))
    restarted = ("status", "listed_differences", "summary", "started_at", "finished_at", "due_at")
    return Statement(
        new.on_conflict_do_update(
            index_elements=["provider", "starts_at", "ends_at"],
            set_={name: new.excluded[name] for name in restarted}
            | {"attempts": reconciliations.c.attempts + 1},
            where=sa.and_(
                reconciliations.c.status != sql_literal("completed"),
                reconciliations.c.due_at <= bindparam("now", type_=reconciliations.c.due_at.type),
            ),
        ).returning(reconciliations)
    )


CLAIM_RECONCILIATION = _claim()
_UPDATED = ("status", "listed_differences", "summary", "finished_at", "due_at")
UPDATE_RECONCILIATION = Statement(
    sa.update(reconciliations)
    .where(
        reconciliations.c.reconciliation_id == bindparam("reconciliation_id"),
        reconciliations.c.attempts == bindparam("attempts"),
        reconciliations.c.status == sql_literal("running"),
    )
    .values({name: bindparam(name, type_=reconciliations.c[name].type) for name in _UPDATED})
)

_of_reconciliation = differences.c.reconciliation_id == bindparam("reconciliation_id")
DELETE_DIFFERENCES = Statement(sa.delete(differences).where(_of_reconciliation))
INSERT_DIFFERENCE = Statement(sa.insert(differences).values(column_binds(differences)))


@cache
def list_differences(*, by_reason: bool) -> Statement:
    conditions = [_of_reconciliation, differences.c.position > bindparam("after")]
    if by_reason:
        conditions.append(differences.c.reason == bindparam("reason"))
    return Statement(
        sa.select(differences).where(*conditions).order_by(differences.c.position).limit(LIMIT)
    )
