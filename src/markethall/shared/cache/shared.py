"""The cache that processes share, in Redis."""

import asyncio
import contextlib
import secrets
import time
from collections.abc import Sequence
from hashlib import sha256
from typing import NamedTuple

from markethall.shared.breaker import Seconds
from markethall.shared.cache.debts import CHANNEL, DEAD, FORGET, MANY, TOMBSTONE, Debts, said_of
from markethall.shared.cache.flights import Flights
from markethall.shared.cache.ports import Counters, Load
from markethall.shared.redis import RedisAway, RedisClient, Script

_ALIVE = b"v"
_TOKEN = 16
_HEAD = 1 + _TOKEN  # of an entry: alive with the token of its generation, or dead with its own
_LONGEST_KEY = 200

# The generation of a space that has none yet: the first to come makes it.
_BEGIN = Script("""
redis.call('SET', KEYS[1], ARGV[1], 'NX')
return redis.call('GET', KEYS[1])
""")
# entry <- its head as it was before the load, text, milliseconds
_KEEP = Script(f"""
if redis.call('GETRANGE', KEYS[1], 0, {_HEAD - 1}) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
""")


class Seen(NamedTuple):
    """What stood in Redis when a load began; an empty head: nothing."""

    generation: bytes
    head: bytes


class RedisCache:
    """Without Redis every fetch loads, still in single flight; what is read is never older.

    The generation of a space, a random token, stands under `markethall:cache:{space}`; a value
    under `markethall:cache:{space}:key`, and it begins with the generation it belongs to. So one
    MGET reads both without a script, and a new generation makes the whole space stale at once. It
    is random because a count would begin again after a wipe and could meet an old value. The braces
    are literal: they keep a space on one node of a cluster, as MGET and scripts need.

    To forget is to write a tombstone with a token of its own. A load keeps its value under the
    generation that it saw before it began, and only if the head of the entry is still the one
    it saw: so a forget wins from anywhere, as does a wipe, and a command that a paused server
    carries out late does no harm.

    A forget that Redis did not hear is owed: it is told before anything else is read here, and
    in the background as soon as Redis is back. Until then processes that still reach Redis, or if
    this one dies all of them, may see the old value for at most its `ttl`.
    """

    def __init__(
        self, redis: RedisClient, clock: Seconds = time.monotonic, pay_every: float = 0.5
    ) -> None:
        self._redis = redis
        self._clock = clock
        self._pay_every = pay_every
        self._flights = Flights()
        self._debts = Debts()
        self._payer: asyncio.Task[None] | None = None
        self._hits = Counters("hit")
        self._misses = Counters("miss")
        self._aways = Counters("away")

    async def fetch(self, space: str, key: str, ttl: float, load: Load) -> bytes | None:
        entry = Entry(space, key, ttl)
        until = self._redis.deadline()
        try:
            seen = await self._look(entry, until)
        except RedisAway:
            self._aways[space].inc()
            return await self._flights.join((space, key), None, lambda _: load())
        if isinstance(seen, bytes):
            self._hits[space].inc()
            return seen
        self._misses[space].inc()
        # reading before and keeping after the load share one timeout
        spare = self._redis.timeout - (self._redis.deadline() - until)
        return await self._flights.join(
            (space, key), seen, lambda _: self._load(entry, seen, spare, load)
        )

    async def forget(self, space: str, keys: Sequence[str]) -> None:
        for start in range(0, len(keys), MANY):
            for key in keys[start : start + MANY]:
                self._flights.forget((space, key))
                self._debts.owe(space, key)
            await self._pay_now_or_later()

    async def forget_space(self, space: str) -> None:
        self._flights.forget_space(space)
        self._debts.owe(space, None)
        await self._pay_now_or_later()

    def peek(self, space: str, key: str) -> bytes | None:  # noqa: ARG002 - the contract
        return None

    async def listen(self) -> None:
        """It is asked every time."""

    async def close(self) -> None:
        if self._payer is not None:
            self._payer.cancel()
        await self._flights.close()

    async def _look(self, entry: "Entry", until: float) -> bytes | Seen:
        """The value, or what stands in its place."""
        if self._debts:
            await self._pay(until)
        generation, text = await self._redis.run("MGET", *entry.names, until=until)
        if generation is None:
            generation = await self._redis.run_script(
                _BEGIN, entry.names[:1], _token(), until=until
            )
        head = text[:_HEAD] if text else b""
        return text[_HEAD:] if head == _ALIVE + generation else Seen(generation, head)

    async def _load(self, entry: "Entry", seen: Seen, spare: float, load: Load) -> bytes | None:
        began = self._clock()
        value = await load()
        if value is not None and self._clock() - began < TOMBSTONE / 2:
            with contextlib.suppress(RedisAway):
                await self._keep(entry, seen, value, self._redis.deadline(spare))
        return value

    async def _keep(self, entry: "Entry", seen: Seen, value: bytes, until: float) -> None:
        text = _ALIVE + seen.generation + value
        await self._redis.run_script(
            _KEEP, entry.names[1:], seen.head, text, entry.milliseconds, until=until
        )

    async def _pay_now_or_later(self) -> None:
        try:
            await self._pay(self._redis.deadline())
        except RedisAway:
            if self._payer is None or self._payer.done():
                self._payer = asyncio.create_task(self._pay_later(), name="cache: forget")

    async def _pay_later(self) -> None:
        while self._debts:
            await asyncio.sleep(self._pay_every)
            with contextlib.suppress(RedisAway):
                await self._pay(self._redis.deadline())

    async def _pay(self, until: float) -> None:
        while bill := self._debts.bill():
            names = [_name(space, key) for space, key in bill]
            kinds = [b"" if key is None else DEAD for _, key in bill]
            life = int(TOMBSTONE * 1000)
            said = (CHANNEL, said_of(list(bill)))
            await self._redis.run_script(FORGET, names, _token(), life, *said, *kinds, until=until)
            self._debts.settle(bill)


class Entry:
    """Where a value goes, and for how long."""

    def __init__(self, space: str, key: str, ttl: float) -> None:
        self.names = (_name(space, None), _name(space, key))
        self.milliseconds = max(1, int(ttl * 1000))


def _token() -> bytes:
    return secrets.token_bytes(_TOKEN)


def _name(space: str, key: str | None) -> bytes:
    start = f"markethall:cache:{{{space}}}".encode()
    if key is None:
        return start
    plain = key.encode("utf-8", "surrogatepass")
    if len(plain) > _LONGEST_KEY:
        plain = b"#" + sha256(plain).hexdigest().encode()
    return start + b":" + plain
