"""Rate limits: one suite for the process and for Redis, then what each has of its own."""

import asyncio
import re
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from markethall.shared.limits import (
    LOGIN,
    LOGIN_ACCOUNT,
    POLICIES,
    REGISTER,
    REQUESTS,
    Limiter,
    Limits,
    Policy,
    ProcessLimiter,
    RedisLimiter,
    Verdict,
    header_fields,
    limit_field,
    network_of,
    policy_field,
)
from markethall.shared.metrics import REGISTRY
from markethall.shared.redis import RedisClient

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
def limiter(request: pytest.FixtureRequest, redis: RedisClient) -> Limiter:
    return ProcessLimiter() if request.param == "process" else RedisLimiter(redis)


@pytest.fixture
def policy() -> Policy:
    return Policy(f"test-{uuid4().hex}", amount=5, per=3600)


async def hits(limiter: Limiter, policy: Policy, count: int, who: str = "a") -> list[Verdict]:
    return [await limiter.hit(policy, who) for _ in range(count)]


# both


async def test_so_many_are_allowed_and_then_no_more(limiter: Limiter, policy: Policy) -> None:
    verdicts = await hits(limiter, policy, 8)

    assert [verdict.allowed for verdict in verdicts] == [True] * 5 + [False] * 3
    assert [verdict.remaining for verdict in verdicts] == [4, 3, 2, 1, 0, 0, 0, 0]
    assert {verdict.limit for verdict in verdicts} == {5}


async def test_the_wait_ends_with_the_window(limiter: Limiter, policy: Policy) -> None:
    verdicts = await hits(limiter, policy, 6)

    assert all(3590 < verdict.reset_after <= 3600 for verdict in verdicts)
    assert 3590 <= verdicts[-1].retry_after <= 3600


async def test_identities_and_policies_do_not_mix(limiter: Limiter, policy: Policy) -> None:
    other = Policy(policy.name + "x", amount=1, per=3600)
    await hits(limiter, policy, 6)

    assert (await limiter.hit(policy, "b")).remaining == 4
    assert (await limiter.hit(other, "a")).allowed


async def test_a_hundred_at_once_get_no_more_than_one_after_the_other(
    limiter: Limiter, policy: Policy
) -> None:
    verdicts = await asyncio.gather(*(limiter.hit(policy, "a") for _ in range(100)))

    assert sum(verdict.allowed for verdict in verdicts) == 5


async def test_any_text_is_an_identity(limiter: Limiter, policy: Policy) -> None:
    for who in ["", "ä\0\n", "\ud800", "long" * 10_000]:
        verdicts = await hits(limiter, policy, 6, who)

        assert [verdict.allowed for verdict in verdicts] == [True] * 5 + [False]


async def test_refusals_are_counted(limiter: Limiter, policy: Policy) -> None:
    await hits(limiter, policy, 7)

    refused = REGISTRY.get_sample_value("markethall_rate_limited_total", {"policy": policy.name})
    assert refused == 2


# in the process, by a clock that only the test moves


MINUTE = Policy("minute", amount=10, per=60)


def judge(limiter: ProcessLimiter, count: int) -> int:
    """How many of so many hits are allowed."""
    return sum(limiter.judge(MINUTE, "a").allowed for _ in range(count))


def test_the_window_slides() -> None:
    clock = Clock()
    limiter = ProcessLimiter(clock)
    assert judge(limiter, 20) == 10

    clock.now += 60  # the ten before still count in full
    assert judge(limiter, 20) == 0
    clock.now += 30  # half of them do
    assert judge(limiter, 20) == 5
    clock.now += 15  # a quarter: 2.5, and the five
    assert judge(limiter, 20) == 3


def test_after_two_quiet_windows_everything_is_forgotten() -> None:
    clock = Clock()
    limiter = ProcessLimiter(clock)
    judge(limiter, 20)

    clock.now += 120

    assert judge(limiter, 20) == 10


def test_a_steady_flow_passes_at_the_rate_of_the_policy() -> None:
    clock = Clock()
    limiter = ProcessLimiter(clock)
    allowed = 0

    for _ in range(60 * 60):
        clock.now += 1
        allowed += judge(limiter, 1)

    assert 595 <= allowed <= 610


