"""The implementations of reviews."""

from functools import cached_property

from markethall.shared.composition.container import ContextContainer, ContextTools, Counter
from markethall.shared.composition.context_persistence import ContextPersistence
from markethall.shared.composition.memory import MemoryDatabase, build_memory_persistence
from markethall.shared.composition.settings import ContextSettings
from markethall.shared.composition.sql import SqlDatabase, build_sql_persistence
from markethall.shared.persistence.database import Database
from markethall.shared.persistence.postgres import Postgres
from markethall.users.contract import Users
from markethall_reviews.contract import Ratings, ReviewApi
from markethall_reviews.memory import MemoryReviewStore, Tables
from markethall_reviews.ports import ReadStore, Store
from markethall_reviews.service import RatingService, ReviewEventHandlers, ReviewService
from markethall_reviews.sql import STATEMENTS, SqlReviewStore


class ReviewsContainer(ContextContainer[ContextSettings]):
    def __init__(self, settings: ContextSettings, tools: ContextTools, *, users: Users) -> None:
        super().__init__(settings, tools)
        self._users = users

    def build_memory_persistence(
        self,
    ) -> ContextPersistence[MemoryDatabase[Tables, MemoryReviewStore]]:
        return build_memory_persistence(Tables(), MemoryReviewStore, self.clock)

    def build_sql_persistence(
        self, postgres: Postgres
    ) -> ContextPersistence[SqlDatabase[SqlReviewStore]]:
        return build_sql_persistence(postgres, STATEMENTS, SqlReviewStore, self.clock)

    @cached_property
    def database(self) -> Database[ReadStore, Store]:
        database: Database[ReadStore, Store] = self.persistence.database
        return database

    @cached_property
    def reviews(self) -> ReviewApi:
        return ReviewService(self._users, self.database, self.cursors, self.clock)

    @cached_property
    def ratings(self) -> Ratings:
        return RatingService(self.database)

    @cached_property
    def event_handlers(self) -> ReviewEventHandlers:
        return ReviewEventHandlers(self.database)

    @property
    def counters(self) -> dict[str, Counter]:
        return {"review_count": self.reviews.count}
