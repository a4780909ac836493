"""Test idempotency: one effect per key and the same response to each retry, on each storage."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from markethall.shared.composition.context_persistence import ContextPersistence, RetentionJob
from markethall.shared.composition.sql import build_sql_persistence
from markethall.shared.http.idempotent_routes import created_response
from markethall.shared.idempotency.records import (
    IdempotencyRecord,
    IdempotentCommand,
    IdempotentRequest,
    InFlight,
    LeaseLost,
    PayloadMismatch,
    StoredResponse,
)
from markethall.shared.idempotency.service import IdempotencyService
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.errors import (
    DomainError,
    Forbidden,
    MalformedRequest,
    TooManyRequests,
    Unauthenticated,
    Unavailable,
)
from markethall.shared.kernel.ids import new_id
from markethall.shared.persistence.postgres import Postgres, Statement
from markethall.shared.persistence.sql import MAX_PURGED_ROWS
from tests.shared.conftest import STATEMENTS, FakeClock, ProbeSqlStore, Something, ThingHappened

LEASE = timedelta(seconds=15)
RETENTION = timedelta(days=1)
REQUEST = IdempotentRequest("user:1", "POST", "/things", "key-1", {"name": "a", "number": 1})
to_response = created_response(lambda dto: f"/things/{dto.thing_id}")


@pytest.fixture
def idempotency_service(backend: ContextPersistence[Any], clock: FakeClock) -> IdempotencyService:
    return IdempotencyService(backend.idempotency_store, clock, LEASE)


class RecordedEffect:
    """A command that inserts one row. A test can pause it or make it fail."""

    def __init__(self, backend: ContextPersistence[Any]) -> None:
        self._database = backend.database
        self.attempts: list[IdempotentCommand] = []
        self.started = asyncio.Event()
        self.released = asyncio.Event()
        self.released.set()
        self.fails_before: Exception | None = None
        self.fails_inside: Exception | None = None

    async def __call__(self, attempt: IdempotentCommand) -> Something:
        self.attempts.append(attempt)
        self.started.set()
        await self.released.wait()
        if self.fails_before:
            raise self.fails_before
        async with self._database.transaction() as store:
            thing = Something(thing_id=attempt.id, name="a")
            await store.add(str(new_id()))
            if self.fails_inside:
                raise self.fails_inside
            await store.store_response(attempt, thing)
        return thing

    async def count(self) -> int:
        async with self._database.read_session() as store:
            count: int = await store.count()
            return count


@pytest.fixture
def effect(backend: ContextPersistence[Any]) -> RecordedEffect:
    return RecordedEffect(backend)


async def run(
    idempotency_service: IdempotencyService,
    effect: RecordedEffect,
    request: IdempotentRequest = REQUEST,
) -> tuple[StoredResponse, bool]:
    return await idempotency_service.run(request, RETENTION, to_response, effect)


async def test_retry_replays_first_response_without_second_effect(
    idempotency_service: IdempotencyService, effect: RecordedEffect
) -> None:
    first, first_replayed = await run(idempotency_service, effect)
    second, second_replayed = await run(idempotency_service, effect)

    assert (first_replayed, second_replayed) == (False, True)
    assert second == first
    assert (first.status, first.location) == (201, f"/things/{effect.attempts[0].id}")
    assert await effect.count() == 1


async def test_response_is_serialised_once(
    idempotency_service: IdempotencyService, effect: RecordedEffect
) -> None:
    serialised: list[Something] = []

    def count_and_build(thing: Something) -> StoredResponse:
        serialised.append(thing)
        return to_response(thing)

    await idempotency_service.run(REQUEST, RETENTION, count_and_build, effect)

    assert len(serialised) == 1


async def test_second_request_is_in_flight_during_first(
    idempotency_service: IdempotencyService, effect: RecordedEffect
) -> None:
    effect.released.clear()
    first = asyncio.create_task(run(idempotency_service, effect))
    await effect.started.wait()

    with pytest.raises(InFlight) as raised:
        await run(idempotency_service, effect)

    assert 1 <= (raised.value.retry_after or 0) <= LEASE.total_seconds() + 1
    effect.released.set()
    response, _ = await first
    assert await run(idempotency_service, effect) == (response, True)
    assert await effect.count() == 1


async def test_fifty_concurrent_requests_have_one_effect(
    idempotency_service: IdempotencyService, effect: RecordedEffect
) -> None:
    effect.released.clear()
    barrier = asyncio.Barrier(50)

    async def client() -> tuple[StoredResponse, bool]:
        await barrier.wait()
        while True:
            try:
                return await run(idempotency_service, effect)
            except InFlight:
                effect.released.set()
                await asyncio.sleep(0)

    responses = await asyncio.gather(*(client() for _ in range(50)))

    assert len(effect.attempts) == 1
    assert await effect.count() == 1
    assert len({response.body for response, _ in responses}) == 1
    assert sorted(replayed for _, replayed in responses) == [False] + [True] * 49


@pytest.mark.parametrize("payload", [{"name": "b", "number": 1}, {"name": "a"}, None, []])
async def test_key_with_another_payload_is_rejected(
    idempotency_service: IdempotencyService, effect: RecordedEffect, payload: object
) -> None:
    await run(idempotency_service, effect)

    with pytest.raises(PayloadMismatch):
        await run(
            idempotency_service,
            effect,
            IdempotentRequest("user:1", "POST", "/things", "key-1", payload),
        )

    assert await effect.count() == 1


async def test_payload_hash_ignores_field_order(
    idempotency_service: IdempotencyService, effect: RecordedEffect
) -> None:
    await run(idempotency_service, effect)

    reordered = {"number": 1, "name": "a"}
    _, replayed = await run(
        idempotency_service,
        effect,
        IdempotentRequest("user:1", "POST", "/things", "key-1", reordered),
    )

    assert replayed


async def test_key_is_scoped_to_principal_method_and_path(
    idempotency_service: IdempotencyService, effect: RecordedEffect
) -> None:
    payload = REQUEST.payload
    for request in (
        REQUEST,
        IdempotentRequest("user:2", "POST", "/things", "key-1", payload),
        IdempotentRequest("user:1", "PUT", "/things", "key-1", payload),
        IdempotentRequest("user:1", "POST", "/things/1", "key-1", payload),
        IdempotentRequest("user:1", "POST", "/things", "key-2", payload),
        IdempotentRequest("user:1POST", "", "/things", "key-1", payload),
    ):
        _, replayed = await run(idempotency_service, effect, request)

        assert not replayed
    assert await effect.count() == 6


@pytest.mark.parametrize("error", [MalformedRequest("rejected", why="x"), Forbidden(scope="s")])
async def test_permanent_error_is_stored(
    idempotency_service: IdempotencyService, effect: RecordedEffect, error: DomainError
) -> None:
    effect.fails_inside = error
    with pytest.raises(type(error)):
        await run(idempotency_service, effect)
    effect.fails_inside = None

    response, replayed = await run(idempotency_service, effect)

    assert replayed
    assert response.status == error.status
    assert response.content_type == "application/problem+json"
    assert error.code in response.body
    assert len(effect.attempts) == 1
    assert await effect.count() == 0


@pytest.mark.parametrize(
    "error",
    [
        Unavailable(dependency="postgres"),
        Unauthenticated(reason="expired"),
        TooManyRequests(policy="p", retry_after=1),
        ZeroDivisionError("a bug"),
    ],
)
@pytest.mark.parametrize("position", ["fails_before", "fails_inside"])
async def test_other_failure_releases_key_and_keeps_id(
    idempotency_service: IdempotencyService, effect: RecordedEffect, error: Exception, position: str
) -> None:
    setattr(effect, position, error)
    with pytest.raises(type(error)):
        await run(idempotency_service, effect)
    setattr(effect, position, None)

    response, replayed = await run(idempotency_service, effect)

    assert not replayed
    assert response.status == 201
    assert effect.attempts[0].id == effect.attempts[1].id
    assert await effect.count() == 1


async def test_crashed_attempt_is_taken_over_after_lease(
    idempotency_service: IdempotencyService, effect: RecordedEffect, clock: FakeClock
) -> None:
    await crash(idempotency_service, effect)
    with pytest.raises(InFlight):
        await run(idempotency_service, effect)
    clock.forward(seconds=LEASE.total_seconds())

    response, replayed = await run(idempotency_service, effect)

    assert (response.status, replayed) == (201, False)
    assert effect.attempts[0].id == effect.attempts[1].id
    assert await effect.count() == 1


async def test_one_of_many_takes_over_crashed_attempt(
    idempotency_service: IdempotencyService, effect: RecordedEffect, clock: FakeClock
) -> None:
    await crash(idempotency_service, effect)
    clock.forward(seconds=LEASE.total_seconds())
    effect.released.clear()

    async def client() -> tuple[StoredResponse, bool]:
        try:
            return await run(idempotency_service, effect)
        finally:
            finished.append(1)
            if len(finished) == 19:
                effect.released.set()

    finished: list[int] = []
    results = await asyncio.gather(*(client() for _ in range(20)), return_exceptions=True)

    assert sorted(type(result).__name__ for result in results) == ["InFlight"] * 19 + ["tuple"]
    assert await effect.count() == 1


async def test_first_completion_wins_and_second_rolls_back(
    backend: ContextPersistence[Any],
    idempotency_service: IdempotencyService,
    effect: RecordedEffect,
    clock: FakeClock,
) -> None:
    effect.released.clear()
    slow = asyncio.create_task(run(idempotency_service, effect))
    await effect.started.wait()
    clock.forward(seconds=LEASE.total_seconds())
    response, _ = await run(idempotency_service, RecordedEffect(backend))
    effect.released.set()

    with pytest.raises(LeaseLost):
        await slow

    assert await run(idempotency_service, effect) == (response, True)
    assert await effect.count() == 1


async def test_superseded_attempt_does_not_release_new_lease(
    backend: ContextPersistence[Any],
    idempotency_service: IdempotencyService,
    effect: RecordedEffect,
    clock: FakeClock,
) -> None:
    effect.released.clear()
    effect.fails_before = Unavailable(dependency="postgres")
    slow = asyncio.create_task(run(idempotency_service, effect))
    await effect.started.wait()
    clock.forward(seconds=LEASE.total_seconds())
    other = RecordedEffect(backend)
    other.released.clear()
    running = asyncio.create_task(run(idempotency_service, other))
    await other.started.wait()
    effect.released.set()
    with pytest.raises(Unavailable):
        await slow

    with pytest.raises(InFlight):
        await run(idempotency_service, effect)

    other.released.set()
    response, replayed = await running
    assert (response.status, replayed) == (201, False)


async def test_completing_twice_rolls_back_effect(
    backend: ContextPersistence[Any],
    idempotency_service: IdempotencyService,
    effect: RecordedEffect,
) -> None:
    await run(idempotency_service, effect)

    with pytest.raises(LeaseLost) as raised:
        await effect(effect.attempts[0])

    assert (raised.value.status, raised.value.retryable) == (409, True)
    assert await effect.count() == 1


async def test_late_failure_does_not_affect_success(
    idempotency_service: IdempotencyService, effect: RecordedEffect, clock: FakeClock
) -> None:
    async def fail_late(attempt: IdempotentCommand) -> Something:
        clock.forward(seconds=LEASE.total_seconds())
        await run(idempotency_service, effect)
        raise MalformedRequest("too late")

    with pytest.raises(MalformedRequest):
        await idempotency_service.run(REQUEST, RETENTION, to_response, fail_late)

    response, replayed = await run(idempotency_service, effect)
    assert (response.status, replayed) == (201, True)
    assert await effect.count() == 1


async def test_effect_without_key_stores_nothing(effect: RecordedEffect) -> None:
    attempt = IdempotentCommand("", new_id(), RETENTION, to_response)

    await effect(attempt)
    await effect(attempt)

    assert not attempt.has_key
    assert await effect.count() == 2


async def test_key_expires_after_retention(
    backend: ContextPersistence[Any],
    idempotency_service: IdempotencyService,
    effect: RecordedEffect,
    clock: FakeClock,
) -> None:
    await run(idempotency_service, effect)
    clock.forward(days=1)
    purged_before = await backend.idempotency_store.purge(clock())
    _, still_replayed = await run(idempotency_service, effect)
    clock.forward(seconds=1)

    purged_after = await backend.idempotency_store.purge(clock())
    _, replayed = await run(idempotency_service, effect)

    assert (purged_before, still_replayed) == (0, True)
    assert (purged_after, replayed) == (1, False)
    assert await effect.count() == 2


async def test_retention_job_purges_at_intervals(
    backend: ContextPersistence[Any],
    idempotency_service: IdempotencyService,
    effect: RecordedEffect,
    clock: FakeClock,
    ctx: CallContext,
) -> None:
    job = RetentionJob(backend, clock, interval=timedelta(minutes=1))
    await run(idempotency_service, effect)
    async with backend.database.transaction() as store:
        await store.publish(ThingHappened(thing=new_id(), number=1), ctx)
    await job.run_once()
    clock.forward(days=2)

    await job.run_once()

    _, replayed = await run(idempotency_service, effect)
    assert not replayed
    async with backend.outbox.acquire_leadership() as leader:
        assert leader is not None
        assert len(await leader.get_unrelayed(10)) == 1


async def test_purge_runs_in_bounded_batches(probe: Postgres, clock: FakeClock) -> None:
    backend = build_sql_persistence(probe, STATEMENTS, ProbeSqlStore, clock)
    async with probe.read_session() as connection:
        await connection.execute(INSERT_EXPIRED_RECORDS, now=clock())

    first_batch = await backend.idempotency_store.purge(clock())
    clock.forward(minutes=1)
    await RetentionJob(backend, clock, interval=timedelta(minutes=1)).run_once()

    assert first_batch == MAX_PURGED_ROWS
    async with probe.read_session() as connection:
        assert await connection.fetch_value(COUNT_RECORDS) == 0


async def test_record_is_compared_before_takeover(
    backend: ContextPersistence[Any], clock: FakeClock
) -> None:
    record = IdempotencyRecord(scope="s", request_hash="h", id=new_id(), lease_until=clock())
    assert await backend.idempotency_store.claim(record, clock() + RETENTION) is None
    existing = await backend.idempotency_store.claim(
        record.model_copy(update={"id": new_id()}), clock() + RETENTION
    )
    assert existing == record

    first = await backend.idempotency_store.take_over(existing, clock() + LEASE)
    second = await backend.idempotency_store.take_over(existing, clock() + LEASE)

    assert (first, second) == (True, False)


INSERT_EXPIRED_RECORDS = Statement(
    sa.text(
        "INSERT INTO probe.idempotency_record (scope, request_hash, id, lease_until, expires_at)"
        " SELECT n::text, 'h', gen_random_uuid(), w, w - interval '1 second'"
        " FROM generate_series(1, 4500) n, (SELECT CAST(:now AS timestamptz) AS w) AS times"
    ).bindparams(sa.bindparam("now", type_=sa.TIMESTAMP(timezone=True)))
)
COUNT_RECORDS = Statement(sa.text("SELECT count(*) FROM probe.idempotency_record"))


async def crash(idempotency_service: IdempotencyService, effect: RecordedEffect) -> None:
    """Run an attempt that ends without a result, as if the process was killed."""
    effect.released.clear()
    task = asyncio.create_task(run(idempotency_service, effect))
    await effect.started.wait()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    effect.released.set()
    effect.started.clear()
