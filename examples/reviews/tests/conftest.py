"""Fixtures of reviews: the context in memory and on Postgres, its contract over HTTP."""

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from uuid import UUID

import pytest

from markethall.orders.contract import FulfilledLine, OrderCompleted, OrderFulfilled, OrderPlaced
from markethall.shared.composition.settings import ContextSettings, read_one
from markethall.shared.idempotency.records import IdempotentCommand
from markethall.shared.kernel.call_context import Actor, CallContext
from markethall.shared.kernel.ids import new_id
from markethall.shared.kernel.money import Money
from markethall.shared.persistence.postgres import PoolSize, Postgres
from markethall.testing import context_tools, deliver, migrated_database, open_remote
from markethall.users.contract import Customer, UserInactive
from markethall_reviews.container import ReviewsContainer
from markethall_reviews.contract import NewReview, Ratings, ReviewView


class KnownCustomers:
    """A fake of `Users`. All users are active except those in `inactive`."""

    def __init__(self) -> None:
        self.inactive: set[UUID] = set()

    async def get_active_customer(self, ctx: CallContext, user_id: UUID) -> Customer:
        if user_id in self.inactive:
            raise UserInactive
        return Customer(user_id=user_id, email="ada@example.com", full_name="Ada")


@dataclass
class ReviewsApp:
    container: ReviewsContainer
    users: KnownCustomers
    ratings: Ratings

    async def complete_order(self, user_id: UUID, product_id: UUID, *, times: int = 1) -> None:
        """Deliver each event of an order `times` times."""
        for event in order_events(user_id, product_id):
            await deliver("reviews", self.container, event, times=times)

    async def review(self, user_id: UUID, product_id: UUID, rating: int = 5) -> ReviewView:
        ctx = CallContext(actor=Actor(user_id=user_id), request_id="test")
        new_review = NewReview(product_id=product_id, rating=rating, text="Good tea.")
        command = IdempotentCommand.without_key(new_id())
        return await self.container.reviews().create(ctx, new_review, command)


def order_events(
    user_id: UUID, product_id: UUID
) -> tuple[OrderPlaced, OrderFulfilled, OrderCompleted]:
    order_id = new_id()
    return (
        OrderPlaced(order_id=order_id, user_id=user_id, total=Money(amount=100, currency="EUR")),
        OrderFulfilled(
            order_id=order_id,
            reservation_id=new_id(),
            fulfilment_id=new_id(),
            lines=(FulfilledLine(product_id=product_id, quantity=1),),
        ),
        OrderCompleted(order_id=order_id),
    )


@pytest.fixture(scope="session")
def database_url() -> Iterator[str]:
    with migrated_database(["reviews"]) as url:
        yield url


@pytest.fixture(params=["memory", "sql", "remote"])
async def reviews_app(request: pytest.FixtureRequest) -> AsyncIterator[ReviewsApp]:
    async with AsyncExitStack() as stack:
        storage, postgres = "memory", None
        if request.param != "memory":
            storage = "sql"
            postgres = Postgres(request.getfixturevalue("database_url"), PoolSize())
            stack.push_async_callback(postgres.close)
        users = KnownCustomers()
        container = ReviewsContainer(
            settings=read_one(ContextSettings, {"storage": storage}),
            tools=context_tools(postgres=postgres),
            users=users,
        )
        ratings = container.ratings()
        if request.param == "remote":
            remote = open_remote("reviews", container, ["get_rating"])
            ratings = await stack.enter_async_context(remote)
        yield ReviewsApp(container, users, ratings)
