"""The second level of the cache: values in Redis, shared by the processes."""

import secrets
import time
from collections.abc import Awaitable, Callable, Collection
from contextlib import AbstractAsyncContextManager, suppress
from hashlib import sha256
from typing import Final, NamedTuple

from markethall.shared.cache.keys import (
    HEARTBEAT_INTERVAL,
    CacheKey,
    Invalidation,
    Loader,
    lookup_counter,
)
from markethall.shared.kernel.circuit_breaker import MonotonicClock
from markethall.shared.persistence.redis_client import LuaScript, RedisClient, RedisUnavailable

# Seconds that a tombstone, the mark of an invalidated key, stays in Redis. A load that takes longer
# than half of this time does not store its result: the tombstone of an invalidation during the load
# may have expired.
TOMBSTONE_TTL: Final = 60.0
_TOKEN_BYTES: Final = 16
_VALUE: Final = b"v"
_HEADER_BYTES: Final = len(_VALUE) + _TOKEN_BYTES
_MAX_KEY_BYTES: Final = 200
_CHANNEL: Final = "markethall:cache"

# KEYS: generation, entry. ARGV: a new generation, which is stored if the namespace has none.
_LOOK_UP = LuaScript("""
redis.call('SET', KEYS[1], ARGV[1], 'NX')
return {redis.call('GET', KEYS[1]), redis.call('GET', KEYS[2])}
""")
# KEYS: entry. ARGV: its header before the load, the new entry, the time to live in milliseconds.
_STORE = LuaScript(f"""
if redis.call('GETRANGE', KEYS[1], 0, {_HEADER_BYTES - 1}) == ARGV[1] then
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
end
""")
# KEYS: entries, and generations of whole namespaces. ARGV: a new token, which replaces the value of
# each of these keys; the time to live of the token in milliseconds; the channel; the message.
_INVALIDATE = LuaScript("""
for _, name in ipairs(KEYS) do redis.call('SET', name, ARGV[1], 'PX', ARGV[2]) end
redis.call('PUBLISH', ARGV[3], ARGV[4])
""")


class VersionToken(NamedTuple):
    """The generation of the namespace and the header of the entry, as read before a load.

    RedisCache compares the header after the load, to detect an invalidation during the load. The
    header is empty if there is no entry.
    """

    generation: bytes
    header: bytes


class RedisCache:
    """A cache in Redis. While Redis is unavailable, every call uses the loader.

    - The Redis key `markethall:cache:{namespace}` contains the generation of the namespace, which
      is a random token. Writing a new token invalidates the whole namespace. A counter would not be
      safe: it would start at 0 again when Redis loses its data, and could reach an old generation.
    - `markethall:cache:{namespace}:key` contains an entry: a header (the byte "v" and the
      generation), then the value. TombstoneChannel invalidates a key by replacing its entry with a
      tombstone, which is a random token without the "v".
    - The result of a load is stored with the generation read before the load, and only if the
      header of the entry is still the same as before the load. So no stale value becomes readable
      after an invalidation or a loss of data, even if Redis executes the store command late.
    - Keys for which `is_pending` is true are not read from Redis, because this process has
      invalidated them but has not yet sent the invalidation to Redis.
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
        """Return the stored value, or the result of `load`. Raises only the errors of `load`."""
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


class RedisChannel:
    """Sends and receives messages with pub/sub."""

    max_message_bytes = 64 * 1024

    def __init__(self, redis: RedisClient) -> None:
        self._redis = redis

    async def send(self, _: Collection[Invalidation], message: bytes) -> None:
        await self._redis.execute("PUBLISH", _CHANNEL, message)

    def subscribe(self) -> AbstractAsyncContextManager[Callable[[], Awaitable[bytes]]]:
        return self._redis.subscribe(_CHANNEL, HEARTBEAT_INTERVAL)


class TombstoneChannel(RedisChannel):
    """Sends and receives messages with pub/sub, for a bus whose keys are cached by RedisCache.

    The Lua script that publishes a message also writes the tombstones of its keys.
    """

    async def send(self, invalidations: Collection[Invalidation], message: bytes) -> None:
        names = [redis_name(*invalidation) for invalidation in invalidations]
        arguments = (new_token(), int(TOMBSTONE_TTL * 1000), _CHANNEL, message)
        await self._redis.run_script(_INVALIDATE, names, *arguments)


def new_token() -> bytes:
    return secrets.token_bytes(_TOKEN_BYTES)


def redis_name(namespace: str, key: str | None) -> bytes:
    """Return the Redis key of an entry, or of the generation if `key` is None.

    The braces around the namespace are part of the Redis key. Long keys are hashed.
    """
    prefix = f"markethall:cache:{{{namespace}}}".encode()
    if key is None:
        return prefix
    encoded = key.encode("utf-8", "surrogatepass")
    if len(encoded) > _MAX_KEY_BYTES:
        encoded = b"#" + sha256(encoded).hexdigest().encode()
    return prefix + b":" + encoded
