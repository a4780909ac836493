"""One effect per key, and the one true answer for every retry; in memory and in Postgres."""

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
KEPT = timedelta(days=1)
REQUEST = IdempotentRequest("user:1", "POST", "/things", "key-1", {"name": "a", "number": 1})
present = created_response(lambda dto: f"/things/{dto.thing_id}")


@pytest.fixture
def idempotency_service(backend: ContextPersistence[Any], clock: FakeClock) -> IdempotencyService:
    return IdempotencyService(backend.idempotency_store, clock, LEASE)


class RecordedEffect:
    """An effect that adds one thing and can be told to stop on its way."""

    def __init__(self, backend: ContextPersistence[Any]) -> None:
        self._database = backend.database
        self.attempts: list[IdempotentCommand] = []
        self.begun = asyncio.Event()
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.fails_before: Exception | None = None
        self.fails_inside: Exception | None = None

    async def __call__(self, attempt: IdempotentCommand) -> Something:
        self.attempts.append(attempt)
        self.begun.set()
        await self.go_on.wait()
        if self.fails_before:
            raise self.fails_before
        async with self._database.transaction() as store:
            made = Something(thing_id=attempt.id, name="a")
            await store.add(str(new_id()))
            if self.fails_inside:
                raise self.fails_inside
            await store.store_response(attempt, made)
        return made

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
    return await idempotency_service.run(request, KEPT, present, effect)


async def test_the_first_request_has_its_effect_and_a_retry_gets_the_same_answer(
    idempotency_service: IdempotencyService, effect: RecordedEffect
) -> None:
    first, first_replayed = await run(idempotency_service, effect)
    second, second_replayed = await run(idempotency_service, effect)

    assert (first_replayed, second_replayed) == (False, True)
    assert second == first
    assert (first.status, first.location) == (201, f"/things/{effect.attempts[0].id}")
    assert await effect.count() == 1


async def test_second_request_is_in_flight_during_first(
    idempotency_service: IdempotencyService, effect: RecordedEffect
) -> None:
    effect.go_on.clear()
    first = asyncio.create_task(run(idempotency_service, effect))
    await effect.begun.wait()

    with pytest.raises(InFlight) as refused:
        await run(idempotency_service, effect)

    assert 1 <= (refused.value.retry_after or 0) <= LEASE.total_seconds() + 1
    effect.go_on.set()
    answer, _ = await first
    assert await run(idempotency_service, effect) == (answer, True)
    assert await effect.count() == 1


async def test_fifty_concurrent_requests_have_one_effect(
    idempotency_service: IdempotencyService, effect: RecordedEffect
) -> None:
    effect.go_on.clear()
    together = asyncio.Barrier(50)

    async def client() -> tuple[StoredResponse, bool]:
        await together.wait()
        while True:
            try:
                return await run(idempotency_service, effect)
            except InFlight:
                effect.go_on.set()
                await asyncio.sleep(0)

    answers = await asyncio.gather(*(client() for _ in range(50)))

    assert len(effect.attempts) == 1
    assert await effect.count() == 1
    assert len({answer.body for answer, _ in answers}) == 1
    assert sorted(replayed for _, replayed in answers) == [False] + [True] * 49


