"""Test that a transaction adds to the metrics only if it commits, on each storage."""

from contextlib import suppress
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Counter

from markethall.shared.composition.context_persistence import ContextPersistence, EventCounters
from markethall.shared.composition.memory import build_memory_persistence
from markethall.shared.composition.sql import build_sql_persistence
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.errors import MalformedRequest
from markethall.shared.kernel.ids import new_id
from markethall.shared.persistence.postgres import Postgres
from tests.shared.conftest import (
    STATEMENTS,
    FakeClock,
    ProbeMemoryStore,
    ProbeSqlStore,
    ProbeTables,
    ThingHappened,
)

Values = tuple[float | None, float | None]


class Counters:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.events = Counter("events", "Events.", registry=self.registry)
        self.amount = Counter("amount", "Amount.", registry=self.registry)

    def read(self) -> Values:
        values = self.registry.get_sample_value
        return values("events_total"), values("amount_total")


@pytest.fixture
def counters() -> Counters:
    return Counters()


@pytest.fixture(params=["memory", "sql"])
def persistence(
    request: pytest.FixtureRequest, clock: FakeClock, probe: Postgres, counters: Counters
) -> ContextPersistence[Any]:
    by_type: EventCounters = {ThingHappened: counters.events}
    if request.param == "memory":
        return build_memory_persistence(ProbeTables(), ProbeMemoryStore, clock, by_type)
    return build_sql_persistence(probe, STATEMENTS, ProbeSqlStore, clock, by_type)


async def test_counts_are_added_after_the_commit(
    persistence: ContextPersistence[Any], counters: Counters, ctx: CallContext
) -> None:
    async with persistence.database.transaction() as store:
        await store.publish(ThingHappened(thing=new_id(), number=1), ctx)
        store.count_on_commit(counters.amount, 250)
        during = counters.read()

    assert during == (0, 0)
    assert counters.read() == (1, 250)


async def test_transaction_that_rolls_back_counts_nothing(
    persistence: ContextPersistence[Any], counters: Counters, ctx: CallContext
) -> None:
    with suppress(MalformedRequest):
        async with persistence.database.transaction() as store:
            await store.publish(ThingHappened(thing=new_id(), number=1), ctx)
            store.count_on_commit(counters.amount, 250)
            raise MalformedRequest

    assert counters.read() == (0, 0)
