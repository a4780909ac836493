"""The SQL statements of saved payment methods."""

from functools import cache

import sqlalchemy as sa
from sqlalchemy import bindparam
from sqlalchemy.dialects.postgresql import insert

from markethall.payments.sql.statements import LIMIT, column_binds, one_page
from markethall.payments.sql.tables import provider_customers, saved_methods
from markethall.shared.persistence.postgres import Statement

_has_id = saved_methods.c.saved_method_id == bindparam("saved_method_id")
_of_user = saved_methods.c.user_id == bindparam("user_id")
_not_deleted = saved_methods.c.deleted_at.is_(None)

GET_SAVED_METHOD = Statement(sa.select(saved_methods).where(_has_id))
FIND_SAVED_METHOD = Statement(
    sa.select(saved_methods).where(
        saved_methods.c.provider == bindparam("provider"),
        saved_methods.c.token == bindparam("token"),
    )
)
INSERT_SAVED_METHOD = Statement(
    insert(saved_methods).values(column_binds(saved_methods)).on_conflict_do_nothing()
)
GET_PROVIDER_CUSTOMER = Statement(
    sa.select(provider_customers).where(
        provider_customers.c.user_id == bindparam("user_id"),
        provider_customers.c.provider == bindparam("provider"),
    )
)
INSERT_PROVIDER_CUSTOMER = Statement(
    insert(provider_customers).values(column_binds(provider_customers)).on_conflict_do_nothing()
)
REPLACE_PROVIDER_CUSTOMER = Statement(
    sa.update(provider_customers)
    .where(
        provider_customers.c.user_id == bindparam("of_user"),
        provider_customers.c.provider == bindparam("at_provider"),
        provider_customers.c.reference == bindparam("replaced"),
    )
    .values(reference=bindparam("new_reference", type_=sa.Text))
)


@cache
def list_saved_methods(*, has_keyset: bool) -> Statement:
    return Statement(
        one_page(
            sa.select(saved_methods).where(_of_user, _not_deleted),
            saved_methods.c.created_at,
            saved_methods.c.saved_method_id,
            has_keyset=has_keyset,
            descending=True,
        )
    )


def _delete(condition: sa.ColumnElement[bool]) -> Statement:
    selected = (
        sa.select(saved_methods.c.saved_method_id)
        .where(_of_user, _not_deleted, condition)
        # so that two requests lock the rows in the same order
        .order_by(saved_methods.c.saved_method_id)
        .limit(LIMIT)
        .with_for_update()
        .cte("selected")
    )
    now = bindparam("now", type_=saved_methods.c.deleted_at.type)
    return Statement(
        sa.update(saved_methods)
        .where(saved_methods.c.saved_method_id == selected.c.saved_method_id)
        .values(deleted_at=now, detach_at=now)
        .returning(saved_methods)
    )


DELETE_SAVED_METHOD = _delete(_has_id)
DELETE_SAVED_METHODS = _delete(sa.true())

_due = (
    sa.select(saved_methods.c.saved_method_id)
    .where(saved_methods.c.detach_at <= bindparam("now"))
    .order_by(saved_methods.c.detach_at)
    .limit(LIMIT)
    .with_for_update(skip_locked=True)
    .cte("due")
)
CLAIM_METHODS_TO_DETACH = Statement(
    sa.update(saved_methods)
    .where(saved_methods.c.saved_method_id == _due.c.saved_method_id)
    .values(detach_at=bindparam("next_at", type_=saved_methods.c.detach_at.type))
    .returning(saved_methods)
)
FINISH_DETACHING = Statement(
    sa.update(saved_methods)
    .where(_has_id)
    .values(detach_at=None, brand=None, last4=None, exp_month=None, exp_year=None)
)