@pytest.mark.parametrize("payload", [{"name": "b", "number": 1}, {"name": "a"}, None, []])
async def test_another_payload_under_the_same_key_is_refused(
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

    turned = {"number": 1, "name": "a"}
    _, replayed = await run(
        idempotency_service, effect, IdempotentRequest("user:1", "POST", "/things", "key-1", turned)
    )

    assert replayed


async def test_a_key_belongs_to_one_principal_one_method_and_one_path(
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


@pytest.mark.parametrize(
    "refusal", [MalformedRequest("twice is worse", why="x"), Forbidden(scope="s")]
)
async def test_permanent_error_is_stored(
    idempotency_service: IdempotencyService, effect: RecordedEffect, refusal: DomainError
) -> None:
    effect.fails_inside = refusal
    with pytest.raises(type(refusal)):
        await run(idempotency_service, effect)
    effect.fails_inside = None

    answer, replayed = await run(idempotency_service, effect)

    assert replayed
    assert answer.status == refusal.status
    assert answer.content_type == "application/problem+json"
    assert refusal.code in answer.body
    assert len(effect.attempts) == 1
    assert await effect.count() == 0


@pytest.mark.parametrize(
    "error",
    [
        Unavailable(dependency="postgres"),
        Unauthenticated(reason="expired"),
        TooManyRequests(policy="p", retry_after=1),
        ZeroDivisionError("a fault of ours"),
    ],
)
@pytest.mark.parametrize("where", ["fails_before", "fails_inside"])
async def test_other_failure_releases_key_and_keeps_id(
    idempotency_service: IdempotencyService, effect: RecordedEffect, error: Exception, where: str
) -> None:
    setattr(effect, where, error)
    with pytest.raises(type(error)):
        await run(idempotency_service, effect)
    setattr(effect, where, None)

    answer, replayed = await run(idempotency_service, effect)

    assert not replayed
    assert answer.status == 201
    assert effect.attempts[0].id == effect.attempts[1].id
    assert await effect.count() == 1


async def test_crashed_attempt_is_taken_over_after_lease(
    idempotency_service: IdempotencyService, effect: RecordedEffect, clock: FakeClock
) -> None:
    await crash(idempotency_service, effect)
    with pytest.raises(InFlight):
        await run(idempotency_service, effect)
    clock.forward(seconds=LEASE.total_seconds())

    answer, replayed = await run(idempotency_service, effect)

    assert (answer.status, replayed) == (201, False)
    assert effect.attempts[0].id == effect.attempts[1].id
    assert await effect.count() == 1


async def test_one_of_many_takes_over_crashed_attempt(
    idempotency_service: IdempotencyService, effect: RecordedEffect, clock: FakeClock
) -> None:
    await crash(idempotency_service, effect)
    clock.forward(seconds=LEASE.total_seconds())
    effect.go_on.clear()

    async def client() -> tuple[StoredResponse, bool]:
        try:
            return await run(idempotency_service, effect)
        finally:
            told.append(1)
            if len(told) == 19:
                effect.go_on.set()

    told: list[int] = []
    results = await asyncio.gather(*(client() for _ in range(20)), return_exceptions=True)

    assert sorted(type(result).__name__ for result in results) == ["InFlight"] * 19 + ["tuple"]
    assert await effect.count() == 1


async def test_first_completion_wins_and_second_rolls_back(
    backend: ContextPersistence[Any],
    idempotency_service: IdempotencyService,
    effect: RecordedEffect,
    clock: FakeClock,
) -> None:
    effect.go_on.clear()
    slow = asyncio.create_task(run(idempotency_service, effect))
    await effect.begun.wait()
    clock.forward(seconds=LEASE.total_seconds())
    answer, _ = await run(idempotency_service, RecordedEffect(backend))
    effect.go_on.set()

    with pytest.raises(LeaseLost):
        await slow

    assert await run(idempotency_service, effect) == (answer, True)
    assert await effect.count() == 1


async def test_superseded_attempt_does_not_release_new_lease(
    backend: ContextPersistence[Any],
    idempotency_service: IdempotencyService,
    effect: RecordedEffect,
    clock: FakeClock,
) -> None:
    effect.go_on.clear()
    effect.fails_before = Unavailable(dependency="postgres")
    slow = asyncio.create_task(run(idempotency_service, effect))
    await effect.begun.wait()
    clock.forward(seconds=LEASE.total_seconds())
    other = RecordedEffect(backend)
    other.go_on.clear()
    running = asyncio.create_task(run(idempotency_service, other))
    await other.begun.wait()
    effect.go_on.set()
    with pytest.raises(Unavailable):
        await slow

    with pytest.raises(InFlight):
        await run(idempotency_service, effect)

    other.go_on.set()
    answer, replayed = await running
    assert (answer.status, replayed) == (201, False)


async def test_completing_twice_rolls_back_effect(
    backend: ContextPersistence[Any],
    idempotency_service: IdempotencyService,
    effect: RecordedEffect,
) -> None:
    await run(idempotency_service, effect)

    with pytest.raises(LeaseLost) as refused:
        await effect(effect.attempts[0])

    assert (refused.value.status, refused.value.retryable) == (409, True)
    assert await effect.count() == 1


async def test_late_failure_does_not_affect_success(
    idempotency_service: IdempotencyService, effect: RecordedEffect, clock: FakeClock
) -> None:
    async def fail_late(attempt: IdempotentCommand) -> Something:
        clock.forward(seconds=LEASE.total_seconds())
        await run(idempotency_service, effect)
        raise MalformedRequest("too late")

    with pytest.raises(MalformedRequest):
        await idempotency_service.run(REQUEST, KEPT, present, fail_late)

    answer, replayed = await run(idempotency_service, effect)
    assert (answer.status, replayed) == (201, True)
    assert await effect.count() == 1


async def test_effect_without_key_stores_nothing(effect: RecordedEffect) -> None:
    attempt = IdempotentCommand("", new_id(), KEPT, present)

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
    kept = await backend.idempotency_store.purge(clock())
    _, still_replayed = await run(idempotency_service, effect)
    clock.forward(seconds=1)

    forgotten = await backend.idempotency_store.purge(clock())
    _, replayed = await run(idempotency_service, effect)

    assert (kept, still_replayed) == (0, True)
    assert (forgotten, replayed) == (1, False)
    assert await effect.count() == 2


async def test_retention_job_purges_at_intervals(
    backend: ContextPersistence[Any],
    idempotency_service: IdempotencyService,
    effect: RecordedEffect,
    clock: FakeClock,
    ctx: CallContext,
) -> None:
    house = RetentionJob(backend, clock, interval=timedelta(minutes=1))
    await run(idempotency_service, effect)
    async with backend.database.transaction() as store:
        await store.publish(ThingHappened(thing=new_id(), number=1), ctx)
    await house.run_once()
    clock.forward(days=2)

    await house.run_once()

    _, replayed = await run(idempotency_service, effect)
    assert not replayed
    async with backend.outbox.acquire_leadership() as leader:
        assert leader is not None
        assert len(await leader.get_unpublished(10)) == 1


async def test_purge_runs_in_bounded_batches(probe: Postgres, clock: FakeClock) -> None:
    backend = build_sql_persistence(probe, STATEMENTS, ProbeSqlStore, clock)
    async with probe.read_session() as connection:
        await connection.execute(EXPIRED, now=clock())

    at_once = await backend.idempotency_store.purge(clock())
    clock.forward(minutes=1)
    await RetentionJob(backend, clock, interval=timedelta(minutes=1)).run_once()

    assert at_once == MAX_PURGED_ROWS
    async with probe.read_session() as connection:
        assert await connection.fetch_value(KEYS) == 0


async def test_record_is_compared_before_takeover(
    backend: ContextPersistence[Any], clock: FakeClock
) -> None:
    mine = IdempotencyRecord(scope="s", request_hash="h", id=new_id(), lease_until=clock())
    assert await backend.idempotency_store.claim(mine, clock() + KEPT) is None
    standing = await backend.idempotency_store.claim(
        mine.model_copy(update={"id": new_id()}), clock() + KEPT
    )
    assert standing == mine

    first = await backend.idempotency_store.take_over(standing, clock() + LEASE)
    second = await backend.idempotency_store.take_over(standing, clock() + LEASE)

    assert (first, second) == (True, False)


EXPIRED = Statement(
    sa.text(
        "INSERT INTO probe.idempotency_record (scope, request_hash, id, lease_until, expires_at)"
        " SELECT n::text, 'h', gen_random_uuid(), w, w - interval '1 second'"
        " FROM generate_series(1, 4500) n, (SELECT CAST(:now AS timestamptz) AS w) AS times"
    ).bindparams(sa.bindparam("now", type_=sa.TIMESTAMP(timezone=True)))
)
KEYS = Statement(sa.text("SELECT count(*) FROM probe.idempotency_record"))


async def crash(idempotency_service: IdempotencyService, effect: RecordedEffect) -> None:
    """An attempt that ended without a word, as by kill -9."""
    effect.go_on.clear()
    task = asyncio.create_task(run(idempotency_service, effect))
    await effect.begun.wait()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    effect.go_on.set()
    effect.begun.clear()
