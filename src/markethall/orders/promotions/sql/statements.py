"""The SQL statements of promotions."""

from functools import lru_cache
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import bindparam
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, insert

from markethall.orders.configuration.domain import ItemKind
from markethall.orders.configuration.sql import configuration
from markethall.orders.promotions.sql.tables import promotion_customers, promotion_uses, promotions
from markethall.shared.persistence.postgres import Statement, sql_literal

_ID: Final = bindparam("promotion_id", type_=sa.Uuid)
_is_automatic: Final = promotions.c.is_active & promotions.c.code_key.is_(None)
# columns that a change of a promotion writes
_CHANGED_COLUMNS: Final = (
    "code_key",
    "is_active",
    "usage_limit",
    "per_customer_limit",
    "first_order",
    "used",
    "fields",
    "version",
)
# the JSON is read as text, because the connection has no JSON codec
_columns: Final = (
    promotions.c.promotion_id,
    sa.cast(promotions.c.fields, sa.Text).label("fields"),
    promotions.c.version,
    promotions.c.created_at,
    promotions.c.used,
)
_by_id: Final = sa.select(*_columns).where(promotions.c.promotion_id == _ID)

GET_PROMOTION: Final = Statement(_by_id)
GET_PROMOTION_FOR_UPDATE: Final = Statement(_by_id.with_for_update())
INSERT_PROMOTION: Final = Statement(
    insert(promotions)
    .values({column.name: bindparam(column.name) for column in promotions.c})
    # no conflict target, because the id or the code may conflict
    .on_conflict_do_nothing()
)
SAVE_PROMOTION: Final = Statement(
    sa.update(promotions)
    .where(promotions.c.promotion_id == bindparam("saved_id", type_=sa.Uuid))
    .values({name: bindparam(name) for name in _CHANGED_COLUMNS})
)
# the foreign keys delete the uses and the counts too
DELETE_PROMOTION: Final = Statement(sa.delete(promotions).where(promotions.c.promotion_id == _ID))
COUNT_AUTOMATIC: Final = Statement(
    sa.select(sa.func.count()).select_from(promotions).where(_is_automatic)
)


@lru_cache(maxsize=8)
def list_promotions(*, by_code: bool, by_activity: bool, after_id: bool) -> Statement:
    clause = sa.select(*_columns).order_by(promotions.c.promotion_id)
    if by_code:
        clause = clause.where(promotions.c.code_key == bindparam("code_key"))
    if by_activity:
        clause = clause.where(promotions.c.is_active == bindparam("is_active"))
    if after_id:
        clause = clause.where(promotions.c.promotion_id > bindparam("after", type_=sa.Uuid))
    return Statement(clause.limit(bindparam("limit", type_=sa.Integer)))


def _count_of(column: "sa.ColumnElement[int]", table: sa.Table) -> Any:
    return sa.select(column).where(table.c.promotion_id == _ID).scalar_subquery()


GET_USAGE: Final = Statement(
    sa.select(
        _count_of(sa.func.count(), promotion_uses).label("used"),
        sa.func.coalesce(
            _count_of(sa.func.max(promotion_customers.c.used), promotion_customers),
            sa.literal_column("0"),
        ).label("most_per_customer"),
    )
)

_counted_fields: Final = promotions.c.fields.op("||", return_type=JSONB)(
    sa.func.jsonb_build_object(sql_literal("used"), promotions.c.used)
)
# one statement for the configuration and the automatic promotions, because every price depends on
# both
LIST_ALL_ITEMS: Final = Statement(
    sa.union_all(
        sa.select(
            configuration.c.item_id,
            configuration.c.kind,
            configuration.c.unique_key,
            sa.cast(configuration.c.fields, sa.Text).label("fields"),
            configuration.c.version,
            configuration.c.created_at,
        ),
        sa.select(
            promotions.c.promotion_id,
            sql_literal(ItemKind.PROMOTION.value),
            sql_literal(""),
            sa.cast(_counted_fields, sa.Text),
            promotions.c.version,
            promotions.c.created_at,
        ).where(_is_automatic),
    ).order_by(sa.literal_column("item_id"))
)

