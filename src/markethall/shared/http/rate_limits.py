"""Rate limits for each identity, counted by a sliding window.

An identity is a user or the network of a client. A hit is one counted request. The count is the
hits of the current window plus a share of the hits of the previous window. The share is the
fraction of the previous window that lies within the last `window_seconds`. The first window of an
identity starts with its first hit. Rejected hits are not counted.

docs/decisions/0006 says why the library `limits` is not used: its memory storage starts a timer
thread every 10 ms and grows without bound when an attacker changes identities; its Redis storage
opens connections to which our deadline and circuit breaker do not apply. Counting a hit in the
memory of this process takes 3 microseconds.
"""

import re
import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from math import ceil
from typing import Final, NamedTuple, Protocol

from markethall.shared.kernel.circuit_breaker import MonotonicClock
from markethall.shared.kernel.client_network import client_network
from markethall.shared.kernel.key_derivation import KeyPurpose, derive_key
from markethall.shared.observability.metrics import RATE_LIMITED
from markethall.shared.persistence.redis_client import LuaScript, RedisClient, RedisUnavailable


@dataclass(frozen=True)
class RateLimit:
    """At most `quota` hits in `window_seconds` for each identity."""

    name: str
    quota: int
    window_seconds: int


class LimitResult(NamedTuple):
    """The result of one hit under one limit.

    `reset_after_seconds` is the time until the window ends; after a rejection it is the time until
    the next hit is allowed.
    """

    allowed: bool
    limit: int
    remaining: int
    reset_after_seconds: float

    @property
    def retry_after(self) -> int:
        """The value of the header Retry-After: whole seconds, at least one."""
        return max(1, ceil(self.reset_after_seconds))


class HitCounter(Protocol):
    """Counts hits. Never raises: while Redis is unavailable, each process counts by itself."""

    async def hit(self, policy: RateLimit, identity: str) -> LimitResult:
        """Count a hit of this identity, unless the limit rejects it."""


class ProcessHitCounter:
    """Counts hits in the memory of this process.

    It stores at most `max_identities` identities, of about 250 bytes each, and evicts the least
    recently used ones. An attacker with many identities may cause evictions; a limit per identity
    could not stop such an attacker anyway.
    """

    def __init__(
        self, clock: MonotonicClock = time.monotonic, max_identities: int = 50_000
    ) -> None:
        self._clock = clock
        self._max_identities = max_identities
        self._windows: OrderedDict[bytes, _Window] = OrderedDict()

    def __len__(self) -> int:
        return len(self._windows)

    async def hit(self, policy: RateLimit, identity: str) -> LimitResult:
        return _count_rejection(policy, self.check(policy, identity))

    def check(self, policy: RateLimit, identity: str) -> LimitResult:
        """Count a hit, like `hit`, but without the metric of rejections."""
        now = self._clock()
        window = self._get_window(policy, _hash_identity(policy, identity), now)
        elapsed = now - window.start
        allowed = (
            window.previous * (1 - elapsed / policy.window_seconds) + window.current < policy.quota
        )
        if allowed:
            window.current += 1
        return _to_result(policy, allowed, window.current, window.previous, elapsed)

    def _get_window(self, policy: RateLimit, key: bytes, now: float) -> "_Window":
        windows = self._windows
        window = windows.get(key)
        if window is None:
            windows[key] = window = _Window(now, policy.window_seconds)
            self._evict_expired(now)
        else:
            windows.move_to_end(key)
            window.slide(now)
        return window

    def _evict_expired(self, now: float) -> None:
        """Drop up to two of the least recently used windows if expired, or if there are too many.

        It runs for each new window, and drops two so that the number of windows can shrink.
        """
        for _ in range(2):
            key, window = next(iter(self._windows.items()))
            if (
                len(self._windows) <= self._max_identities
                and now < window.start + 2 * window.window_seconds
            ):
                return
            del self._windows[key]


class RedisHitCounter:
    """Counts hits in Redis, for all processes together.

    While Redis is unavailable, each process counts by itself. Redis stores only a hash of the
    identity, keyed with `secret`, which is the same in all processes. Someone who can read Redis
    but does not know `secret` cannot test whether a known address is stored.
    """

    def __init__(
        self, redis: RedisClient, fallback: ProcessHitCounter | None = None, secret: bytes = b""
    ) -> None:
        self._redis = redis
        self._fallback = fallback or ProcessHitCounter()
        self._secret = secret

    async def hit(self, policy: RateLimit, identity: str) -> LimitResult:
        key = (
            f"markethall:limit:{policy.name}:{_hash_identity(policy, identity, self._secret).hex()}"
        )
        try:
            allowed, current, previous, elapsed = await self._redis.run_script(
                _HIT_SCRIPT, [key], policy.quota, policy.window_seconds * 1000
            )
        except RedisUnavailable:
            return await self._fallback.hit(policy, identity)
        return _count_rejection(
            policy, _to_result(policy, bool(allowed), current, previous, elapsed / 1000)
        )


