"""The reads of the integrity checks of promotions in Postgres."""

import json
from collections.abc import Sequence
from typing import Any, Final, TypeVar
from uuid import UUID

import sqlalchemy as sa

from markethall.orders.contract import OrderStatus
from markethall.orders.domain.promotion_integrity import DiscountedOrderFacts, PromotionCounts
from markethall.shared.persistence.postgres import Connection, Statement

F = TypeVar("F")

_NO_ID: Final = UUID(int=0)


def _page(sql: str) -> Statement:
    return Statement(
        sa.text(sql).bindparams(
            sa.bindparam("after", type_=sa.Uuid), sa.bindparam("limit", type_=sa.Integer)
        )
    )


_LIST_COUNTS: Final = _page(
    """
    SELECT
        promotion.promotion_id, promotion.usage_limit, promotion.per_customer_limit,
        promotion.used,
        (
            SELECT count(*) FROM orders.promotion_use AS use
            WHERE use.promotion_id = promotion.promotion_id
        ) AS uses,
        (
            SELECT coalesce(max(taken.uses), 0) FROM (
                SELECT count(*) AS uses FROM orders.promotion_use AS use
                WHERE use.promotion_id = promotion.promotion_id GROUP BY use.used_by
            ) AS taken
        ) AS most_by_one_customer,
        (
            SELECT count(*)
            FROM (
                SELECT customer_id, count(*) AS uses FROM orders.promotion_use AS use
                WHERE use.promotion_id = promotion.promotion_id GROUP BY customer_id
            ) AS taken
            FULL JOIN (
                SELECT customer_id, used FROM orders.promotion_customer AS counter
                WHERE counter.promotion_id = promotion.promotion_id
            ) AS counted ON counted.customer_id = taken.customer_id
            WHERE coalesce(taken.uses, 0) <> coalesce(counted.used, 0)
        ) AS wrong_customers
    FROM orders.promotion
    WHERE promotion.promotion_id > :after
    ORDER BY promotion.promotion_id LIMIT :limit
    """
)
_LIST_DISCOUNTED_ORDERS: Final = _page(
    """
    SELECT
        "order".order_id, "order".status,
        (
            SELECT CAST(jsonb_agg(DISTINCT promotion.promotion_id) AS text)
            FROM (
                SELECT breakdown -> 'discounts' AS discounts FROM orders.order_line
                WHERE order_line.order_id = "order".order_id AND breakdown IS NOT NULL
                UNION ALL
                SELECT "order".shipping_line -> 'breakdown' -> 'discounts'
                WHERE "order".shipping_line IS NOT NULL
            ) AS parts
            CROSS JOIN LATERAL jsonb_array_elements(parts.discounts) AS part (discount)
            JOIN orders.promotion
                ON promotion.promotion_id = CAST(part.discount ->> 'promotion_id' AS uuid)
        ) AS discounted,
        (
            SELECT CAST(jsonb_agg(promotion_id) AS text) FROM orders.promotion_use AS use
            WHERE use.order_id = "order".order_id
        ) AS used
    FROM orders."order"
    WHERE "order".order_id > :after
        AND ("order".discount > 0 OR EXISTS (
            SELECT FROM orders.promotion_use AS use WHERE use.order_id = "order".order_id
        ))
    ORDER BY "order".order_id LIMIT :limit
    """
)


class SqlPromotionIntegrityReads:
    _connection: Connection

    async def list_promotion_counts(
        self, after: UUID | None, limit: int
    ) -> Sequence[PromotionCounts]:
        return await self._fetch(PromotionCounts, _LIST_COUNTS, after, limit)

    async def _fetch(
        self, fact: type[F], statement: Statement, after: UUID | None, limit: int
    ) -> Sequence[F]:
        rows = await self._connection.fetch_all(statement, after=after or _NO_ID, limit=limit)
        return [fact(**dict(row)) for row in rows]

    async def list_discounted_orders(
        self, after: UUID | None, limit: int
    ) -> Sequence[DiscountedOrderFacts]:
        rows = await self._connection.fetch_all(
            _LIST_DISCOUNTED_ORDERS, after=after or _NO_ID, limit=limit
        )
        return [
            DiscountedOrderFacts(
                row["order_id"],
                OrderStatus(row["status"]),
                _to_ids(row["discounted"]),
                _to_ids(row["used"]),
            )
            for row in rows
        ]


def _to_ids(text: str | None) -> frozenset[UUID]:
    ids: list[Any] = json.loads(text) if text else []
    return frozenset(map(UUID, ids))
