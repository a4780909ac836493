"""Rate limits, counted in the process and in Redis."""

import asyncio
import re
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from markethall.shared.http.rate_limits import (
    CHANGE_PASSWORD,
    GUESTS,
    IMAGES,
    LOGIN,
    ORDER_LOOKUPS,
    RATE_LIMITS,
    REGISTER,
    REQUESTS,
    SEARCHES,
    HitCounter,
    LimitResult,
    ProcessHitCounter,
    RateLimit,
    RateLimiter,
    RedisHitCounter,
    format_limit_field,
    format_policy_field,
    rate_limit_headers,
)
from markethall.shared.kernel.client_network import client_network
from markethall.shared.observability.metrics import REGISTRY
from markethall.shared.persistence.redis_client import RedisClient

NO_REDIS = RedisClient(None)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[RedisClient]:
    """A Redis client with a long timeout, for slow machines."""
    client = RedisClient(redis_url, timeout=30)
    yield client
    await client.close()


@pytest.fixture(params=["process", "redis"])
def counter(request: pytest.FixtureRequest, redis: RedisClient) -> HitCounter:
    return ProcessHitCounter() if request.param == "process" else RedisHitCounter(redis)


@pytest.fixture
def policy() -> RateLimit:
    return RateLimit(f"test-{uuid4().hex}", quota=5, window_seconds=3600)


async def hits(
    counter: HitCounter, policy: RateLimit, count: int, identity: str = "a"
) -> list[LimitResult]:
    return [await counter.hit(policy, identity) for _ in range(count)]


# Both counters


async def test_limit_allows_exact_amount(counter: HitCounter, policy: RateLimit) -> None:
    results = await hits(counter, policy, 8)

    assert [result.allowed for result in results] == [True] * 5 + [False] * 3
    assert [result.remaining for result in results] == [4, 3, 2, 1, 0, 0, 0, 0]
    assert {result.limit for result in results} == {5}


async def test_retry_after_ends_with_window(counter: HitCounter, policy: RateLimit) -> None:
    results = await hits(counter, policy, 6)

    assert all(3590 < result.reset_after_seconds <= 3600 for result in results)
    assert 3590 <= results[-1].retry_after <= 3600


async def test_identities_and_limits_are_separate(counter: HitCounter, policy: RateLimit) -> None:
    other = RateLimit(policy.name + "x", quota=1, window_seconds=3600)
    await hits(counter, policy, 6)

    assert (await counter.hit(policy, "b")).remaining == 4
    assert (await counter.hit(other, "a")).allowed


async def test_concurrent_requests_share_limit(counter: HitCounter, policy: RateLimit) -> None:
    results = await asyncio.gather(*(counter.hit(policy, "a") for _ in range(100)))

    assert sum(result.allowed for result in results) == 5


async def test_any_text_is_a_valid_identity(counter: HitCounter, policy: RateLimit) -> None:
    for identity in ["", "ä\0\n", "\ud800", "long" * 10_000]:
        results = await hits(counter, policy, 6, identity)

        assert [result.allowed for result in results] == [True] * 5 + [False]


async def test_rejections_are_counted(counter: HitCounter, policy: RateLimit) -> None:
    await hits(counter, policy, 7)

    rejected = REGISTRY.get_sample_value("markethall_rate_limited_total", {"policy": policy.name})
    assert rejected == 2


# The counter in the process


MINUTE = RateLimit("minute", quota=10, window_seconds=60)


def count_allowed(counter: ProcessHitCounter, count: int) -> int:
    """Return how many of `count` hits are allowed."""
    return sum(counter.check(MINUTE, "a").allowed for _ in range(count))


def test_window_slides() -> None:
    clock = Clock()
    counter = ProcessHitCounter(clock)
    assert count_allowed(counter, 20) == 10

    clock.now += 60  # the ten hits of the previous window still count in full
    assert count_allowed(counter, 20) == 0
    clock.now += 30  # only half of these hits count
    assert count_allowed(counter, 20) == 5
    clock.now += 15  # a quarter of the old hits (2.5) and the five new hits count
    assert count_allowed(counter, 20) == 3


def test_counters_reset_after_two_idle_windows() -> None:
    clock = Clock()
    counter = ProcessHitCounter(clock)
    count_allowed(counter, 20)

    clock.now += 120

    assert count_allowed(counter, 20) == 10


def test_steady_flow_passes_at_limit_rate() -> None:
    clock = Clock()
    counter = ProcessHitCounter(clock)
    allowed = 0

    for _ in range(60 * 60):
        clock.now += 1
        allowed += count_allowed(counter, 1)

    assert 595 <= allowed <= 610


