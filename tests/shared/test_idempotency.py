"""One effect per key, and the one true answer for every retry; in memory and in Postgres."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from markethall.shared.backend import Backend, Housekeeping
from markethall.shared.call import Call
from markethall.shared.db import Postgres, Statement
from markethall.shared.errors import (
    Forbidden,
    Malformed,
    Refusal,
    TooManyRequests,
    Unauthenticated,
    Unavailable,
)
from markethall.shared.http import created
from markethall.shared.idempotency import (
    Answer,
    Attempt,
    Claim,
    InFlight,
    Keys,
    LeaseLost,
    PayloadMismatch,
    Request,
)
from markethall.shared.ids import new_id
from markethall.shared.sql import PURGED_AT_ONCE, sql_backend
from tests.shared.conftest import STATEMENTS, ProbeSqlStore, Something, ThingHappened, Watch

LEASE = timedelta(seconds=15)
KEPT = timedelta(days=1)
REQUEST = Request("user:1", "POST", "/things", "key-1", {"name": "a", "number": 1})
present = created(lambda dto: f"/things/{dto.thing_id}")


@pytest.fixture
def keys(backend: Backend[Any], watch: Watch) -> Keys:
    return Keys(backend.claims, watch, LEASE)


class Making:
    """An effect that adds one thing and can be told to stop on its way."""

    def __init__(self, backend: Backend[Any]) -> None:
        self._database = backend.database
        self.attempts: list[Attempt] = []
        self.begun = asyncio.Event()
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.fails_before: Exception | None = None
        self.fails_inside: Exception | None = None

    async def __call__(self, attempt: Attempt) -> Something:
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
            await store.finish(attempt, made)
        return made

    async def count(self) -> int:
        async with self._database.reading() as store:
            count: int = await store.count()
            return count


@pytest.fixture
def making(backend: Backend[Any]) -> Making:
    return Making(backend)


async def run(keys: Keys, making: Making, request: Request = REQUEST) -> tuple[Answer, bool]:
    return await keys.once(request, KEPT, present, making)


async def test_the_first_request_has_its_effect_and_a_retry_gets_the_same_answer(
    keys: Keys, making: Making
) -> None:
    first, first_replayed = await run(keys, making)
    second, second_replayed = await run(keys, making)

    assert (first_replayed, second_replayed) == (False, True)
    assert second == first
    assert (first.status, first.location) == (201, f"/things/{making.attempts[0].id}")
    assert await making.count() == 1


async def test_while_the_first_runs_a_second_is_told_to_wait(keys: Keys, making: Making) -> None:
    making.go_on.clear()
    first = asyncio.create_task(run(keys, making))
    await making.begun.wait()

    with pytest.raises(InFlight) as refused:
        await run(keys, making)

    assert 1 <= (refused.value.retry_after or 0) <= LEASE.total_seconds() + 1
    making.go_on.set()
    answer, _ = await first
    assert await run(keys, making) == (answer, True)
    assert await making.count() == 1


async def test_fifty_at_once_have_one_effect_and_one_answer(keys: Keys, making: Making) -> None:
    making.go_on.clear()
    together = asyncio.Barrier(50)

    async def client() -> tuple[Answer, bool]:
        await together.wait()
        while True:
            try:
                return await run(keys, making)
            except InFlight:
                making.go_on.set()
                await asyncio.sleep(0)

    answers = await asyncio.gather(*(client() for _ in range(50)))

    assert len(making.attempts) == 1
    assert await making.count() == 1
    assert len({answer.body for answer, _ in answers}) == 1
    assert sorted(replayed for _, replayed in answers) == [False] + [True] * 49


@pytest.mark.parametrize("payload", [{"name": "b", "number": 1}, {"name": "a"}, None, []])
async def test_another_payload_under_the_same_key_is_refused(
    keys: Keys, making: Making, payload: object
) -> None:
    await run(keys, making)

    with pytest.raises(PayloadMismatch):
        await run(keys, making, Request("user:1", "POST", "/things", "key-1", payload))

    assert await making.count() == 1


async def test_the_same_payload_in_another_order_is_the_same(keys: Keys, making: Making) -> None:
    await run(keys, making)

    turned = {"number": 1, "name": "a"}
    _, replayed = await run(keys, making, Request("user:1", "POST", "/things", "key-1", turned))

    assert replayed


async def test_a_key_belongs_to_one_principal_one_method_and_one_path(
    keys: Keys, making: Making
) -> None:
    payload = REQUEST.payload
    for request in (
        REQUEST,
        Request("user:2", "POST", "/things", "key-1", payload),
        Request("user:1", "PUT", "/things", "key-1", payload),
        Request("user:1", "POST", "/things/1", "key-1", payload),
        Request("user:1", "POST", "/things", "key-2", payload),
        Request("user:1POST", "", "/things", "key-1", payload),
    ):
        _, replayed = await run(keys, making, request)

        assert not replayed
    assert await making.count() == 6


@pytest.mark.parametrize("refusal", [Malformed("twice is worse", why="x"), Forbidden(scope="s")])
async def test_a_refusal_that_would_be_repeated_is_an_answer_like_another(
    keys: Keys, making: Making, refusal: Refusal
) -> None:
    making.fails_inside = refusal
    with pytest.raises(type(refusal)):
        await run(keys, making)
    making.fails_inside = None

    answer, replayed = await run(keys, making)

    assert replayed
    assert answer.status == refusal.status
    assert answer.content_type == "application/problem+json"
    assert refusal.code in answer.body
    assert len(making.attempts) == 1
    assert await making.count() == 0


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
async def test_after_any_other_failure_the_key_can_be_tried_again_at_once_with_the_same_id(
    keys: Keys, making: Making, error: Exception, where: str
) -> None:
    setattr(making, where, error)
    with pytest.raises(type(error)):
        await run(keys, making)
    setattr(making, where, None)

    answer, replayed = await run(keys, making)

    assert not replayed
    assert answer.status == 201
    assert making.attempts[0].id == making.attempts[1].id
    assert await making.count() == 1


async def test_a_crashed_attempt_is_taken_over_after_its_lease_with_the_same_id(
    keys: Keys, making: Making, watch: Watch
) -> None:
    await crash(keys, making)
    with pytest.raises(InFlight):
        await run(keys, making)
    watch.forward(seconds=LEASE.total_seconds())

    answer, replayed = await run(keys, making)

    assert (answer.status, replayed) == (201, False)
    assert making.attempts[0].id == making.attempts[1].id
    assert await making.count() == 1


async def test_only_one_of_many_takes_a_crashed_attempt_over(
    keys: Keys, making: Making, watch: Watch
) -> None:
    await crash(keys, making)
    watch.forward(seconds=LEASE.total_seconds())
    making.go_on.clear()

    async def client() -> tuple[Answer, bool]:
        try:
            return await run(keys, making)
        finally:
            told.append(1)
            if len(told) == 19:
                making.go_on.set()

    told: list[int] = []
    results = await asyncio.gather(*(client() for _ in range(20)), return_exceptions=True)

    assert sorted(type(result).__name__ for result in results) == ["InFlight"] * 19 + ["tuple"]
    assert await making.count() == 1


async def test_when_two_attempts_finish_the_first_wins_and_the_other_leaves_no_trace(
    backend: Backend[Any], keys: Keys, making: Making, watch: Watch
) -> None:
    making.go_on.clear()
    slow = asyncio.create_task(run(keys, making))
    await making.begun.wait()
    watch.forward(seconds=LEASE.total_seconds())
    answer, _ = await run(keys, Making(backend))
    making.go_on.set()

    with pytest.raises(LeaseLost):
        await slow

    assert await run(keys, making) == (answer, True)
    assert await making.count() == 1


async def test_an_attempt_that_was_taken_over_does_not_hand_back_the_lease_of_the_other(
    backend: Backend[Any], keys: Keys, making: Making, watch: Watch
) -> None:
    making.go_on.clear()
    making.fails_before = Unavailable(dependency="postgres")
    slow = asyncio.create_task(run(keys, making))
    await making.begun.wait()
    watch.forward(seconds=LEASE.total_seconds())
    other = Making(backend)
    other.go_on.clear()
    running = asyncio.create_task(run(keys, other))
    await other.begun.wait()
    making.go_on.set()
    with pytest.raises(Unavailable):
        await slow

    with pytest.raises(InFlight):
        await run(keys, making)

    other.go_on.set()
    answer, replayed = await running
    assert (answer.status, replayed) == (201, False)


async def test_finishing_a_key_that_is_finished_already_rolls_the_effect_back(
    backend: Backend[Any], keys: Keys, making: Making
) -> None:
    await run(keys, making)

    with pytest.raises(LeaseLost) as refused:
        await making(making.attempts[0])

    assert (refused.value.status, refused.value.retryable) == (409, True)
    assert await making.count() == 1


async def test_an_attempt_that_fails_late_takes_nothing_from_the_one_that_succeeded(
    keys: Keys, making: Making, watch: Watch
) -> None:
    async def fail_late(attempt: Attempt) -> Something:
        watch.forward(seconds=LEASE.total_seconds())
        await run(keys, making)
        raise Malformed("too late")

    with pytest.raises(Malformed):
        await keys.once(REQUEST, KEPT, present, fail_late)

    answer, replayed = await run(keys, making)
    assert (answer.status, replayed) == (201, True)
    assert await making.count() == 1


async def test_an_effect_without_a_key_keeps_nothing(making: Making) -> None:
    attempt = Attempt("", new_id(), KEPT, present)

    await making(attempt)
    await making(attempt)

    assert not attempt.keyed
    assert await making.count() == 2


async def test_a_key_is_kept_for_its_time_and_then_forgotten(
    backend: Backend[Any], keys: Keys, making: Making, watch: Watch
) -> None:
    await run(keys, making)
    watch.forward(days=1)
    kept = await backend.claims.purge(watch())
    _, still_replayed = await run(keys, making)
    watch.forward(seconds=1)

    forgotten = await backend.claims.purge(watch())
    _, replayed = await run(keys, making)

    assert (kept, still_replayed) == (0, True)
    assert (forgotten, replayed) == (1, False)
    assert await making.count() == 2


async def test_housekeeping_forgets_keys_and_events_but_not_each_time_it_is_asked(
    backend: Backend[Any], keys: Keys, making: Making, watch: Watch, call: Call
) -> None:
    house = Housekeeping(backend, watch, every=timedelta(minutes=1))
    await run(keys, making)
    async with backend.database.transaction() as store:
        await store.publish(ThingHappened(thing=new_id(), number=1), call)
    await house.sweep()
    watch.forward(days=2)

    await house.sweep()

    _, replayed = await run(keys, making)
    assert not replayed
    async with backend.outbox.lead() as lead:
        assert lead is not None
        assert len(await lead.unpublished(10)) == 1


async def test_a_long_backlog_is_forgotten_in_statements_of_bounded_length(
    probe: Postgres, watch: Watch
) -> None:
    backend = sql_backend(probe, STATEMENTS, ProbeSqlStore, watch)
    async with probe.reading() as session:
        await session.run(EXPIRED, now=watch())

    at_once = await backend.claims.purge(watch())
    watch.forward(minutes=1)
    await Housekeeping(backend, watch, every=timedelta(minutes=1)).sweep()

    assert at_once == PURGED_AT_ONCE
    async with probe.reading() as session:
        assert await session.value(KEYS) == 0


async def test_a_claim_is_compared_before_it_is_taken_over(
    backend: Backend[Any], watch: Watch
) -> None:
    mine = Claim(scope="s", request_hash="h", id=new_id(), lease_until=watch())
    assert await backend.claims.claim(mine, watch() + KEPT) is None
    standing = await backend.claims.claim(mine.model_copy(update={"id": new_id()}), watch() + KEPT)
    assert standing == mine

    first = await backend.claims.take_over(standing, watch() + LEASE)
    second = await backend.claims.take_over(standing, watch() + LEASE)

    assert (first, second) == (True, False)


EXPIRED = Statement(
    sa.text(
        "INSERT INTO probe.idempotency_key (scope, request_hash, id, lease_until, expires_at)"
        " SELECT n::text, 'h', gen_random_uuid(), w, w - interval '1 second'"
        " FROM generate_series(1, 4500) n, (SELECT CAST(:now AS timestamptz) AS w) AS times"
    ).bindparams(sa.bindparam("now", type_=sa.TIMESTAMP(timezone=True)))
)
KEYS = Statement(sa.text("SELECT count(*) FROM probe.idempotency_key"))


async def crash(keys: Keys, making: Making) -> None:
    """An attempt that ended without a word, as by kill -9."""
    making.go_on.clear()
    task = asyncio.create_task(run(keys, making))
    await making.begun.wait()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    making.go_on.set()
    making.begun.clear()
