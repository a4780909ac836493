"""Rate limits: one suite for the process and for Redis, then what each has of its own."""

import asyncio
import re
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from markethall.shared.http.rate_limits import (
    LOGIN,
    LOGIN_ACCOUNT,
    RATE_LIMITS,
    REGISTER,
    REQUESTS,
    HitCounter,
    LimitResult,
    ProcessHitCounter,
    RateLimit,
    RateLimiter,
    RedisHitCounter,
    client_network,
    format_limit_field,
    format_policy_field,
    rate_limit_headers,
)
from markethall.shared.observability.metrics import REGISTRY
from markethall.shared.persistence.redis_client import RedisClient

NOWHERE = RedisClient(None)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[RedisClient]:
    """The timeout is long: a slow test machine is not a fault."""
    client = RedisClient(redis_url, timeout=30)
    yield client
    await client.close()


@pytest.fixture(params=["process", "redis"])
def limiter(request: pytest.FixtureRequest, redis: RedisClient) -> HitCounter:
    return ProcessHitCounter() if request.param == "process" else RedisHitCounter(redis)


@pytest.fixture
def policy() -> RateLimit:
    return RateLimit(f"test-{uuid4().hex}", quota=5, window_seconds=3600)


async def hits(
    limiter: HitCounter, policy: RateLimit, count: int, who: str = "a"
) -> list[LimitResult]:
    return [await limiter.hit(policy, who) for _ in range(count)]


# both


async def test_limit_allows_exact_amount(limiter: HitCounter, policy: RateLimit) -> None:
    verdicts = await hits(limiter, policy, 8)

    assert [verdict.allowed for verdict in verdicts] == [True] * 5 + [False] * 3
    assert [verdict.remaining for verdict in verdicts] == [4, 3, 2, 1, 0, 0, 0, 0]
    assert {verdict.limit for verdict in verdicts} == {5}


async def test_retry_after_ends_with_window(limiter: HitCounter, policy: RateLimit) -> None:
    verdicts = await hits(limiter, policy, 6)

    assert all(3590 < verdict.reset_after_seconds <= 3600 for verdict in verdicts)
    assert 3590 <= verdicts[-1].retry_after <= 3600


async def test_identities_and_limits_are_separate(limiter: HitCounter, policy: RateLimit) -> None:
    other = RateLimit(policy.name + "x", quota=1, window_seconds=3600)
    await hits(limiter, policy, 6)

    assert (await limiter.hit(policy, "b")).remaining == 4
    assert (await limiter.hit(other, "a")).allowed


async def test_concurrent_requests_share_limit(limiter: HitCounter, policy: RateLimit) -> None:
    verdicts = await asyncio.gather(*(limiter.hit(policy, "a") for _ in range(100)))

    assert sum(verdict.allowed for verdict in verdicts) == 5


async def test_any_text_is_a_valid_identity(limiter: HitCounter, policy: RateLimit) -> None:
    for who in ["", "ä\0\n", "\ud800", "long" * 10_000]:
        verdicts = await hits(limiter, policy, 6, who)

        assert [verdict.allowed for verdict in verdicts] == [True] * 5 + [False]


async def test_rejections_are_counted(limiter: HitCounter, policy: RateLimit) -> None:
    await hits(limiter, policy, 7)

    refused = REGISTRY.get_sample_value("markethall_rate_limited_total", {"policy": policy.name})
    assert refused == 2


# in the process, by a clock that only the test moves


MINUTE = RateLimit("minute", quota=10, window_seconds=60)


def judge(limiter: ProcessHitCounter, count: int) -> int:
    """How many of so many hits are allowed."""
    return sum(limiter.check(MINUTE, "a").allowed for _ in range(count))


def test_the_window_slides() -> None:
    clock = Clock()
    limiter = ProcessHitCounter(clock)
    assert judge(limiter, 20) == 10

    clock.now += 60  # the ten before still count in full
    assert judge(limiter, 20) == 0
    clock.now += 30  # half of them do
    assert judge(limiter, 20) == 5
    clock.now += 15  # a quarter: 2.5, and the five
    assert judge(limiter, 20) == 3


