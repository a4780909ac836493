"""The contract of reviews, for the HTTP API and for other contexts."""

from datetime import datetime
from typing import Annotated, Protocol
from uuid import UUID

from pydantic import Field

from markethall.shared.idempotency.records import IdempotentCommand
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.errors import DomainError
from markethall.shared.kernel.model import Dto, Id, Int, RequestModel, Text
from markethall.shared.kernel.pagination import Page, PageQuery


class ProductNotReceived(DomainError):
    """The customer has no completed order with the product. Details: product_id."""

    code = "reviews.product_not_received"
    status = 403
    title = "Only customers who received the product may review it"


class AlreadyReviewed(DomainError):
    """The customer has reviewed the product already. Details: product_id."""

    code = "reviews.already_reviewed"
    status = 409
    title = "This customer has reviewed the product"


class NewReview(RequestModel):
    product_id: Id
    rating: Annotated[Int, Field(ge=1, le=5)]
    text: Annotated[Text, Field(max_length=4000)] = ""


class ReviewQuery(PageQuery):
    product_id: Id


class ReviewView(Dto):
    review_id: UUID
    product_id: UUID
    author: str
    rating: int
    text: str
    created_at: datetime


class RatingView(Dto):
    """The rating of a product. `average` is None if there is no review."""

    product_id: UUID
    review_count: int
    average: float | None


class ReviewApi(Protocol):
    """The public API of reviews."""

    async def create(
        self, ctx: CallContext, new_review: NewReview, command: IdempotentCommand
    ) -> ReviewView:
        """Create a review. The command's id is the review id.

        Raises ProductNotReceived, AlreadyReviewed, UserNotFound, UserInactive.
        """

    async def list_reviews(self, ctx: CallContext, query: ReviewQuery) -> Page[ReviewView]:
        """Return reviews, the newest first. Raises CursorInvalid."""

    async def count(self) -> int: ...


class Ratings(Protocol):
    """The calls that other contexts may make."""

    async def get_rating(self, ctx: CallContext, product_id: UUID) -> RatingView: ...