@pytest.mark.parametrize("elapsed", [0.0, 1.0, 29.0, 59.0, 60.0, 75.5, 90.0, 119.0])
def test_rejection_reports_next_allowed_time(elapsed: float) -> None:
    clock = Clock()
    counter = ProcessHitCounter(clock)
    count_allowed(counter, 10)
    clock.now += elapsed
    count_allowed(counter, 20)
    rejected = counter.check(MINUTE, "a")
    rejected_at = clock.now

    clock.now = rejected_at + rejected.reset_after_seconds - 0.01
    too_early = counter.check(MINUTE, "a")
    clock.now = rejected_at + rejected.reset_after_seconds + 0.01
    in_time = counter.check(MINUTE, "a")

    assert (rejected.allowed, too_early.allowed, in_time.allowed) == (False, False, True)


def test_remaining_matches_allowed_requests() -> None:
    clock = Clock()
    counter = ProcessHitCounter(clock)
    count_allowed(counter, 7)
    clock.now += 77.7

    result = counter.check(MINUTE, "a")

    assert count_allowed(counter, 20) == result.remaining > 0


def test_many_identities_use_bounded_memory() -> None:
    counter = ProcessHitCounter(Clock(), max_identities=100)

    for number in range(1000):
        counter.check(MINUTE, str(number))

    assert len(counter) == 100


def test_active_identity_is_not_evicted() -> None:
    counter = ProcessHitCounter(Clock(), max_identities=100)

    for number in range(1000):
        counter.check(MINUTE, str(number))
        counter.check(MINUTE, "guesser")

    assert not counter.check(MINUTE, "guesser").allowed


def test_identities_expire_with_their_windows() -> None:
    clock = Clock()
    counter = ProcessHitCounter(clock)
    for number in range(1000):
        counter.check(MINUTE, str(number))

    clock.now += 120
    for number in range(1000, 2001):
        counter.check(MINUTE, str(number))

    assert len(counter) == 1001


# The counter in Redis


async def test_processes_share_counters(redis_url: str, policy: RateLimit) -> None:
    clients = [RedisClient(redis_url, timeout=30) for _ in range(2)]

    results = [await RedisHitCounter(clients[number % 2]).hit(policy, "a") for number in range(8)]

    assert [result.allowed for result in results] == [True] * 5 + [False] * 3
    for client in clients:
        await client.close()


async def test_redis_stores_hashed_expiring_identities(
    redis: RedisClient, policy: RateLimit
) -> None:
    await RedisHitCounter(redis).hit(policy, "someone@example.com")

    keys = await redis.execute("KEYS", f"*{policy.name}*")
    assert [re.fullmatch(rb"markethall:limit:test-\w+:[0-9a-f]{32}", key) for key in keys]
    assert 0 < await redis.execute("PTTL", keys[0]) <= 2 * 3600 * 1000


async def test_identity_hash_depends_on_secret(redis: RedisClient, policy: RateLimit) -> None:
    for secret in (b"", b"one", b"two"):
        await RedisHitCounter(redis, secret=secret).hit(policy, "a")

    assert len(await redis.execute("KEYS", f"*{policy.name}*")) == 3


async def test_foreign_redis_value_falls_back_to_process_limit(
    redis: RedisClient, policy: RateLimit
) -> None:
    counter = RedisHitCounter(redis)
    await counter.hit(policy, "a")
    (key,) = await redis.execute("KEYS", f"*{policy.name}*")
    await redis.execute("SET", key, "foreign")

    results = await hits(counter, policy, 8)

    assert [result.allowed for result in results] == [True] * 5 + [False] * 3
    assert redis.breaker.state == "closed"


async def test_redis_and_process_limits_agree(redis: RedisClient) -> None:
    policy = RateLimit(f"test-{uuid4().hex}", quota=10, window_seconds=3600)
    clock = Clock()
    process_counter, redis_counter = ProcessHitCounter(clock), RedisHitCounter(redis)
    await redis_counter.hit(policy, "a")
    process_counter.check(policy, "a")
    (key,) = await redis.execute("KEYS", f"*{policy.name}*")

    for seconds, count in [
        (0, 7),
        (3500, 9),
        (900, 3),
        (1003, 20),
        (700, 20),
        (3500, 4),
        (9000, 12),
    ]:
        clock.now += seconds
        await redis.execute("HINCRBY", key, "start", -1000 * seconds)
        expected = [process_counter.check(policy, "a") for _ in range(count)]
        results = await hits(redis_counter, policy, count)

        assert [result[:3] for result in results] == [result[:3] for result in expected]
        for result, other in zip(results, expected, strict=True):
            assert result.reset_after_seconds == pytest.approx(other.reset_after_seconds, abs=10)


# The limits of a request


@pytest.fixture(params=["process", "redis"])
async def rate_limiter(request: pytest.FixtureRequest, redis: RedisClient) -> RateLimiter:
    return RateLimiter("on", NO_REDIS if request.param == "process" else redis)


@pytest.fixture
def identity() -> str:
    """A unique identity, because tests share a Redis."""
    return uuid4().hex


