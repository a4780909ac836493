"""The use cases and event handlers of reviews."""

from uuid import UUID

from markethall.orders.contract import OrderCompleted, OrderFulfilled, OrderPlaced
from markethall.shared.idempotency.records import IdempotentCommand
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.clock import Clock
from markethall.shared.kernel.errors import Unauthenticated
from markethall.shared.kernel.pagination import TIME_KEYSET, Cursors, Page, TimeKeyset
from markethall.shared.messaging.events import Delivery
from markethall.shared.persistence.database import Database
from markethall.users.contract import Users
from markethall_reviews.contract import (
    AlreadyReviewed,
    NewReview,
    ProductNotReceived,
    RatingView,
    ReviewQuery,
    ReviewView,
)
from markethall_reviews.domain import Review
from markethall_reviews.ports import ReadStore, Store


class ReviewService:
    def __init__(
        self, users: Users, database: Database[ReadStore, Store], cursors: Cursors, clock: Clock
    ) -> None:
        self._users = users
        self._database = database
        self._cursors = cursors
        self._clock = clock

    async def create(
        self, ctx: CallContext, new_review: NewReview, command: IdempotentCommand
    ) -> ReviewView:
        user_id = ctx.actor.user_id
        if user_id is None:
            raise Unauthenticated(reason="missing")
        # called before the transaction, so that no database connection is held during the call
        customer = await self._users.get_active_customer(ctx, user_id)
        review = Review(
            review_id=command.id,
            product_id=new_review.product_id,
            user_id=user_id,
            author=customer.full_name or "",
            rating=new_review.rating,
            text=new_review.text,
            created_at=self._clock(),
        )
        async with self._database.transaction() as store:
            if not await store.has_received(user_id, review.product_id):
                raise ProductNotReceived(product_id=str(review.product_id))
            if not await store.add_review(review):
                raise AlreadyReviewed(product_id=str(review.product_id))
            view = _to_view(review)
            await store.store_response(command, view)
        return view

    async def list_reviews(self, ctx: CallContext, query: ReviewQuery) -> Page[ReviewView]:
        list_name = f"reviews {query.product_id}"
        after = self._cursors.decode(list_name, query.cursor, TIME_KEYSET)
        async with self._database.read_session() as store:
            reviews = await store.list_reviews(query.product_id, after, query.limit)
        return self._cursors.build_page(
            list_name,
            [_to_view(review) for review in reviews],
            query.limit,
            lambda view: TimeKeyset(view.created_at, view.review_id),
        )

    async def count(self) -> int:
        async with self._database.read_session() as store:
            return await store.count()


class RatingService:
    def __init__(self, database: Database[ReadStore, Store]) -> None:
        self._database = database

    async def get_rating(self, ctx: CallContext, product_id: UUID) -> RatingView:
        async with self._database.read_session() as store:
            return await store.get_rating(product_id)


class ReviewEventHandlers:
    """Records which customer received which product.

    The events of one order arrive in the sequence in which they were published.
    """

    def __init__(self, database: Database[ReadStore, Store]) -> None:
        self._database = database

    async def on_order_placed(self, delivery: Delivery, event: OrderPlaced) -> None:
        async with self._database.transaction() as store:
            if await store.mark_processed(delivery):
                await store.add_order(event.order_id, event.user_id)

    async def on_order_fulfilled(self, delivery: Delivery, event: OrderFulfilled) -> None:
        product_ids = sorted({line.product_id for line in event.lines})
        async with self._database.transaction() as store:
            if await store.mark_processed(delivery):
                await store.add_shipped_products(event.order_id, product_ids)

    async def on_order_completed(self, delivery: Delivery, event: OrderCompleted) -> None:
        async with self._database.transaction() as store:
            if await store.mark_processed(delivery):
                await store.complete_order(event.order_id)


def _to_view(review: Review) -> ReviewView:
    return ReviewView(
        review_id=review.review_id,
        product_id=review.product_id,
        author=review.author,
        rating=review.rating,
        text=review.text,
        created_at=review.created_at,
    )
