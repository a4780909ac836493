"""The invalidation bus: sends cache invalidations to the other processes through Redis."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from typing import Final, Protocol

import structlog

from markethall.shared.cache.keys import CacheKey, Invalidation
from markethall.shared.cache.redis_cache import TOMBSTONE_TTL, new_token, redis_name
from markethall.shared.persistence.redis_client import LuaScript, RedisClient, RedisUnavailable

log = structlog.get_logger("markethall.cache")

# seconds; a connection without messages for this time is pinged, and must answer within it
HEARTBEAT_INTERVAL: Final = 0.5
_RETRY_INTERVAL: Final = 0.25
_MAX_PENDING: Final = 1000
_CHANNEL: Final = "markethall:cache"

# KEYS: names of entries. ARGV: tombstone, its time to live in milliseconds, channel, message.
_INVALIDATE = LuaScript("""
for _, name in ipairs(KEYS) do redis.call('SET', name, ARGV[1], 'PX', ARGV[2]) end
redis.call('PUBLISH', ARGV[3], ARGV[4])
""")


class InvalidationListener(Protocol):
    def on_invalidated(self, invalidations: Collection[Invalidation]) -> None:
        """Drop the entries that another process has invalidated."""

    def on_connection_changed(self, connected: bool) -> None:
        """Called when the connection is made or lost; earlier messages may have been missed."""


class InvalidationBus:
    """Sends the invalidations of this process to other processes, and receives theirs.

    One Lua script writes the tombstones of RedisCache and publishes the message. If sending fails,
    the batch is sent again.
    """

    def __init__(self, redis: RedisClient) -> None:
        self._redis = redis
        self._sender = new_token().hex().encode()
        self._pending: set[Invalidation] = set()
        self._sending: set[Invalidation] = set()
        self._has_pending = asyncio.Event()

    def publish(self, invalidations: Collection[Invalidation]) -> None:
        """Add to the next message. Never raises and never waits."""
        self._pending = _bounded({*self._pending, *invalidations})
        self._has_pending.set()

    def is_pending(self, key: CacheKey) -> bool:
        names = {key, (key[0], None)}
        return not (names.isdisjoint(self._pending) and names.isdisjoint(self._sending))

    async def listen(self, listener: InvalidationListener) -> None:
        """Send and receive until cancelled; connect again after every failure."""
        # created here, because an asyncio.Event belongs to the event loop of its first wait
        self._has_pending = asyncio.Event()
        await asyncio.gather(
            _keep_running(self._send), _keep_running(lambda: self._receive(listener))
        )

    async def flush(self) -> None:
        """Try once to send the pending invalidations. RedisUnavailable is ignored."""
        with suppress(RedisUnavailable):
            await self._send_pending()

    async def _send(self) -> None:
        while True:
            await self._send_pending()
            await self._has_pending.wait()
            self._has_pending.clear()

    async def _send_pending(self) -> None:
        # `_pending` is emptied before sending: if a key is invalidated again meanwhile, it is sent
        # again
        self._sending, self._pending = _bounded(self._sending | self._pending), set()
        if self._sending:
            names = [redis_name(*invalidation) for invalidation in self._sending]
            message = self._sender + json.dumps(list(self._sending)).encode()
            arguments = (new_token(), int(TOMBSTONE_TTL * 1000), _CHANNEL, message)
            await self._redis.run_script(_INVALIDATE, names, *arguments)
        self._sending = set()

    async def _receive(self, listener: InvalidationListener) -> None:
        async with self._redis.subscribe(_CHANNEL, HEARTBEAT_INTERVAL) as next_message:
            try:
                listener.on_connection_changed(True)
                while True:
                    message = await next_message()
                    if not message.startswith(self._sender):
                        listener.on_invalidated(_decode(message[len(self._sender) :]))
            finally:
                listener.on_connection_changed(False)


async def _keep_running(step: Callable[[], Awaitable[None]]) -> None:
    while True:
        try:
            await step()
        except RedisUnavailable:
            pass
        except Exception:  # the loop must go on, because the process would serve stale values
            log.exception("cache.invalidation_listener_failed")
        await asyncio.sleep(_RETRY_INTERVAL)


def _bounded(invalidations: set[Invalidation]) -> set[Invalidation]:
    """Replace the keys by their namespaces if there are too many for one message."""
    if len(invalidations) <= _MAX_PENDING:
        return invalidations
    return {(namespace, None) for namespace, _ in invalidations}


def _decode(message: bytes) -> Sequence[Invalidation]:
    """Return the invalidations of a message; none if another release uses another format."""
    try:
        return [(str(namespace), key) for namespace, key in json.loads(message)]
    except (ValueError, TypeError):
        return []
