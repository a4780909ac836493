"""The Redis client. Redis never has the only copy of data, so it may be unavailable at any time."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from hashlib import sha1
from typing import TYPE_CHECKING, Any, Final, TypeVar

import structlog

from markethall.shared.kernel.circuit_breaker import Breaker, BreakerOpen
from markethall.shared.observability.metrics import REDIS_AVAILABLE

if TYPE_CHECKING:
    from markethall.shared.persistence.redis_connections import RedisConnections

log = structlog.get_logger("markethall.redis")

_INTERVAL_SECONDS: Final = 5.0
T = TypeVar("T")
CommandArgument = str | bytes | int


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
        self._connections = _connect(url, max_connections) if url else None
        # callers wait for this before they take a connection, because redis-py does not wait: it
        # raises an error when its pool is empty
        self._free_connections = asyncio.Semaphore(max_connections)

    @property
    def is_configured(self) -> bool:
        """Tell whether this client has a URL and is not closed."""
        return self._connections is not None

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
            except ScriptNotCached:
                return await self._send_command("EVAL", script.source, *arguments)

        return await self._run_with_breaker(evaluate, deadline)

    async def ping(self) -> bool:
        """Tell whether Redis answers.

        The ping is sent even while the breaker is open, and its result updates the breaker.
        """
        if self._connections is None:
            return False
        try:
            await self._run_with_deadline(lambda: self._send_command("PING"), None)
        except (_NoResponse, ErrorReply):
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
        if self._connections is None:
            raise RedisUnavailable("no Redis is configured")
        subscription = self._connections.subscription(heartbeat_interval)
        try:
            await subscription.start(channel)
            yield subscription.next_message
        except OSError as error:
            raise RedisUnavailable(str(error)) from error
        finally:
            with suppress(Exception):
                await subscription.close()

    async def close(self) -> None:
        """Close all connections; later commands raise RedisUnavailable."""
        connections, self._connections = self._connections, None
        if connections is not None:
            # limited in time, because a paused server does not answer the end of a TLS connection
            with suppress(Exception):
                async with asyncio.timeout(self.timeout):
                    await connections.close()

    async def _send_command(self, *arguments: CommandArgument) -> Any:
        if self._connections is None:
            raise ConnectionError("closed")
        return await self._connections.execute(*arguments)

    async def _run_with_breaker(
        self, operation: Callable[[], Awaitable[T]], deadline: float | None
    ) -> T:
        if self._connections is None:
            raise RedisUnavailable("no Redis is configured")
        try:
            with self.breaker.guard(_NoResponse):
                return await self._run_with_deadline(operation, deadline)
        except BreakerOpen:
            raise RedisUnavailable("the circuit breaker is open") from None
        except ErrorReply as error:
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
        except ErrorReply:
            raise
        except Exception as error:
            raise _NoResponse(str(error) or type(error).__name__) from error


class _NoResponse(Exception):
    """Redis has sent no reply, or one that redis-py cannot parse."""


def _connect(url: str, max_connections: int) -> "RedisConnections":
    # imported only if Redis is configured, because the import of redis-py takes 100 ms and 8 MB
    from markethall.shared.persistence.redis_connections import RedisConnections

    return RedisConnections(url, max_connections)


class RedisUnavailable(Exception):
    """Redis has rejected a command, or has not answered in time.

    Callers handle this error, so that an API client never gets it.
    """


class ErrorReply(Exception):
    """Redis has answered a command with an error."""


class ScriptNotCached(ErrorReply):
    """Redis does not know the script of an EVALSHA."""


async def monitor_redis(redis: RedisClient, interval_seconds: float = _INTERVAL_SECONDS) -> None:
    """Ping Redis until cancelled, and log each change of its availability.

    Redis counts as available before the first ping, so a first ping that succeeds logs nothing.
    """
    was_available = True
    while True:
        is_available = await redis.ping()
        REDIS_AVAILABLE.set(is_available)
        if is_available != was_available:
            _log_change(is_available=is_available)
        was_available = is_available
        await asyncio.sleep(interval_seconds)


def _log_change(*, is_available: bool) -> None:
    if is_available:
        log.info("redis.available")
    else:
        log.warning("redis.unavailable", note="slower reads, limits per process, waiting events")
