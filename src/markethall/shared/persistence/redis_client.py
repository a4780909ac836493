"""The Redis client. Redis never has the only copy of data, so it may be unavailable at any time."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from hashlib import sha1
from typing import Any, TypeVar

from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.client import PubSub
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError, ResponseError

from markethall.shared.kernel.circuit_breaker import Breaker, BreakerOpen

T = TypeVar("T")
CommandArgument = str | bytes | int


class RedisUnavailable(Exception):
    """Redis has rejected a command, or has not answered in time.

    Callers handle this error, so that an API client never gets it.
    """


class LuaScript:
    """A Lua script. Redis caches it, so usually only its hash is sent."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.sha = sha1(source.encode(), usedforsecurity=False).hexdigest()


class RedisClient:
    """The connections to one Redis server, opened at the first command.

    The `timeout` of a command, in seconds, includes the wait for a connection. Every failure raises
    RedisUnavailable. After several failures in a row the circuit breaker opens: commands then fail
    at once, except for a probe at intervals. No command is retried, because one that timed out may
    have been executed. Without a URL every command raises RedisUnavailable.
    """

    def __init__(
        self,
        url: str | None,
        *,
        timeout: float = 0.1,
        max_connections: int = 16,
        breaker: Breaker | None = None,
    ) -> None:
        self.timeout = timeout
        self.breaker = breaker or Breaker(time.monotonic)
        self._redis = _create_client(url, max_connections) if url else None
        # callers wait for this before they take a connection, because redis-py does not wait: it
        # raises an error when its pool is empty
        self._free_connections = asyncio.Semaphore(max_connections)

    @property
    def is_configured(self) -> bool:
        """Tell whether this client has a URL and is not closed."""
        return self._redis is not None

    def deadline_in(self, seconds: float | None = None) -> float:
        """Return a deadline for one or more commands, by the clock of the event loop."""
        now = asyncio.get_running_loop().time()
        return now + (self.timeout if seconds is None else seconds)

    async def execute(self, *command: CommandArgument, deadline: float | None = None) -> Any:
        """Return the reply as redis-py parses it; strings are bytes. Raises RedisUnavailable."""
        return await self._run_with_breaker(lambda: self._send_command(*command), deadline)

    async def run_script(
        self,
        script: LuaScript,
        keys: Sequence[CommandArgument],
        *args: CommandArgument,
        deadline: float | None = None,
    ) -> Any:
        """Run the script and return its result. Raises RedisUnavailable.

        This takes two round trips if Redis has not cached the script.
        """
        arguments = (len(keys), *keys, *args)

        async def evaluate() -> Any:
            try:
                return await self._send_command("EVALSHA", script.sha, *arguments)
            except NoScriptError:
                return await self._send_command("EVAL", script.source, *arguments)

        return await self._run_with_breaker(evaluate, deadline)

    async def ping(self) -> bool:
        """Tell whether Redis answers.

        The ping is sent even while the breaker is open, and its result updates the breaker.
        """
        if self._redis is None:
            return False
        try:
            await self._run_with_deadline(lambda: self._send_command("PING"), None)
        except (_NoResponse, ResponseError):
            self.breaker.record_failure()
            return False
        self.breaker.record_success()
        return True

    @asynccontextmanager
    async def subscribe(
        self, channel: str, heartbeat_interval: float
    ) -> AsyncIterator[Callable[[], Awaitable[bytes]]]:
        """Yield a function that waits for the next message.

        After `heartbeat_interval` seconds without a message the connection is pinged; the answer
        must arrive within the same time. This method and the function raise RedisUnavailable.
        """
        if self._redis is None:
            raise RedisUnavailable("no Redis is configured")
        subscription = ChannelSubscription(self._redis.pubsub(), heartbeat_interval)
        try:
            await subscription.start(channel)
            yield subscription.next_message
        except (OSError, RedisError) as error:
            raise RedisUnavailable(str(error)) from error
        finally:
            with suppress(Exception):
                await subscription.close()

    async def close(self) -> None:
        """Close all connections; later commands raise RedisUnavailable."""
        redis, self._redis = self._redis, None
        if redis is not None:
            # limited in time, because a paused server does not answer the end of a TLS connection
            with suppress(Exception):
                async with asyncio.timeout(self.timeout):
                    await redis.aclose()

    async def _send_command(self, *arguments: CommandArgument) -> Any:
        if self._redis is None:
            raise ConnectionError("closed")
        execute: Any = self._redis.execute_command  # untyped in redis-py
        return await execute(*arguments)

    async def _run_with_breaker(
        self, operation: Callable[[], Awaitable[T]], deadline: float | None
    ) -> T:
        if self._redis is None:
            raise RedisUnavailable("no Redis is configured")
        try:
            with self.breaker.guard(_NoResponse):
                return await self._run_with_deadline(operation, deadline)
        except BreakerOpen:
            raise RedisUnavailable("the circuit breaker is open") from None
        except ResponseError as error:
            # any reply shows that the server is reachable, also an error such as "out of memory"
            self.breaker.record_success()
            raise RedisUnavailable(str(error)) from error
        except _NoResponse as error:
            raise RedisUnavailable(str(error)) from error.__cause__

    async def _run_with_deadline(
        self, operation: Callable[[], Awaitable[T]], deadline: float | None
    ) -> T:
        expires_at = self.deadline_in() if deadline is None else deadline
        try:
            async with asyncio.timeout_at(expires_at), self._free_connections:
                return await operation()
        except ResponseError:
            raise
        except Exception as error:
            raise _NoResponse(str(error) or type(error).__name__) from error


class ChannelSubscription:
    """A connection that is subscribed to one channel."""

    def __init__(self, pubsub: PubSub, heartbeat_interval: float) -> None:
        self._pubsub = pubsub
        self._heartbeat_interval = heartbeat_interval

    async def start(self, channel: str) -> None:
        async with asyncio.timeout(2 * self._heartbeat_interval):
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
                await self._pubsub.ping()
            elif message["type"] == "message":
                return bytes(message["data"])
            is_ping_pending = message is None

    async def close(self) -> None:
        close: Any = self._pubsub.aclose  # untyped in redis-py
        await close()

    async def _receive(self) -> Any:
        return await self._pubsub.get_message(timeout=self._heartbeat_interval)


class _NoResponse(Exception):
    """Redis has sent no reply, or one that redis-py cannot parse."""


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