_LIVE: Final = "status NOT IN ('cancelled', 'expired')"
_UUID, _UUIDS = sa.Uuid(), ARRAY(sa.Uuid)


def _text(sql: str, **types: Any) -> Statement:
    return Statement(
        sa.text(sql).bindparams(*(bindparam(name, type_=kind) for name, kind in types.items()))
    )


GET_CUSTOMER_HISTORY: Final = _text(
    f"""
    SELECT
        EXISTS (
            SELECT FROM orders."order" WHERE user_id = :customer_id AND {_LIVE}
        ) AS has_orders,
        (
            SELECT CAST(jsonb_object_agg(promotion_id, used) AS text)
            FROM orders.promotion_customer WHERE customer_id = :customer_id AND used > 0
        ) AS uses,
        voucher.*
    FROM (SELECT 1) AS always
    LEFT JOIN LATERAL (
        SELECT promotion_id, CAST(fields AS text) AS fields, version, created_at, used
        FROM orders.promotion WHERE code_key = CAST(:code_key AS text)
        ORDER BY is_active DESC, promotion_id DESC LIMIT 1
    ) AS voucher ON true
    """,
    customer_id=_UUID,
    code_key=sa.Text,
)

# Rows are locked in this order in every statement: promotions by id, then the counts of customers
# by promotion, so that there is no deadlock. A promotion without a usage limit is locked only
# against changes by staff, because its orders need not wait for each other.
#
# `limited` and `unlimited` read the newest version of a row, other SELECTs the version at the start
# of the statement. If a limit was added to a promotion or removed from it in between, the promotion
# may be in neither of the two, although it exists. Then `is_changed` is true.
#
# An order may have several promotions for first orders. One of its uses is marked as a first order,
# because a unique index allows a customer one mark.
REDEEM_PROMOTIONS: Final = _text(
    f"""
    WITH limited AS MATERIALIZED (
        SELECT promotion_id, is_active, first_order, per_customer_limit,
            used >= usage_limit AS is_exhausted
        FROM orders.promotion
        WHERE promotion_id = ANY(:promotion_ids) AND usage_limit IS NOT NULL
        ORDER BY promotion_id FOR NO KEY UPDATE
    ), unlimited AS MATERIALIZED (
        SELECT promotion_id, is_active, first_order, per_customer_limit, false AS is_exhausted
        FROM orders.promotion
        WHERE promotion_id = ANY(:promotion_ids) AND usage_limit IS NULL
        ORDER BY promotion_id FOR KEY SHARE
    ), counted AS (
        UPDATE orders.promotion SET used = promotion.used + 1
        FROM limited
        WHERE promotion.promotion_id = limited.promotion_id AND NOT limited.is_exhausted
        RETURNING promotion.promotion_id
    ), locked AS MATERIALIZED (
        SELECT * FROM limited UNION ALL SELECT * FROM unlimited
    ), usable AS MATERIALIZED (
        SELECT * FROM locked
        WHERE (is_active OR :is_reinstatement)
            AND (promotion_id IN (SELECT promotion_id FROM counted)
                OR promotion_id IN (SELECT promotion_id FROM unlimited))
    ), by_customer AS (
        INSERT INTO orders.promotion_customer AS customer (customer_id, promotion_id, used)
        SELECT :customer_id, promotion_id, 1 FROM usable ORDER BY promotion_id
        ON CONFLICT (customer_id, promotion_id) DO UPDATE SET used = customer.used + 1
        WHERE customer.used < (
            SELECT coalesce(per_customer_limit, {2**31 - 1}) FROM usable
            WHERE usable.promotion_id = customer.promotion_id
        )
        RETURNING promotion_id
    ), taken AS (
        INSERT INTO orders.promotion_use
            (promotion_id, order_id, customer_id, used_by, is_first_order, used_at)
        SELECT promotion_id, :order_id, :customer_id, :customer_id,
            promotion_id IS NOT DISTINCT FROM (
                SELECT promotion_id FROM usable WHERE first_order ORDER BY promotion_id LIMIT 1
            ),
            :used_at
        FROM usable
        WHERE promotion_id IN (SELECT promotion_id FROM by_customer)
            AND (:is_reinstatement OR NOT first_order OR NOT EXISTS (
                SELECT FROM orders."order"
                WHERE user_id = :customer_id AND order_id <> :order_id AND {_LIVE}
            ))
        ON CONFLICT DO NOTHING
        RETURNING promotion_id
    )
    SELECT
        wanted.promotion_id,
        promotion.promotion_id IS NULL AS is_unknown,
        locked.promotion_id IS NULL AS is_changed,
        locked.is_active,
        locked.is_exhausted,
        by_customer.promotion_id IS NULL AS is_over_customer_limit
    FROM unnest(:promotion_ids) AS wanted (promotion_id)
    LEFT JOIN orders.promotion ON promotion.promotion_id = wanted.promotion_id
    LEFT JOIN locked ON locked.promotion_id = wanted.promotion_id
    LEFT JOIN by_customer ON by_customer.promotion_id = wanted.promotion_id
    WHERE wanted.promotion_id NOT IN (SELECT promotion_id FROM taken)
    """,
    promotion_ids=_UUIDS,
    customer_id=_UUID,
    order_id=_UUID,
    used_at=sa.TIMESTAMP(timezone=True),
    is_reinstatement=sa.Boolean,
)