def test_counters_reset_after_two_idle_windows() -> None:
    clock = Clock()
    limiter = ProcessHitCounter(clock)
    judge(limiter, 20)

    clock.now += 120

    assert judge(limiter, 20) == 10


def test_steady_flow_passes_at_limit_rate() -> None:
    clock = Clock()
    limiter = ProcessHitCounter(clock)
    allowed = 0

    for _ in range(60 * 60):
        clock.now += 1
        allowed += judge(limiter, 1)

    assert 595 <= allowed <= 610


@pytest.mark.parametrize("spent", [0.0, 1.0, 29.0, 59.0, 60.0, 75.5, 90.0, 119.0])
def test_rejection_reports_next_allowed_time(spent: float) -> None:
    clock = Clock()
    limiter = ProcessHitCounter(clock)
    judge(limiter, 10)
    clock.now += spent
    judge(limiter, 20)
    refused = limiter.check(MINUTE, "a")
    asked_at = clock.now

    clock.now = asked_at + refused.reset_after_seconds - 0.01
    early = limiter.check(MINUTE, "a")
    clock.now = asked_at + refused.reset_after_seconds + 0.01
    due = limiter.check(MINUTE, "a")

    assert (refused.allowed, early.allowed, due.allowed) == (False, False, True)


def test_remaining_matches_allowed_requests() -> None:
    clock = Clock()
    limiter = ProcessHitCounter(clock)
    judge(limiter, 7)
    clock.now += 77.7

    verdict = limiter.check(MINUTE, "a")

    assert judge(limiter, 20) == verdict.remaining > 0


def test_many_identities_use_bounded_memory() -> None:
    limiter = ProcessHitCounter(Clock(), max_identities=100)

    for number in range(1000):
        limiter.check(MINUTE, str(number))

    assert len(limiter) == 100


def test_active_identity_is_not_evicted() -> None:
    limiter = ProcessHitCounter(Clock(), max_identities=100)

    for number in range(1000):
        limiter.check(MINUTE, str(number))
        limiter.check(MINUTE, "guesser")

    assert not limiter.check(MINUTE, "guesser").allowed


def test_identities_expire_with_their_windows() -> None:
    clock = Clock()
    limiter = ProcessHitCounter(clock)
    for number in range(1000):
        limiter.check(MINUTE, str(number))

    clock.now += 120
    for number in range(1000, 2001):
        limiter.check(MINUTE, str(number))

    assert len(limiter) == 1001


# in Redis


async def test_processes_share_counters(redis_url: str, policy: RateLimit) -> None:
    clients = [RedisClient(redis_url, timeout=30) for _ in range(2)]

    verdicts = [await RedisHitCounter(clients[number % 2]).hit(policy, "a") for number in range(8)]

    assert [verdict.allowed for verdict in verdicts] == [True] * 5 + [False] * 3
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
    limiter = RedisHitCounter(redis)
    await limiter.hit(policy, "a")
    (key,) = await redis.execute("KEYS", f"*{policy.name}*")
    await redis.execute("SET", key, "foreign")

    verdicts = await hits(limiter, policy, 8)

    assert [verdict.allowed for verdict in verdicts] == [True] * 5 + [False] * 3
    assert redis.breaker.state == "closed"


async def test_redis_and_process_limits_agree(redis: RedisClient) -> None:
    policy = RateLimit(f"test-{uuid4().hex}", quota=10, window_seconds=3600)
    clock = Clock()
    here, there = ProcessHitCounter(clock), RedisHitCounter(redis)
    await there.hit(policy, "a")
    here.check(policy, "a")
    (key,) = await redis.execute("KEYS", f"*{policy.name}*")

    for passed, count in [
        (0, 7),
        (3500, 9),
        (900, 3),
        (1003, 20),
        (700, 20),
        (3500, 4),
        (9000, 12),
    ]:
        clock.now += passed
        await redis.execute("HINCRBY", key, "start", -1000 * passed)
        expected = [here.check(policy, "a") for _ in range(count)]
        verdicts = await hits(there, policy, count)

        assert [verdict[:3] for verdict in verdicts] == [verdict[:3] for verdict in expected]
        for verdict, other in zip(verdicts, expected, strict=True):
            assert verdict.reset_after_seconds == pytest.approx(other.reset_after_seconds, abs=10)


