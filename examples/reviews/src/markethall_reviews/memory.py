"""The in-memory store of reviews."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from uuid import UUID

from markethall.shared.composition.memory import ContextTables, MemoryUnitOfWork
from markethall.shared.kernel.clock import Clock
from markethall.shared.kernel.pagination import TimeKeyset
from markethall.shared.persistence.memory import Table
from markethall_reviews.contract import RatingView
from markethall_reviews.domain import Review


@dataclass(frozen=True)
class OrderRow:
    order_id: UUID
    user_id: UUID
    is_completed: bool = False


@dataclass(frozen=True)
class ShippedProductRow:
    order_id: UUID
    product_id: UUID


class Tables(ContextTables):
    def __init__(self) -> None:
        super().__init__()
        self.orders: Table[UUID, OrderRow] = Table()
        self.shipped_products: Table[tuple[UUID, UUID], ShippedProductRow] = Table()
        self.reviews: Table[UUID, Review] = Table()


class MemoryReviewStore(MemoryUnitOfWork):
    def __init__(self, tables: Tables, clock: Clock) -> None:
        super().__init__(tables, clock)
        self._tables = tables

    async def add_order(self, order_id: UUID, user_id: UUID) -> None:
        if self._tables.orders.get(order_id) is None:
            self._tables.orders.put(order_id, OrderRow(order_id, user_id))

    async def add_shipped_products(self, order_id: UUID, product_ids: Sequence[UUID]) -> None:
        for product_id in product_ids:
            row = ShippedProductRow(order_id, product_id)
            self._tables.shipped_products.put((order_id, product_id), row)

    async def complete_order(self, order_id: UUID) -> None:
        row = self._tables.orders.get(order_id)
        if row:
            self._tables.orders.put(order_id, replace(row, is_completed=True))

    async def has_received(self, user_id: UUID, product_id: UUID) -> bool:
        orders = self._tables.orders.where(
            lambda order: order.user_id == user_id and order.is_completed
        )
        shipped = self._tables.shipped_products
        return any(shipped.get((order.order_id, product_id)) for order in orders)

    async def add_review(self, review: Review) -> bool:
        if self._tables.reviews.where(
            lambda row: (row.user_id, row.product_id) == (review.user_id, review.product_id)
        ):
            return False
        self._tables.reviews.put(review.review_id, review)
        return True

    async def list_reviews(
        self, product_id: UUID, after: TimeKeyset | None, limit: int
    ) -> Sequence[Review]:
        reviews = self._tables.reviews.where(
            lambda row: (
                row.product_id == product_id
                and (after is None or (row.created_at, row.review_id) < after)
            )
        )
        reviews = sorted(reviews, key=lambda row: (row.created_at, row.review_id), reverse=True)
        return reviews[: limit + 1]

    async def get_rating(self, product_id: UUID) -> RatingView:
        ratings = [
            review.rating
            for review in self._tables.reviews.where(lambda row: row.product_id == product_id)
        ]
        average = sum(ratings) / len(ratings) if ratings else None
        return RatingView(product_id=product_id, review_count=len(ratings), average=average)

    async def count(self) -> int:
        return len(self._tables.reviews)