GIVE_BACK_PROMOTIONS: Final = _text(
    """
    WITH locked AS MATERIALIZED (
        SELECT promotion_id, usage_limit FROM orders.promotion
        WHERE promotion_id IN (
            SELECT promotion_id FROM orders.promotion_use
            WHERE order_id = :order_id AND promotion_id <> ALL(:kept_ids)
        )
        ORDER BY promotion_id FOR NO KEY UPDATE
    ), given_back AS (
        DELETE FROM orders.promotion_use
        WHERE order_id = :order_id AND promotion_id IN (SELECT promotion_id FROM locked)
        RETURNING promotion_id, customer_id
    ), counted AS (
        UPDATE orders.promotion SET used = promotion.used - 1
        FROM given_back JOIN locked ON locked.promotion_id = given_back.promotion_id
        WHERE promotion.promotion_id = given_back.promotion_id AND locked.usage_limit IS NOT NULL
    ), customers AS MATERIALIZED (
        SELECT customer.customer_id, customer.promotion_id
        FROM orders.promotion_customer AS customer
        JOIN given_back ON given_back.promotion_id = customer.promotion_id
            AND given_back.customer_id = customer.customer_id
        ORDER BY customer.promotion_id FOR NO KEY UPDATE OF customer
    )
    UPDATE orders.promotion_customer AS customer SET used = customer.used - 1
    FROM customers
    WHERE customer.promotion_id = customers.promotion_id
        AND customer.customer_id = customers.customer_id
    """,
    order_id=_UUID,
    kept_ids=_UUIDS,
)

MOVE_PROMOTION_USES: Final = _text(
    """
    WITH locked AS MATERIALIZED (
        SELECT promotion_id FROM orders.promotion
        WHERE promotion_id IN (
            SELECT promotion_id FROM orders.promotion_use WHERE order_id = :order_id
        )
        ORDER BY promotion_id FOR KEY SHARE
    ), moved AS MATERIALIZED (
        SELECT use.promotion_id, use.customer_id
        FROM orders.promotion_use AS use
        JOIN locked ON locked.promotion_id = use.promotion_id
        WHERE use.order_id = :order_id AND use.customer_id <> :customer_id
        ORDER BY use.promotion_id FOR NO KEY UPDATE OF use
    ), owned AS (
        UPDATE orders.promotion_use AS use SET customer_id = :customer_id
        FROM moved
        WHERE use.promotion_id = moved.promotion_id AND use.order_id = :order_id
    ), counted AS (
        UPDATE orders.promotion_customer AS customer SET used = customer.used - 1
        FROM moved
        WHERE customer.promotion_id = moved.promotion_id
            AND customer.customer_id = moved.customer_id
    )
    INSERT INTO orders.promotion_customer AS customer (customer_id, promotion_id, used)
    SELECT :customer_id, promotion_id, 1 FROM moved ORDER BY promotion_id
    ON CONFLICT (customer_id, promotion_id) DO UPDATE SET used = customer.used + 1
    """,
    order_id=_UUID,
    customer_id=_UUID,
)