def build_hit_counter(redis: RedisClient, secret: bytes) -> HitCounter:
    """Return a counter in Redis if Redis is configured, else in the memory of this process."""
    if not redis.is_configured:
        return ProcessHitCounter()
    return RedisHitCounter(redis, secret=derive_key(secret, KeyPurpose.RATE_LIMIT))


# KEYS: the hashed identity. ARGV: the quota, the window in milliseconds. Returns: whether the hit
# is allowed (1 or 0), the hits of the current and of the previous window, and the milliseconds
# since the start of the current window. The script uses the clock of Redis, because the clocks of
# the processes may differ.
_HIT_SCRIPT = LuaScript("""
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local amount, per = tonumber(ARGV[1]), tonumber(ARGV[2])
local stored = redis.call('HMGET', KEYS[1], 'start', 'current', 'previous')
local start, current, previous = tonumber(stored[1]), tonumber(stored[2]), tonumber(stored[3])
if not start or now < start or now >= start + 2 * per then
  start, current, previous = now, 0, 0
elseif now >= start + per then
  start, current, previous = start + per, 0, current
end
local elapsed = now - start
if previous * (1 - elapsed / per) + current >= amount then
  return {0, current, previous, elapsed}
end
redis.call('HSET', KEYS[1],
  'start', string.format('%.0f', start), 'current', current + 1, 'previous', previous)
redis.call('PEXPIRE', KEYS[1], 2 * per)
return {1, current + 1, previous, elapsed}
""")


class _Window:
    """The number of hits in the window that began at `start`, and in the window before it."""

    __slots__ = ("current", "previous", "start", "window_seconds")

    def __init__(self, start: float, window_seconds: int) -> None:
        self.start = start
        self.window_seconds = window_seconds
        self.current = 0
        self.previous = 0

    def slide(self, now: float) -> None:
        """Advance to the window that contains `now`."""
        age = now - self.start
        if age >= 2 * self.window_seconds:
            self.start, self.current, self.previous = now, 0, 0
        elif age >= self.window_seconds:
            self.start, self.current, self.previous = (
                self.start + self.window_seconds,
                0,
                self.current,
            )


def _count_rejection(policy: RateLimit, result: LimitResult) -> LimitResult:
    if not result.allowed:
        RATE_LIMITED.labels(policy.name).inc()
    return result


def _to_result(
    policy: RateLimit, allowed: bool, current: int, previous: int, elapsed: float
) -> LimitResult:
    if not allowed:
        return LimitResult(
            False, policy.quota, 0, _seconds_until_allowed(policy, current, previous, elapsed)
        )
    count = previous * (1 - elapsed / policy.window_seconds) + current
    return LimitResult(
        True, policy.quota, max(0, ceil(policy.quota - count)), policy.window_seconds - elapsed
    )


def _seconds_until_allowed(policy: RateLimit, current: int, previous: int, elapsed: float) -> float:
    """Return the seconds until the share of old hits is small enough to allow one more hit."""
    if current < policy.quota:
        return policy.window_seconds * (1 - (policy.quota - current) / previous) - elapsed
    return policy.window_seconds * (2 - policy.quota / current) - elapsed


def _hash_identity(policy: RateLimit, identity: str, secret: bytes = b"") -> bytes:
    """Return a key of fixed length, from which the identity cannot be read."""
    text = f"{policy.name}\0{identity}".encode("utf-8", "surrogatepass")
    return blake2b(text, digest_size=16, key=secret).digest()


_IMAGE_PATH: Final = re.compile(r"/media/[^/]+/[^/]+\.webp")
_READ_METHODS: Final = frozenset({"GET", "HEAD"})

LOGIN: Final = RateLimit("login", quota=20, window_seconds=60)
CHANGE_PASSWORD: Final = RateLimit("change-password", quota=10, window_seconds=60)
REGISTER: Final = RateLimit("register", quota=10, window_seconds=60)
GUESTS: Final = RateLimit("guests", quota=30, window_seconds=60)
ORDER_LOOKUPS: Final = RateLimit("order-lookups", quota=10, window_seconds=60)
REQUESTS: Final = RateLimit("requests", quota=600, window_seconds=60)
# a search counts towards this limit and also towards REQUESTS
SEARCHES: Final = RateLimit("searches", quota=120, window_seconds=60)
# The files of images. A page shows many of them, so they do not count towards REQUESTS.
IMAGES: Final = RateLimit("images", quota=6000, window_seconds=60)
# the defaults; the settings of the process may replace the quota and the window of each
RATE_LIMITS: Final[Mapping[str, RateLimit]] = {
    policy.name: policy
    for policy in (
        *(LOGIN, CHANGE_PASSWORD, REGISTER, GUESTS),
        *(ORDER_LOOKUPS, REQUESTS, SEARCHES, IMAGES),
    )
}