# what holds for which request


@pytest.fixture(params=["process", "redis"])
async def limits(request: pytest.FixtureRequest, redis: RedisClient) -> RateLimiter:
    return RateLimiter("on", NOWHERE if request.param == "process" else redis)


@pytest.fixture
def identity() -> str:
    """A name or address that no other test has, so that they may share a Redis."""
    return uuid4().hex


@pytest.mark.parametrize(
    ("words", "policy", "amount"),
    [
        (("POST", "/token", "ip", "{me}", "{n}"), "login", 20),
        (("POST", "/token", "ip", "{n}", "{me}"), "login-account", 10),
        (("POST", "/users", "ip", "{me}", ""), "register", 10),
        (("GET", "/products/{n}", "user:{me}", "{n}", ""), "requests", 600),
        (("GET", "/users", "ip", "{me}", ""), "requests", 600),
    ],
)
async def test_each_kind_of_request_has_its_limit(
    limits: RateLimiter, identity: str, words: tuple[str, ...], policy: str, amount: int
) -> None:
    def filled(n: int) -> list[str]:
        return [word.format(me=identity, n=f"{identity}{n}") for word in words]

    answers = [await limits.check(*filled(n)) for n in range(amount + 3)]

    refused = [answer.policy for answer in answers if answer and not answer.allowed]
    assert refused == [policy] * 3


async def test_an_ipv6_network_is_one_client(limits: RateLimiter, identity: str) -> None:
    network = ":".join(identity[at : at + 4] for at in range(0, 16, 4))

    answers = [
        await limits.check("POST", "/users", "", f"{network}::{number:x}") for number in range(12)
    ]

    allowed = [answer is not None and answer.allowed for answer in answers]
    assert allowed == [True] * 10 + [False] * 2


async def test_address_rejection_does_not_consume_account_limit(
    limits: RateLimiter, identity: str
) -> None:
    for number in range(20):
        await limits.check("POST", "/token", "", identity, f"{identity}{number}")
    for _ in range(15):
        await limits.check("POST", "/token", "", identity, identity)

    answer = await limits.check("POST", "/token", "", f"other {identity}", identity)

    assert answer is not None
    assert answer.allowed


async def test_response_has_headers_of_all_limits(limits: RateLimiter, identity: str) -> None:
    answer = await limits.check("POST", "/token", "", identity, identity)

    assert answer is not None
    assert dict(answer.headers) == {
        b"ratelimit-policy": b'"login";q=20;w=60, "login-account";q=10;w=60',
        b"ratelimit": b'"login";r=19;t=60, "login-account";r=9;t=60',
    }


async def test_disabled_limits_add_no_headers(redis: RedisClient) -> None:
    assert await RateLimiter("off", redis).check("POST", "/users", "", "10.0.0.1") is None


def test_rate_limit_table() -> None:
    assert set(RATE_LIMITS.values()) == {LOGIN, LOGIN_ACCOUNT, REGISTER, REQUESTS}
    assert {name: (each.quota, each.window_seconds) for name, each in RATE_LIMITS.items()} == {
        "login": (20, 60),
        "login-account": (10, 60),
        "register": (10, 60),
        "requests": (600, 60),
    }


# words


def test_rate_limit_headers_follow_draft() -> None:
    verdict = LimitResult(allowed=True, limit=20, remaining=19, reset_after_seconds=41.2)

    assert format_policy_field([LOGIN]) == '"login";q=20;w=60'
    assert format_limit_field([(LOGIN, verdict)]) == '"login";r=19;t=42'
    assert rate_limit_headers([(LOGIN, verdict)]) == [
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
