"""The contract suite of reviews. It runs in memory, on Postgres and over HTTP."""

import pytest
from conftest import ReviewsApp, order_events

from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.ids import new_id
from markethall.testing import deliver
from markethall.users.contract import UserInactive
from markethall_reviews.contract import (
    AlreadyReviewed,
    ProductNotReceived,
    RatingView,
    ReviewQuery,
)

CTX = CallContext(request_id="test")


async def test_customer_reviews_a_received_product(reviews_app: ReviewsApp) -> None:
    user_id, product_id = new_id(), new_id()
    await reviews_app.complete_order(user_id, product_id)

    review = await reviews_app.review(user_id, product_id, rating=4)

    assert (review.author, review.rating, review.text) == ("Ada", 4, "Good tea.")
    page = await reviews_app.container.reviews().list_reviews(
        CTX, ReviewQuery(product_id=product_id)
    )
    assert page.items == (review,)


async def test_shipped_but_not_completed_order_is_not_enough(reviews_app: ReviewsApp) -> None:
    user_id, product_id = new_id(), new_id()
    for event in order_events(user_id, product_id)[:2]:
        await deliver("reviews", reviews_app.container, event)

    with pytest.raises(ProductNotReceived):
        await reviews_app.review(user_id, product_id)


async def test_only_the_customer_of_the_order_may_review(reviews_app: ReviewsApp) -> None:
    product_id = new_id()
    await reviews_app.complete_order(new_id(), product_id)

    with pytest.raises(ProductNotReceived):
        await reviews_app.review(new_id(), product_id)


async def test_product_is_reviewed_once(reviews_app: ReviewsApp) -> None:
    user_id, product_id = new_id(), new_id()
    await reviews_app.complete_order(user_id, product_id)
    await reviews_app.review(user_id, product_id)

    with pytest.raises(AlreadyReviewed):
        await reviews_app.review(user_id, product_id)


async def test_inactive_customer_cannot_review(reviews_app: ReviewsApp) -> None:
    user_id, product_id = new_id(), new_id()
    await reviews_app.complete_order(user_id, product_id)
    reviews_app.users.inactive.add(user_id)

    with pytest.raises(UserInactive):
        await reviews_app.review(user_id, product_id)


async def test_duplicate_deliveries_change_nothing(reviews_app: ReviewsApp) -> None:
    user_id, product_id = new_id(), new_id()

    await reviews_app.complete_order(user_id, product_id, times=2)

    assert (await reviews_app.review(user_id, product_id)).product_id == product_id


async def test_rating_is_the_average(reviews_app: ReviewsApp) -> None:
    product_id = new_id()
    before = await reviews_app.ratings.get_rating(CTX, product_id)
    for rating in (2, 5):
        user_id = new_id()
        await reviews_app.complete_order(user_id, product_id)
        await reviews_app.review(user_id, product_id, rating)

    after = await reviews_app.ratings.get_rating(CTX, product_id)

    assert before == RatingView(product_id=product_id, review_count=0, average=None)
    assert after == RatingView(product_id=product_id, review_count=2, average=3.5)


async def test_list_has_pages_with_the_newest_review_first(reviews_app: ReviewsApp) -> None:
    product_id = new_id()
    reviews = []
    for _ in range(3):
        user_id = new_id()
        await reviews_app.complete_order(user_id, product_id)
        reviews.append(await reviews_app.review(user_id, product_id))
    service = reviews_app.container.reviews()

    first = await service.list_reviews(CTX, ReviewQuery(product_id=product_id, limit=2))
    query = ReviewQuery(product_id=product_id, limit=2, cursor=first.next_cursor)
    second = await service.list_reviews(CTX, query)

    assert [*first.items, *second.items] == reviews[::-1]
    assert second.next_cursor is None