@pytest.mark.parametrize("spent", [0.0, 1.0, 29.0, 59.0, 60.0, 75.5, 90.0, 119.0])
def test_a_refusal_says_when_the_next_hit_is_allowed(spent: float) -> None:
    clock = Clock()
    limiter = ProcessLimiter(clock)
    judge(limiter, 10)
    clock.now += spent
    judge(limiter, 20)
    refused = limiter.judge(MINUTE, "a")
    asked_at = clock.now

    clock.now = asked_at + refused.reset_after - 0.01
    early = limiter.judge(MINUTE, "a")
    clock.now = asked_at + refused.reset_after + 0.01
    due = limiter.judge(MINUTE, "a")

    assert (refused.allowed, early.allowed, due.allowed) == (False, False, True)


def test_what_remains_is_what_is_then_allowed() -> None:
    clock = Clock()
    limiter = ProcessLimiter(clock)
    judge(limiter, 7)
    clock.now += 77.7

    verdict = limiter.judge(MINUTE, "a")

    assert judge(limiter, 20) == verdict.remaining > 0


def test_an_attack_with_many_identities_finds_bounded_memory() -> None:
    limiter = ProcessLimiter(Clock(), max_identities=100)

    for number in range(1000):
        limiter.judge(MINUTE, str(number))

    assert len(limiter) == 100


def test_who_keeps_coming_is_not_forgotten_among_many() -> None:
    limiter = ProcessLimiter(Clock(), max_identities=100)

    for number in range(1000):
        limiter.judge(MINUTE, str(number))
        limiter.judge(MINUTE, "guesser")

    assert not limiter.judge(MINUTE, "guesser").allowed


def test_identities_go_when_their_windows_are_over() -> None:
    clock = Clock()
    limiter = ProcessLimiter(clock)
    for number in range(1000):
        limiter.judge(MINUTE, str(number))

    clock.now += 120
    for number in range(1000, 2001):
        limiter.judge(MINUTE, str(number))

    assert len(limiter) == 1001


# in Redis


async def test_processes_count_together(redis_url: str, policy: Policy) -> None:
    clients = [RedisClient(redis_url, timeout=30) for _ in range(2)]

    verdicts = [await RedisLimiter(clients[number % 2]).hit(policy, "a") for number in range(8)]

    assert [verdict.allowed for verdict in verdicts] == [True] * 5 + [False] * 3
    for client in clients:
        await client.close()


async def test_redis_never_sees_who_it_is_and_forgets_it(
    redis: RedisClient, policy: Policy
) -> None:
    await RedisLimiter(redis).hit(policy, "someone@example.com")

    keys = await redis.run("KEYS", f"*{policy.name}*")
    assert [re.fullmatch(rb"markethall:limit:test-\w+:[0-9a-f]{32}", key) for key in keys]
    assert 0 < await redis.run("PTTL", keys[0]) <= 2 * 3600 * 1000


async def test_a_secret_makes_hashes_that_nobody_else_can_make(
    redis: RedisClient, policy: Policy
) -> None:
    for secret in (b"", b"one", b"two"):
        await RedisLimiter(redis, secret=secret).hit(policy, "a")

    assert len(await redis.run("KEYS", f"*{policy.name}*")) == 3


async def test_a_foreign_value_under_our_name_leaves_the_limit_to_the_process(
    redis: RedisClient, policy: Policy
) -> None:
    limiter = RedisLimiter(redis)
    await limiter.hit(policy, "a")
    (key,) = await redis.run("KEYS", f"*{policy.name}*")
    await redis.run("SET", key, "foreign")

    verdicts = await hits(limiter, policy, 8)

    assert [verdict.allowed for verdict in verdicts] == [True] * 5 + [False] * 3
    assert redis.breaker.state == "closed"