# per network: the limits of POST requests that need no token
_LIMIT_BY_PUBLIC_PATH: Final[Mapping[str, RateLimit]] = {
    "/users": REGISTER,
    "/guests": GUESTS,
    "/orders/lookup": ORDER_LOOKUPS,
}


class RateLimitDecision(NamedTuple):
    """The decision of all limits on a request; after a rejection, `policy` names the limit."""

    allowed: bool
    policy: str
    retry_after: int
    headers: list[tuple[bytes, bytes]]


class RateLimiter:
    """Applies the limits to a request.

    Logins, registrations, new guests, lookups of orders and files of images have limits of their
    own.
    """

    def __init__(
        self,
        mode: str,
        redis: RedisClient,
        secret: bytes = b"",
        limits: Mapping[str, RateLimit] = RATE_LIMITS,
    ) -> None:
        """`mode` is "on", or "off" for benchmarks. Counts in Redis if Redis is configured.

        `limits` has the same names as RATE_LIMITS.
        """
        self._limits = limits
        self._counter = None if mode == "off" else build_hit_counter(redis, secret)
        self.is_enabled = self._counter is not None

    async def check(
        self,
        method: str,
        path: str,
        principal: str,
        client_ip: str,
        *,
        is_login: bool = False,
        is_search: bool = False,
    ) -> RateLimitDecision | None:
        """Count one request and return the decision; None if the limits are off.

        The identity is `principal` if it begins with "user:", otherwise the network of the client.
        `is_login`: the request is a login with a password. The limit LOGIN counts the logins from
        each network; the context `users` also limits the wrong passwords for each account.
        """
        if self._counter is None:
            return None
        results = []
        limits = _applicable_limits(method, path, principal, client_ip, is_login)
        if is_search:
            limits = (*limits, (SEARCHES, limits[0][1]))
        for default, identity in limits:
            policy = self._limits[default.name]
            result = await self._counter.hit(policy, identity)
            results.append((policy, result))
            if not result.allowed:
                break
        return _to_decision(results)


def _applicable_limits(
    method: str, path: str, principal: str, client_ip: str, is_login: bool
) -> Sequence[tuple[RateLimit, str]]:
    if method == "POST" and path == "/token":
        # a request that is no login refreshes a token or fails, so the general limit is enough
        return ((LOGIN if is_login else REQUESTS, client_network(client_ip)),)
    if method == "POST" and path == "/users/me/password":
        return ((CHANGE_PASSWORD, principal),)
    if method == "POST" and path in _LIMIT_BY_PUBLIC_PATH:
        return ((_LIMIT_BY_PUBLIC_PATH[path], client_network(client_ip)),)
    identity = principal if principal.startswith("user:") else client_network(client_ip)
    is_image = method in _READ_METHODS and _IMAGE_PATH.fullmatch(path)
    return ((IMAGES if is_image else REQUESTS, identity),)


def _to_decision(results: Sequence[tuple[RateLimit, LimitResult]]) -> RateLimitDecision:
    policy, result = results[-1]
    return RateLimitDecision(
        result.allowed, policy.name, result.retry_after, rate_limit_headers(results)
    )


def rate_limit_headers(
    results: Sequence[tuple[RateLimit, LimitResult]],
) -> list[tuple[bytes, bytes]]:
    """Return both headers of draft-ietf-httpapi-ratelimit-headers in the form of ASGI."""
    return [
        (b"ratelimit-policy", format_policy_field(policy for policy, _ in results).encode()),
        (b"ratelimit", format_limit_field(results).encode()),
    ]


def format_policy_field(policies: Iterable[RateLimit]) -> str:
    """Return the value of RateLimit-Policy: quota and window, such as `"login";q=20;w=60`."""
    return ", ".join(
        [f'"{policy.name}";q={policy.quota};w={policy.window_seconds}' for policy in policies]
    )


def format_limit_field(results: Iterable[tuple[RateLimit, LimitResult]]) -> str:
    """Return the value of RateLimit: remaining hits and seconds, such as `"login";r=19;t=42`."""
    return ", ".join(
        [
            f'"{policy.name}";r={v.remaining};t={ceil(v.reset_after_seconds)}'
            for policy, v in results
        ]
    )
