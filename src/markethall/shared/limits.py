"""Rate limits: so many requests per time for each address, account or user.

A sliding window counter: the hits of the running window, and those of the one before by the share
of it that the last `per` seconds still cover. A window starts with its owner's first hit, not with
the minute, so nobody gets a double burst at a boundary and not everybody starts over at once. Only
hits that were allowed count.

Not the library `limits`, though it was the first choice. Measured with 5.8 on one core: hit and
statistics take 10-20 us on its synchronous storage, which starts a timer thread every 10 ms that
walks all keys, and 2 ms (!) on the asynchronous one with 20,000 identities for the same reason.
Both grow without bound when an attack changes identities, both read the wall clock themselves. Its
Redis storage owns its connections, so our deadline and breaker cannot stand before them, and needs
two round trips for an answer with headers. What remains, the arithmetic, is ten lines; they stand
below, once for the process and once in Lua. A hit in the process takes 3 us.
"""

import hmac
import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from ipaddress import IPv6Address
from math import ceil
from typing import Final, NamedTuple, Protocol

from markethall.shared.breaker import Seconds
from markethall.shared.metrics import LIMITED
from markethall.shared.redis import RedisAway, RedisClient, Script


@dataclass(frozen=True)
class Policy:
    """At most `amount` hits in `per` seconds for each identity."""

    name: str
    amount: int
    per: int


class Verdict(NamedTuple):
    """What a limit says to one hit.

    `reset_after` is in seconds: when refused, until a hit is allowed again (just after it); else
    until the window ends and old hits begin to be forgotten.
    """

    allowed: bool
    limit: int
    remaining: int
    reset_after: float

    @property
    def retry_after(self) -> int:
        """Whole seconds, at least one, for `Retry-After`."""
        return max(1, ceil(self.reset_after))


class Limiter(Protocol):
    """Counts hits. Never raises: where it cannot ask others it decides alone."""

    async def hit(self, policy: Policy, identity: str) -> Verdict:
        """Count a hit of this identity, if it is allowed."""


class ProcessLimiter:
    """In this process, for at most `max_identities`: the longest unseen is forgotten first.

    Each takes about 250 bytes, and goes when its windows are over. Who can show so many identities
    that their own is forgotten is not held by a limit per identity anyway.
    """

    def __init__(self, clock: Seconds = time.monotonic, max_identities: int = 50_000) -> None:
        self._clock = clock
        self._most = max_identities
        self._windows: OrderedDict[bytes, _Window] = OrderedDict()

    def __len__(self) -> int:
        return len(self._windows)

    async def hit(self, policy: Policy, identity: str) -> Verdict:
        return _told(policy, self.judge(policy, identity))

    def judge(self, policy: Policy, identity: str) -> Verdict:
        """Counts a hit without waiting, and without counting a refusal in the metrics."""
        now = self._clock()
        window = self._window(policy, _digest(policy, identity), now)
        elapsed = now - window.start
        allowed = window.previous * (1 - elapsed / policy.per) + window.current < policy.amount
        if allowed:
            window.current += 1
        return _verdict(policy, allowed, window.current, window.previous, elapsed)

    def _window(self, policy: Policy, key: bytes, now: float) -> "_Window":
        windows = self._windows
        window = windows.get(key)
        if window is None:
            windows[key] = window = _Window(now, policy.per)
            self._tidy(now)
        else:
            windows.move_to_end(key)
            window.slide(now)
        return window

    def _tidy(self, now: float) -> None:
        """Drop up to two for each that comes: the oldest, if it is over or there are too many."""
        for _ in range(2):
            key, window = next(iter(self._windows.items()))
            if len(self._windows) <= self._most and now < window.start + 2 * window.per:
                return
            del self._windows[key]


class RedisLimiter:
    """Counted in Redis for all processes; while it is away, by each process for itself.

    Redis sees a hash of the identity only. `secret`, the same in all processes, keeps who has the
    hashes from trying out known e-mail addresses.
    """

    def __init__(
        self, redis: RedisClient, local: ProcessLimiter | None = None, secret: bytes = b""
    ) -> None:
        self._redis = redis
        self._local = local or ProcessLimiter()
        self._secret = secret

    async def hit(self, policy: Policy, identity: str) -> Verdict:
        key = f"markethall:limit:{policy.name}:{_digest(policy, identity, self._secret).hex()}"
        try:
            allowed, current, previous, elapsed = await self._redis.run_script(
                _HIT, [key], policy.amount, policy.per * 1000
            )
        except RedisAway:
            return await self._local.hit(policy, identity)
        return _told(policy, _verdict(policy, bool(allowed), current, previous, elapsed / 1000))


