"""The dependency container of reviews: it builds stores, use cases and event handlers."""

from collections.abc import Mapping

from dependency_injector import providers

from markethall.shared.composition.container import ContextContainer, Counter, build_idempotency
from markethall.shared.composition.context_persistence import ContextPersistence, database_of
from markethall.shared.composition.memory import MemoryDatabase, build_memory_persistence
from markethall.shared.composition.providers import by_storage, singleton
from markethall.shared.composition.settings import ContextSettings
from markethall.shared.composition.sql import SqlDatabase, build_sql_persistence
from markethall.shared.kernel.clock import Clock
from markethall.shared.persistence.database import Database
from markethall.shared.persistence.postgres import Postgres
from markethall.users.contract import Users
from markethall_reviews.contract import Ratings, ReviewApi
from markethall_reviews.memory import MemoryReviewStore, Tables
from markethall_reviews.ports import ReadStore, Store
from markethall_reviews.service import RatingService, ReviewEventHandlers, ReviewService
from markethall_reviews.sql import STATEMENTS, SqlReviewStore


def _memory_persistence(
    clock: Clock,
) -> ContextPersistence[MemoryDatabase[Tables, MemoryReviewStore]]:
    return build_memory_persistence(Tables(), MemoryReviewStore, clock)


def _sql_persistence(
    postgres: Postgres, clock: Clock
) -> ContextPersistence[SqlDatabase[SqlReviewStore]]:
    return build_sql_persistence(postgres, STATEMENTS, SqlReviewStore, clock)


def _counters(reviews: ReviewApi) -> Mapping[str, Counter]:
    return {"review_count": reviews.count}


class ReviewsContainer(ContextContainer):
    settings: providers.Dependency[ContextSettings] = providers.Dependency(
        instance_of=ContextSettings
    )
    users: providers.Dependency[Users] = providers.Dependency()
    clock, cursors = ContextContainer.clock, ContextContainer.cursors

    persistence: providers.Selector[ContextPersistence[Database[ReadStore, Store]]] = by_storage(
        settings,
        memory=singleton(_memory_persistence, clock),
        sql=singleton(_sql_persistence, ContextContainer.postgres, clock),
    )
    database: providers.Singleton[Database[ReadStore, Store]] = singleton(database_of, persistence)
    idempotency = singleton(build_idempotency, persistence, settings, clock)

    reviews: providers.Singleton[ReviewApi] = singleton(
        ReviewService, users, database, cursors, clock
    )
    ratings: providers.Singleton[Ratings] = singleton(RatingService, database)
    event_handlers: providers.Singleton[ReviewEventHandlers] = singleton(
        ReviewEventHandlers, database
    )
    counters = singleton(_counters, reviews)
