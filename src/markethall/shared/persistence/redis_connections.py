"""The connections to a Redis server, with redis-py.

`RedisClient` imports this module if Redis is configured, because the import of redis-py takes
100 ms and 8 MB.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.client import PubSub
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError, ResponseError

from markethall.shared.persistence.redis_client import ErrorReply, ScriptNotCached


class RedisConnections:
    """A pool of connections. It has no timeouts: the caller limits the time of each call."""

    def __init__(self, url: str, max_connections: int) -> None:
        self._redis = _create_client(url, max_connections)

    async def execute(self, *command: str | bytes | int) -> Any:
        """Return the reply. Raises ErrorReply; other exceptions mean that there is no reply."""
        execute: Any = self._redis.execute_command  # untyped in redis-py
        try:
            return await execute(*command)
        except NoScriptError as error:
            raise ScriptNotCached(str(error)) from error
        except ResponseError as error:
            raise ErrorReply(str(error)) from error

    def subscription(self, heartbeat_interval: float) -> "ChannelSubscription":
        return ChannelSubscription(self._redis.pubsub(), heartbeat_interval)

    async def close(self) -> None:
        await self._redis.aclose()


class ChannelSubscription:
    """A connection that is subscribed to one channel. Each method may raise OSError."""

    def __init__(self, pubsub: PubSub, heartbeat_interval: float) -> None:
        self._pubsub = pubsub
        self._heartbeat_interval = heartbeat_interval

    async def start(self, channel: str) -> None:
        async with asyncio.timeout(2 * self._heartbeat_interval):
            with _no_redis_errors():
                await self._pubsub.subscribe(channel)
            while (await self._receive() or {}).get("type") != "subscribe":
                pass

    async def next_message(self) -> bytes:
        is_ping_pending = False
        while True:
            message = await self._receive()
            if message is None:
                if is_ping_pending:
                    raise TimeoutError("no answer to a ping")
                with _no_redis_errors():
                    await self._pubsub.ping()
            elif message["type"] == "message":
                return bytes(message["data"])
            is_ping_pending = message is None

    async def close(self) -> None:
        close: Any = self._pubsub.aclose  # untyped in redis-py
        await close()

    async def _receive(self) -> Any:
        with _no_redis_errors():
            return await self._pubsub.get_message(timeout=self._heartbeat_interval)


@contextmanager
def _no_redis_errors() -> Iterator[None]:
    """Raise ConnectionError instead of the errors of redis-py."""
    try:
        yield
    except RedisError as error:
        raise ConnectionError(str(error)) from error


def _create_client(url: str, max_connections: int) -> "Redis":
    """Return a redis-py client with its own timeouts, retries and handshake switched off.

    By default redis-py 8 retries ten times, waits five seconds, sends four commands at the start of
    a connection, and lets the server lengthen the timeouts (maintenance notifications, RESP3 only).
    RedisClient sets one deadline for the whole command instead. At the deadline, or when the caller
    is cancelled, redis-py closes the connection (`AbstractConnection.read_response`), so the next
    command never reads a late reply.
    """
    pool = ConnectionPool.from_url(
        url,
        # one more connection, for ChannelSubscription
        max_connections=max_connections + 1,
        protocol=2,
        driver_info=None,
        socket_timeout=None,
        socket_connect_timeout=None,
        retry=Retry(NoBackoff(), 0),
    )
    return Redis.from_pool(pool)
