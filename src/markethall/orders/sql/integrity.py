"""The reads of the integrity checks of orders and promotions in Postgres."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final, TypeVar
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import bindparam

from markethall.orders.carts.sql.tables import carts
from markethall.orders.contract import OrderStatus
from markethall.orders.domain.integrity import OrderedCart, OrderLink, OrderSums
from markethall.orders.domain.promotion_integrity import DiscountedOrderFacts, PromotionCounts
from markethall.orders.domain.return_integrity import ReturnedLine
from markethall.orders.returns.domain import OPEN_STATUSES
from markethall.orders.returns.sql import return_lines, returns
from markethall.orders.sql.tables import lines, order_edits, orders
from markethall.shared.persistence.postgres import Connection, Statement, sql_literal

F = TypeVar("F")

_NO_ID: Final = UUID(int=0)
_EARLIEST: Final = datetime(1, 1, 2, tzinfo=UTC)
_LIMIT: Final = bindparam("limit", type_=sa.Integer)
_link_columns: Final = [orders.c[name] for name in OrderLink.__dataclass_fields__]


def _page(sql: str) -> Statement:
    return Statement(
        sa.text(sql).bindparams(
            bindparam("after", type_=sa.Uuid), bindparam("limit", type_=sa.Integer)
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


def _sum(amount: "sa.ColumnElement[int]") -> "sa.ColumnElement[int]":
    total = sa.cast(sa.func.sum(amount), sa.BigInteger)
    return sa.func.coalesce(total, sa.literal_column("0", sa.BigInteger))


def _order_sums() -> Statement:
    of_lines = (
        sa.select(
            _sum(lines.c.total).label("line_total"),
            _sum(lines.c.unit_price * lines.c.quantity).label("unit_total"),
            _sum(lines.c.discount).label("line_discount"),
            _sum(lines.c.tax).label("line_tax"),
        )
        .where(lines.c.order_id == orders.c.order_id)
        .lateral("of_lines")
    )
    names = ("order_id", "subtotal", "discount", "shipping", "tax", "total")
    return Statement(
        sa.select(*(orders.c[name] for name in names), *of_lines.c)
        .join_from(orders, of_lines, sa.true())
        .where(orders.c.order_id > bindparam("after", type_=sa.Uuid))
        .order_by(orders.c.order_id)
        .limit(_LIMIT)
    )


def _returned_lines() -> Statement:
    is_open = sa.or_(
        *(returns.c.status == sql_literal(status.value) for status in sorted(OPEN_STATUSES))
    )
    is_closed = returns.c.status == sql_literal("closed")
    received = return_lines.c.restocked + return_lines.c.scrapped
    closed_sums = {
        "received_units": received,
        "returned_price": return_lines.c.price,
        "returned_discount": return_lines.c.discount,
        "returned_tax": return_lines.c.tax,
    }
    none = sa.literal_column("0", sa.BigInteger)
    of_returns = (
        sa.select(
            _sum(sa.case((is_open, return_lines.c.quantity), else_=none)).label("open_units"),
            *(
                _sum(sa.case((is_closed, amount), else_=none)).label(name)
                for name, amount in closed_sums.items()
            ),
        )
        .join_from(return_lines, returns)
        .where(return_lines.c.line_id == lines.c.line_id)
        .lateral("of_returns")
    )
    names = [
        "line_id",
        "order_id",
        "unit_price",
        "quantity",
        "delivered",
        "in_return",
        "returned",
        "discount",
        "tax",
    ]
    units = (
        lines.c.in_return,
        lines.c.returned,
        of_returns.c.open_units,
        of_returns.c.received_units,
    )
    return Statement(
        sa.select(*(lines.c[name] for name in names), *of_returns.c)
        .join_from(lines, of_returns, sa.true())
        .where(
            lines.c.line_id > bindparam("after", type_=sa.Uuid),
            sa.or_(*(column != none for column in units)),
        )
        .order_by(lines.c.line_id)
        .limit(_LIMIT)
    )


def _page_of_links(select: "sa.Select[Any]", key: "sa.ColumnElement[Any]") -> "sa.Select[Any]":
    after, until = (bindparam(name, type_=sa.Uuid) for name in ("after", "until"))
    return select.where(key > after, key <= until).order_by(key).limit(_LIMIT)


def _links_by_payment() -> Statement:
    """Select the links of the orders and of their additional payments."""
    is_applied = order_edits.c.status == sql_literal("applied")
    of_edits = {
        "payment_id": order_edits.c.payment_id,
        "payment_status": sa.case((is_applied, sql_literal("paid")), else_=sql_literal("none")),
        "total": order_edits.c.amount,
        "payment_amount": order_edits.c.amount,
        "refunded": order_edits.c.refunded,
    }
    additional = (
        sa.select(
            *(of_edits.get(column.name, column).label(column.name) for column in _link_columns)
        )
        .join_from(order_edits, orders)
        .where(order_edits.c.status != sql_literal("dropped"))
    )

    pages = (
        _page_of_links(sa.select(*_link_columns), orders.c.payment_id).subquery(),
        _page_of_links(additional, order_edits.c.payment_id).subquery(),
    )
    links = sa.union_all(*(sa.select(*found.c) for found in pages)).subquery("links")
    return Statement(sa.select(*links.c).order_by(links.c.payment_id).limit(_LIMIT))


def _ordered_carts() -> Statement:
    of_orders = (
        sa.select(
            orders.c.cart_id,
            sa.func.min(sa.cast(orders.c.order_id, sa.Text)).label("order_id"),
            sa.func.count().label("order_count"),
        )
        .where(orders.c.cart_id > bindparam("after", type_=sa.Uuid))
        .group_by(orders.c.cart_id)
        .order_by(orders.c.cart_id)
        .limit(_LIMIT)
        .cte("of_orders")
    )
    checked_out = (
        sa.select(carts.c.cart_id)
        .where(
            carts.c.status == sql_literal("checked_out"),
            carts.c.cart_id > bindparam("after", type_=sa.Uuid),
        )
        .order_by(carts.c.cart_id)
        .limit(_LIMIT)
        .cte("checked_out")
    )
    ids = sa.union(sa.select(of_orders.c.cart_id), sa.select(checked_out.c.cart_id)).cte("ids")
    found = ids.outerjoin(of_orders, of_orders.c.cart_id == ids.c.cart_id).outerjoin(
        carts, carts.c.cart_id == ids.c.cart_id
    )
    return Statement(
        sa.select(
            ids.c.cart_id,
            sa.cast(of_orders.c.order_id, sa.Uuid).label("order_id"),
            sa.func.coalesce(of_orders.c.order_count, sa.literal_column("0")).label("order_count"),
            carts.c.status.label("cart_status"),
            carts.c.order_id.label("cart_order_id"),
        )
        .select_from(found)
        .order_by(ids.c.cart_id)
        .limit(_LIMIT)
    )


_LIST_ORDERED_CARTS: Final = _ordered_carts()
_LIST_RETURNED_LINES: Final = _returned_lines()
_LIST_ORDER_SUMS: Final = _order_sums()
_LIST_LINKS_BY_PAYMENT: Final = _links_by_payment()
_LIST_LINKS_BY_ORDER: Final = Statement(
    _page_of_links(sa.select(*_link_columns), orders.c.order_id)
)
_LIST_OVERDUE: Final = Statement(
    sa.select(*_link_columns)
    .where(
        orders.c.status == sql_literal("pending"),
        orders.c.expires_at < bindparam("before"),
        sa.tuple_(orders.c.expires_at, orders.c.order_id)
        > sa.tuple_(
            bindparam("after_time", type_=sa.TIMESTAMP(timezone=True)),
            bindparam("after_id", type_=sa.Uuid),
        ),
    )
    .order_by(orders.c.expires_at, orders.c.order_id)
    .limit(_LIMIT)
)


class SqlOrderIntegrityReads:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def list_returned_lines(self, after: UUID | None, limit: int) -> Sequence[ReturnedLine]:
        return await self._fetch(ReturnedLine, _LIST_RETURNED_LINES, after, limit=limit)

    async def list_order_sums(self, after: UUID | None, limit: int) -> Sequence[OrderSums]:
        return await self._fetch(OrderSums, _LIST_ORDER_SUMS, after, limit=limit)

    async def list_ordered_carts(self, after: UUID | None, limit: int) -> Sequence[OrderedCart]:
        return await self._fetch(OrderedCart, _LIST_ORDERED_CARTS, after, limit=limit)

    async def list_overdue_orders(
        self, before: datetime, after: tuple[datetime, UUID] | None, limit: int
    ) -> Sequence[OrderLink]:
        after_time, after_id = after or (_EARLIEST, _NO_ID)
        rows = await self._connection.fetch_all(
            _LIST_OVERDUE, before=before, after_time=after_time, after_id=after_id, limit=limit
        )
        return [OrderLink(**dict(row)) for row in rows]

    async def list_links_by_payment(
        self, after: UUID | None, until: UUID, limit: int
    ) -> Sequence[OrderLink]:
        return await self._fetch(OrderLink, _LIST_LINKS_BY_PAYMENT, after, until=until, limit=limit)

    async def list_links_by_order(
        self, after: UUID | None, until: UUID, limit: int
    ) -> Sequence[OrderLink]:
        return await self._fetch(OrderLink, _LIST_LINKS_BY_ORDER, after, until=until, limit=limit)

    async def list_promotion_counts(
        self, after: UUID | None, limit: int
    ) -> Sequence[PromotionCounts]:
        return await self._fetch(PromotionCounts, _LIST_COUNTS, after, limit=limit)

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

    async def _fetch(
        self, fact: type[F], statement: Statement, after: UUID | None, **values: Any
    ) -> Sequence[F]:
        rows = await self._connection.fetch_all(statement, after=after or _NO_ID, **values)
        return [fact(**dict(row)) for row in rows]


def _to_ids(text: str | None) -> frozenset[UUID]:
    ids: list[Any] = json.loads(text) if text else []
    return frozenset(map(UUID, ids))
