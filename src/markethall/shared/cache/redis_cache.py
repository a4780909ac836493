"""The second level of the cache: values in Redis, shared by the processes."""

import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from typing import Final, NamedTuple

from markethall.shared.cache.keys import CacheKey, Loader, lookup_counter
from markethall.shared.kernel.circuit_breaker import MonotonicClock
from markethall.shared.persistence.redis_client import LuaScript, RedisClient, RedisUnavailable

# seconds; the result of a load that took longer than half of it is not stored
TOMBSTONE_TTL: Final = 60.0
_TOKEN_BYTES: Final = 16
_VALUE: Final = b"v"
_HEADER_BYTES: Final = len(_VALUE) + _TOKEN_BYTES
_MAX_KEY_BYTES: Final = 200

# namespace, entry <- the generation if there is none
_LOOK_UP = LuaScript("""
redis.call('SET', KEYS[1], ARGV[1], 'NX')
return {redis.call('GET', KEYS[1]), redis.call('GET', KEYS[2])}
""")
# entry <- its header before the load, text, milliseconds
_STORE = LuaScript(f"""
if redis.call('GETRANGE', KEYS[1], 0, {_HEADER_BYTES - 1}) == ARGV[1] then
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
end
""")


class VersionToken(NamedTuple):
    """State in Redis when a load began; `header` is that of the entry, empty if there was none."""

    generation: bytes
    header: bytes


class RedisCache:
    """While Redis is unavailable every call loads.

    `markethall:cache:{namespace}` holds the generation of a namespace, a random token;
    `markethall:cache:{namespace}:key` holds a header ("v" and the generation of the value), then
    the value. So a new generation invalidates the namespace. It is random because a counter would
    start again after a wipe and could match an old value.

    A key is invalidated by a tombstone in its place, a token without "v" (InvalidationBus). A
    load is stored only if the header is still the one seen before the load, and under the
    generation seen then. So an invalidation by any process wins, as does a wipe, and a command that
    a paused server executes late does no harm.

    What this process has invalidated and not yet sent (`is_pending`) is not read from Redis.
    """

    def __init__(
        self,
        redis: RedisClient,
        is_pending: Callable[[CacheKey], bool],
        clock: MonotonicClock = time.monotonic,
    ) -> None:
        self._redis = redis
        self._is_pending = is_pending
        self._clock = clock

    async def get_or_load(self, namespace: str, key: str, ttl: float, load: Loader) -> bytes | None:
        """Return the stored value, else the result of `load`. Raises only what `load` raises."""
        try:
            found = await self._look_up(namespace, key)
        except RedisUnavailable:
            lookup_counter(namespace, "unavailable").inc()
            return await load()
        if isinstance(found, bytes):
            lookup_counter(namespace, "l2").inc()
            return found
        lookup_counter(namespace, "miss").inc()
        started = self._clock()
        value = await load()
        if value is not None and self._clock() - started < TOMBSTONE_TTL / 2:
            text, milliseconds = _VALUE + found.generation + value, max(1, int(ttl * 1000))
            with suppress(RedisUnavailable):
                await self._redis.run_script(
                    _STORE, [redis_name(namespace, key)], found.header, text, milliseconds
                )
        return value

    async def _look_up(self, namespace: str, key: str) -> bytes | VersionToken:
        if self._is_pending((namespace, key)):
            raise RedisUnavailable("an invalidation of it is pending")
        names = [redis_name(namespace, None), redis_name(namespace, key)]
        generation, text = await self._redis.run_script(_LOOK_UP, names, new_token())
        header = bytes(text or b"")[:_HEADER_BYTES]
        if header == _VALUE + generation:
            return bytes(text[_HEADER_BYTES:])
        return VersionToken(generation, header)


def new_token() -> bytes:
    return secrets.token_bytes(_TOKEN_BYTES)


def redis_name(namespace: str, key: str | None) -> bytes:
    """Return the name of an entry, or of the namespace's generation; long keys are hashed."""
    prefix = f"markethall:cache:{{{namespace}}}".encode()
    if key is None:
        return prefix
    encoded = key.encode("utf-8", "surrogatepass")
    if len(encoded) > _MAX_KEY_BYTES:
        encoded = b"#" + sha256(encoded).hexdigest().encode()
    return prefix + b":" + encoded