# key <- amount, milliseconds. The server's clock, so that all processes have the same.
_HIT = Script("""
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local amount, per = tonumber(ARGV[1]), tonumber(ARGV[2])
local kept = redis.call('HMGET', KEYS[1], 'start', 'current', 'previous')
local start, current, previous = tonumber(kept[1]), tonumber(kept[2]), tonumber(kept[3])
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
    """Hits since `start`, and those of the window before."""

    __slots__ = ("current", "per", "previous", "start")

    def __init__(self, start: float, per: int) -> None:
        self.start = start
        self.per = per
        self.current = 0
        self.previous = 0

    def slide(self, now: float) -> None:
        """Move on to the window that `now` lies in."""
        age = now - self.start
        if age >= 2 * self.per:
            self.start, self.current, self.previous = now, 0, 0
        elif age >= self.per:
            self.start, self.current, self.previous = self.start + self.per, 0, self.current


def _told(policy: Policy, verdict: Verdict) -> Verdict:
    if not verdict.allowed:
        LIMITED.labels(policy.name).inc()
    return verdict


def _verdict(policy: Policy, allowed: bool, current: int, previous: int, elapsed: float) -> Verdict:
    if not allowed:
        return Verdict(False, policy.amount, 0, _wait(policy, current, previous, elapsed))
    count = previous * (1 - elapsed / policy.per) + current
    return Verdict(True, policy.amount, max(0, ceil(policy.amount - count)), policy.per - elapsed)


def _wait(policy: Policy, current: int, previous: int, elapsed: float) -> float:
    """Seconds until enough old hits are forgotten for one more."""
    if current < policy.amount:
        return policy.per * (1 - (policy.amount - current) / previous) - elapsed
    return policy.per * (2 - policy.amount / current) - elapsed


def _digest(policy: Policy, identity: str, secret: bytes = b"") -> bytes:
    """Short whatever the identity is, and not readable."""
    text = f"{policy.name}\0{identity}".encode("utf-8", "surrogatepass")
    return blake2b(text, digest_size=16, key=secret).digest()


LOGIN: Final = Policy("login", amount=20, per=60)
LOGIN_ACCOUNT: Final = Policy("login-account", amount=10, per=60)
REGISTER: Final = Policy("register", amount=10, per=60)
REQUESTS: Final = Policy("requests", amount=600, per=60)
POLICIES: Final[Mapping[str, Policy]] = {
    policy.name: policy for policy in (LOGIN, LOGIN_ACCOUNT, REGISTER, REQUESTS)
}


class Answer(NamedTuple):
    """What all limits together say to one request: allowed, or refused by `policy`."""

    allowed: bool
    policy: str
    retry_after: int
    headers: list[tuple[bytes, bytes]]


class Limits:
    """Which limits hold for a request: logins and registrations have their own."""

    def __init__(self, mode: str, redis: RedisClient, secret: bytes = b"") -> None:
        """For the setting "on" or "off" (benchmarks); counted in Redis where there is one."""
        local = ProcessLimiter()
        key = hmac.digest(secret, b"markethall limits", "sha256")
        counted: Limiter = RedisLimiter(redis, local, key) if redis.configured else local
        self._limiter = None if mode == "off" else counted
        self.on = self._limiter is not None

    async def check(
        self, method: str, path: str, who: str, address: str, account: str = ""
    ) -> Answer | None:
        """Count one request; None where limits are off.

        `who` begins with "user:", else the address counts; `account` is what a login is for.
        """
        if self._limiter is None:
            return None
        verdicts = []
        for policy, identity in _due(method, path, who, address, account):
            verdict = await self._limiter.hit(policy, identity)
            verdicts.append((policy, verdict))
            if not verdict.allowed:
                break
        return _answer(verdicts)


def _due(
    method: str, path: str, who: str, address: str, account: str
) -> Sequence[tuple[Policy, str]]:
    if method == "POST" and path == "/token":
        if account:
            return ((LOGIN, network_of(address)), (LOGIN_ACCOUNT, account))
        # no password is tried: a refresh, or nothing that could succeed
        return ((REQUESTS, network_of(address)),)
    if method == "POST" and path == "/users/me/password":
        return ((LOGIN_ACCOUNT, who),)
    if method == "POST" and path == "/users":
        return ((REGISTER, network_of(address)),)
    return ((REQUESTS, who if who.startswith("user:") else network_of(address)),)


def _answer(verdicts: Sequence[tuple[Policy, Verdict]]) -> Answer:
    policy, verdict = verdicts[-1]
    return Answer(verdict.allowed, policy.name, verdict.retry_after, header_fields(verdicts))


def header_fields(verdicts: Sequence[tuple[Policy, Verdict]]) -> list[tuple[bytes, bytes]]:
    """The two fields of the IETF draft (draft-ietf-httpapi-ratelimit-headers), for ASGI."""
    return [
        (b"ratelimit-policy", policy_field(policy for policy, _ in verdicts).encode()),
        (b"ratelimit", limit_field(verdicts).encode()),
    ]


def policy_field(policies: Iterable[Policy]) -> str:
    """The value of `RateLimit-Policy`: quota and window in seconds, `"login";q=20;w=60`."""
    return ", ".join([f'"{policy.name}";q={policy.amount};w={policy.per}' for policy in policies])


def limit_field(verdicts: Iterable[tuple[Policy, Verdict]]) -> str:
    """The value of `RateLimit`: what remains, seconds until more does, `"login";r=19;t=42`."""
    return ", ".join(
        [f'"{policy.name}";r={v.remaining};t={ceil(v.reset_after)}' for policy, v in verdicts]
    )


def network_of(address: str) -> str:
    """Who an address stands for: an IPv6 client has a whole /64 to choose from (RFC 6177)."""
    if ":" not in address:
        return address
    try:
        ip = IPv6Address(address)
    except ValueError:
        return address
    return str(ip.ipv4_mapped or f"{IPv6Address(int(ip) >> 64 << 64)}/64")