async def test_redis_and_the_process_count_alike(redis: RedisClient) -> None:
    policy = Policy(f"test-{uuid4().hex}", amount=10, per=3600)
    clock = Clock()
    here, there = ProcessLimiter(clock), RedisLimiter(redis)
    await there.hit(policy, "a")
    here.judge(policy, "a")
    (key,) = await redis.run("KEYS", f"*{policy.name}*")

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
        await redis.run("HINCRBY", key, "start", -1000 * passed)
        expected = [here.judge(policy, "a") for _ in range(count)]
        verdicts = await hits(there, policy, count)

        assert [verdict[:3] for verdict in verdicts] == [verdict[:3] for verdict in expected]
        for verdict, other in zip(verdicts, expected, strict=True):
            assert verdict.reset_after == pytest.approx(other.reset_after, abs=10)


# what holds for which request


@pytest.fixture(params=["process", "redis"])
async def limits(request: pytest.FixtureRequest, redis: RedisClient) -> Limits:
    return Limits("on", NOWHERE if request.param == "process" else redis)


@pytest.fixture
def somebody() -> str:
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
    limits: Limits, somebody: str, words: tuple[str, ...], policy: str, amount: int
) -> None:
    def filled(n: int) -> list[str]:
        return [word.format(me=somebody, n=f"{somebody}{n}") for word in words]

    answers = [await limits.check(*filled(n)) for n in range(amount + 3)]

    refused = [answer.policy for answer in answers if answer and not answer.allowed]
    assert refused == [policy] * 3


async def test_an_ipv6_network_is_one_client(limits: Limits, somebody: str) -> None:
    network = ":".join(somebody[at : at + 4] for at in range(0, 16, 4))

    answers = [
        await limits.check("POST", "/users", "", f"{network}::{number:x}") for number in range(12)
    ]

    allowed = [answer is not None and answer.allowed for answer in answers]
    assert allowed == [True] * 10 + [False] * 2


async def test_a_refusal_by_address_does_not_use_up_the_account(
    limits: Limits, somebody: str
) -> None:
    for number in range(20):
        await limits.check("POST", "/token", "", somebody, f"{somebody}{number}")
    for _ in range(15):
        await limits.check("POST", "/token", "", somebody, somebody)

    answer = await limits.check("POST", "/token", "", f"other {somebody}", somebody)

    assert answer is not None
    assert answer.allowed


async def test_the_answer_carries_the_headers_of_all_limits(limits: Limits, somebody: str) -> None:
    answer = await limits.check("POST", "/token", "", somebody, somebody)

    assert answer is not None
    assert dict(answer.headers) == {
        b"ratelimit-policy": b'"login";q=20;w=60, "login-account";q=10;w=60',
        b"ratelimit": b'"login";r=19;t=60, "login-account";r=9;t=60',
    }


async def test_limits_that_are_off_say_nothing(redis: RedisClient) -> None:
    assert await Limits("off", redis).check("POST", "/users", "", "10.0.0.1") is None


def test_the_policies_are_these() -> None:
    assert set(POLICIES.values()) == {LOGIN, LOGIN_ACCOUNT, REGISTER, REQUESTS}
    assert {name: (each.amount, each.per) for name, each in POLICIES.items()} == {
        "login": (20, 60),
        "login-account": (10, 60),
        "register": (10, 60),
        "requests": (600, 60),
    }


# words


def test_the_fields_are_those_of_the_draft() -> None:
    verdict = Verdict(allowed=True, limit=20, remaining=19, reset_after=41.2)

    assert policy_field([LOGIN]) == '"login";q=20;w=60'
    assert limit_field([(LOGIN, verdict)]) == '"login";r=19;t=42'
    assert header_fields([(LOGIN, verdict)]) == [
        (b"ratelimit-policy", b'"login";q=20;w=60'),
        (b"ratelimit", b'"login";r=19;t=42'),
    ]


@pytest.mark.parametrize(("seconds", "header"), [(0.0, 1), (0.2, 1), (1.0, 1), (41.2, 42)])
def test_retry_after_is_whole_seconds_and_never_now(seconds: float, header: int) -> None:
    assert Verdict(False, 1, 0, seconds).retry_after == header


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
def test_an_address_stands_for_its_network(address: str, network: str) -> None:
    assert network_of(address) == network
