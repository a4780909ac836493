"""The tables, statements and Postgres store of reviews."""

from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import bindparam, func
from sqlalchemy.dialects.postgresql import ARRAY, insert

from markethall.shared.composition.sql import ContextStatements, SqlUnitOfWork, context_metadata
from markethall.shared.kernel.pagination import TimeKeyset
from markethall.shared.persistence.postgres import Statement
from markethall.shared.persistence.sql import timestamp_column
from markethall_reviews.contract import RatingView
from markethall_reviews.domain import Review

metadata = context_metadata("reviews")

orders = sa.Table(
    "order",
    metadata,
    sa.Column("order_id", sa.Uuid, primary_key=True),
    sa.Column("user_id", sa.Uuid, nullable=False, index=True),
    sa.Column("is_completed", sa.Boolean, nullable=False),
)
shipped_products = sa.Table(
    "shipped_product",
    metadata,
    sa.Column("order_id", sa.Uuid, primary_key=True),
    sa.Column("product_id", sa.Uuid, primary_key=True),
)
reviews = sa.Table(
    "review",
    metadata,
    sa.Column("review_id", sa.Uuid, primary_key=True),
    sa.Column("product_id", sa.Uuid, nullable=False),
    sa.Column("user_id", sa.Uuid, nullable=False),
    sa.Column("author", sa.Text, nullable=False),
    sa.Column("rating", sa.Integer, nullable=False),
    sa.Column("text", sa.Text, nullable=False),
    timestamp_column("created_at"),
    sa.UniqueConstraint("user_id", "product_id"),
    sa.CheckConstraint("rating BETWEEN 1 AND 5", name="rating"),
)
sa.Index("ix_review_list", reviews.c.product_id, reviews.c.created_at, reviews.c.review_id)

STATEMENTS = ContextStatements(metadata)

_BEFORE_ALL = TimeKeyset(datetime(9999, 12, 30, tzinfo=UTC), UUID(int=2**128 - 1))

INSERT_ORDER = Statement(insert(orders).on_conflict_do_nothing())
_NEW_PRODUCTS = func.unnest(bindparam("product_ids", type_=ARRAY(sa.Uuid))).column_valued("new")
INSERT_SHIPPED_PRODUCTS = Statement(
    insert(shipped_products)
    .from_select(
        ["order_id", "product_id"],
        sa.select(bindparam("order_id", type_=sa.Uuid), _NEW_PRODUCTS),
    )
    .on_conflict_do_nothing()
)
COMPLETE_ORDER = Statement(
    sa.update(orders)
    .where(orders.c.order_id == bindparam("of_order_id", type_=sa.Uuid))
    .values(is_completed=sa.true())
)
HAS_RECEIVED = Statement(
    sa.select(
        sa.exists(
            sa.select(1)
            .join_from(orders, shipped_products, orders.c.order_id == shipped_products.c.order_id)
            .where(
                orders.c.user_id == bindparam("user_id"),
                orders.c.is_completed,
                shipped_products.c.product_id == bindparam("product_id"),
            )
        )
    )
)
INSERT_REVIEW = Statement(insert(reviews).on_conflict_do_nothing())
LIST_REVIEWS = Statement(
    sa.select(reviews)
    .where(
        reviews.c.product_id == bindparam("product_id"),
        sa.tuple_(reviews.c.created_at, reviews.c.review_id)
        < sa.tuple_(
            bindparam("before", type_=sa.TIMESTAMP(timezone=True)),
            bindparam("before_id", type_=sa.Uuid),
        ),
    )
    .order_by(reviews.c.created_at.desc(), reviews.c.review_id.desc())
    .limit(bindparam("limit", type_=sa.Integer))
)
GET_RATING = Statement(
    sa.select(
        func.count().label("review_count"),
        sa.cast(func.avg(reviews.c.rating), sa.Double).label("average"),
    ).where(reviews.c.product_id == bindparam("product_id"))
)
COUNT = Statement(sa.select(func.count()).select_from(reviews))


class SqlReviewStore(SqlUnitOfWork):
    async def add_order(self, order_id: UUID, user_id: UUID) -> None:
        await self._connection.execute(
            INSERT_ORDER, order_id=order_id, user_id=user_id, is_completed=False
        )

    async def add_shipped_products(self, order_id: UUID, product_ids: Sequence[UUID]) -> None:
        await self._connection.execute(
            INSERT_SHIPPED_PRODUCTS, order_id=order_id, product_ids=list(product_ids)
        )

    async def complete_order(self, order_id: UUID) -> None:
        await self._connection.execute(COMPLETE_ORDER, of_order_id=order_id)

    async def has_received(self, user_id: UUID, product_id: UUID) -> bool:
        return bool(
            await self._connection.fetch_value(HAS_RECEIVED, user_id=user_id, product_id=product_id)
        )

    async def add_review(self, review: Review) -> bool:
        return bool(await self._connection.execute(INSERT_REVIEW, **vars(review)))

    async def list_reviews(
        self, product_id: UUID, after: TimeKeyset | None, limit: int
    ) -> Sequence[Review]:
        keyset = after or _BEFORE_ALL
        rows = await self._connection.fetch_all(
            LIST_REVIEWS,
            product_id=product_id,
            before=keyset.timestamp,
            before_id=keyset.row_id,
            limit=limit + 1,
        )
        return [Review(**dict(row)) for row in rows]

    async def get_rating(self, product_id: UUID) -> RatingView:
        # an aggregate always returns one row
        (row,) = await self._connection.fetch_all(GET_RATING, product_id=product_id)
        return RatingView(product_id=product_id, **dict(row))

    async def count(self) -> int:
        count: int = await self._connection.fetch_value(COUNT)
        return count