@pytest.mark.parametrize(
    ("arguments", "policy", "amount"),
    [
        (("POST", "/token", "ip", "{me}"), "requests", 600),
        (("POST", "/users/me/password", "user:{me}", "{n}"), "change-password", 10),
        (("POST", "/users", "ip", "{me}"), "register", 10),
        (("GET", "/products/{n}", "user:{me}", "{n}"), "requests", 600),
        (("GET", "/users", "ip", "{me}"), "requests", 600),
    ],
)
async def test_each_request_has_its_limit(
    rate_limiter: RateLimiter, identity: str, arguments: tuple[str, ...], policy: str, amount: int
) -> None:
    def format_arguments(n: int) -> list[str]:
        return [word.format(me=identity, n=f"{identity}{n}") for word in arguments]

    decisions = [await rate_limiter.check(*format_arguments(n)) for n in range(amount + 3)]

    rejected = [decision.policy for decision in decisions if decision and not decision.allowed]
    assert rejected == [policy] * 3


async def test_files_of_images_do_not_count_as_requests(redis: RedisClient, identity: str) -> None:
    quotas = {"images": RateLimit("images", 2, 60), "requests": RateLimit("requests", 1, 60)}
    rate_limiter = RateLimiter("on", redis, limits={**RATE_LIMITS, **quotas})

    async def policy_of(method: str, path: str) -> tuple[str, bool]:
        decision = await rate_limiter.check(method, path, "ip", identity)
        assert decision is not None
        return decision.policy, decision.allowed

    image = f"/media/{uuid4()}/640.webp"
    assert [await policy_of(method, image) for method in ("GET", "HEAD", "GET")] == [
        ("images", True),
        ("images", True),
        ("images", False),
    ]
    assert await policy_of("GET", f"/media/{uuid4()}") == ("requests", True)
    assert await policy_of("POST", image) == ("requests", False)


async def test_ipv6_network_is_one_client(rate_limiter: RateLimiter, identity: str) -> None:
    network = ":".join(identity[start : start + 4] for start in range(0, 16, 4))

    decisions = [
        await rate_limiter.check("POST", "/users", "", f"{network}::{number:x}")
        for number in range(12)
    ]

    allowed = [decision is not None and decision.allowed for decision in decisions]
    assert allowed == [True] * 10 + [False] * 2


async def test_login_is_limited_by_network(rate_limiter: RateLimiter, identity: str) -> None:
    decisions = [
        await rate_limiter.check("POST", "/token", f"ip:{identity}", identity, is_login=True)
        for _ in range(22)
    ]

    assert [d.allowed for d in decisions if d] == [True] * 20 + [False] * 2
    assert {d.policy for d in decisions if d} == {"login"}


async def test_response_has_headers_of_limit(rate_limiter: RateLimiter, identity: str) -> None:
    decision = await rate_limiter.check("POST", "/token", "", identity, is_login=True)

    assert decision is not None
    assert dict(decision.headers) == {
        b"ratelimit-policy": b'"login";q=20;w=60',
        b"ratelimit": b'"login";r=19;t=60',
    }


async def test_disabled_limits_add_no_headers(redis: RedisClient) -> None:
    assert await RateLimiter("off", redis).check("POST", "/users", "", "10.0.0.1") is None


def test_rate_limit_table() -> None:
    assert set(RATE_LIMITS.values()) == {
        LOGIN,
        CHANGE_PASSWORD,
        REGISTER,
        GUESTS,
        ORDER_LOOKUPS,
        REQUESTS,
        SEARCHES,
        IMAGES,
    }
    assert {name: (limit.quota, limit.window_seconds) for name, limit in RATE_LIMITS.items()} == {
        "login": (20, 60),
        "change-password": (10, 60),
        "register": (10, 60),
        "guests": (30, 60),
        "order-lookups": (10, 60),
        "requests": (600, 60),
        "searches": (120, 60),
        "images": (6000, 60),
    }


# Headers


def test_rate_limit_headers_follow_draft() -> None:
    result = LimitResult(allowed=True, limit=20, remaining=19, reset_after_seconds=41.2)

    assert format_policy_field([LOGIN]) == '"login";q=20;w=60'
    assert format_limit_field([(LOGIN, result)]) == '"login";r=19;t=42'
    assert rate_limit_headers([(LOGIN, result)]) == [
        (b"ratelimit-policy", b'"login";q=20;w=60'),
        (b"ratelimit", b'"login";r=19;t=42'),
    ]


@pytest.mark.parametrize(("seconds", "header"), [(0.0, 1), (0.2, 1), (1.0, 1), (41.2, 42)])
def test_retry_after_is_positive_whole_seconds(seconds: float, header: int) -> None:
    assert LimitResult(False, 1, 0, seconds).retry_after == header


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("::1", "::/64"),
        ("unix:", "unix:"),
        ("", ""),
    ],
)
def test_ipv6_addresses_share_network_limit(address: str, network: str) -> None:
    assert client_network(address) == network
