"""Ports of reviews: the storage."""

from collections.abc import Sequence
from typing import Protocol
from uuid import UUID

from markethall.shared.idempotency.records import IdempotentCommand
from markethall.shared.kernel.pagination import TimeKeyset
from markethall.shared.messaging.events import Delivery
from markethall_reviews.contract import RatingView, ReviewView
from markethall_reviews.domain import Review


class ReadStore(Protocol):
    async def has_received(self, user_id: UUID, product_id: UUID) -> bool: ...

    async def list_reviews(
        self, product_id: UUID, after: TimeKeyset | None, limit: int
    ) -> Sequence[Review]:
        """Return at most `limit` + 1 reviews, the newest first.

        The extra review shows that there is a next page.
        """

    async def get_rating(self, product_id: UUID) -> RatingView: ...

    async def count(self) -> int: ...


class Store(ReadStore, Protocol):
    async def add_order(self, order_id: UUID, user_id: UUID) -> None:
        """Insert the order if it does not exist."""

    async def add_shipped_products(self, order_id: UUID, product_ids: Sequence[UUID]) -> None:
        """Insert products of the order. Ignore those that are inserted already."""

    async def complete_order(self, order_id: UUID) -> None: ...

    async def add_review(self, review: Review) -> bool:
        """Insert the review. Return False if the customer has reviewed the product already."""

    async def mark_processed(self, delivery: Delivery) -> bool:
        """Mark the event as processed in the inbox. Return False if it is marked already."""

    async def store_response(self, command: IdempotentCommand, result: ReviewView) -> None:
        """Store the response under the idempotency key, so that a retry with this key returns it.

        Raises LeaseLost.
        """
