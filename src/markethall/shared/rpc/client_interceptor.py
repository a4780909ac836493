"""Call guard: the same rules for every contract call, in process and over HTTP.

It checks the allow-list, rejects a caller that holds a database connection, and stops waiting at
the deadline. The callee continues after that, in process as it does over HTTP.
"""

import asyncio
import functools
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Any, TypeVar, cast

import structlog

from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.clock import Clock
from markethall.shared.kernel.errors import (
    CalledWhileHoldingConnection,
    DeadlineExceeded,
    DomainError,
    Forbidden,
    InternalError,
)
from markethall.shared.observability.metrics import RPC_CLIENT_CALLS
from markethall.shared.persistence.held_connection import HOLDS_CONNECTION

log = structlog.get_logger("markethall.rpc")

T = TypeVar("T")
Method = Callable[..., Coroutine[Any, Any, Any]]


class AllowList:
    """The callers of each contract method; a method that is not listed has none."""

    def __init__(self, allowed_calls: Mapping[Any, Mapping[str, frozenset[Any]]]) -> None:
        """`allowed_calls`: target -> method -> callers."""
        self._allowed_calls = allowed_calls

    def check(self, caller: str, target: str, method: str) -> None:
        """Raises Forbidden. Details: scope, caller."""
        if caller not in self._allowed_calls.get(target, {}).get(method, frozenset()):
            scope = f"{target}.{method}"
            raise Forbidden(f"{caller} may not call {scope}.", scope=scope, caller=caller)


class InFlightCalls:
    """Tasks of running calls, also of those whose caller has stopped waiting."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, coroutine: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._on_done)
        return task

    async def drain(self, timeout_seconds: float) -> None:
        """Wait for running calls at shutdown, then cancel those that remain."""
        tasks = list(self._tasks)
        if tasks:
            await asyncio.wait(tasks, timeout=timeout_seconds)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _on_done(self, task: "asyncio.Task[Any]") -> None:
        self._tasks.discard(task)
        with suppress(asyncio.CancelledError):
            # retrieved, or asyncio logs an error if the caller has stopped waiting
            task.exception()


class CallGuard:
    """Guards the calls of one caller to the contract of one target."""

    def __init__(
        self,
        caller: str,
        target: str,
        allow_list: AllowList,
        in_flight_calls: InFlightCalls,
        clock: Clock,
        timeout_seconds: float,
    ) -> None:
        self._caller = caller
        self._target = target
        self._allow_list = allow_list
        self._in_flight_calls = in_flight_calls
        self._clock = clock
        self._timeout = timedelta(seconds=timeout_seconds)

    async def invoke(
        self, method_name: str, method: Method, ctx: CallContext, *args: Any, **kwargs: Any
    ) -> Any:
        """Call the method. Raises its errors, and those of the guard.

        Raises CalledWhileHoldingConnection, Forbidden, DeadlineExceeded.
        """
        if HOLDS_CONNECTION.get():
            raise CalledWhileHoldingConnection(
                f"{method.__qualname__} was called while the caller held a connection"
            )
        outcome = "ok"
        try:
            self._allow_list.check(self._caller, self._target, method_name)
            return await self._invoke_before_deadline(method, ctx, args, kwargs)
        except DomainError as error:
            outcome = error.code
            raise
        except BaseException as error:
            outcome = type(error).__name__
            raise
        finally:
            _call_counter(self._target, method_name, outcome).inc()

    async def _invoke_before_deadline(
        self, method: Method, ctx: CallContext, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        now = self._clock()
        deadline = min(ctx.deadline or now + self._timeout, now + self._timeout)
        seconds = (deadline - now).total_seconds()
        if seconds <= 0:
            raise DeadlineExceeded(dependency=self._target)
        bounded_ctx = (
            ctx if ctx.deadline == deadline else ctx.model_copy(update={"deadline": deadline})
        )
        task = self._in_flight_calls.start(
            self._translate_failure(method(bounded_ctx, *args, **kwargs), bounded_ctx)
        )
        # asyncio.wait_for would cancel the callee, which is impossible over HTTP
        await asyncio.wait({task}, timeout=seconds)
        if not task.done():
            raise DeadlineExceeded(dependency=self._target)
        return task.result()

    async def _translate_failure(
        self, coroutine: Coroutine[Any, Any, Any], ctx: CallContext
    ) -> Any:
        """Turn a bug of the callee into InternalError, as over HTTP.

        The bug is logged here, because the caller may have stopped waiting.
        """
        try:
            return await coroutine
        except DomainError:
            raise
        except Exception as error:
            log.exception("rpc.handler_failed", target=self._target, request_id=ctx.request_id)
            raise InternalError(error_id=ctx.request_id) from error


_call_counter = functools.lru_cache(maxsize=1024)(RPC_CLIENT_CALLS.labels)


class _GuardedService:
    def __init__(self, service: object, guard: CallGuard) -> None:
        self._service = service
        self._guard = guard

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        method = getattr(self._service, name)

        @functools.wraps(method)
        async def invoke(ctx: CallContext, *args: Any, **kwargs: Any) -> Any:
            return await self._guard.invoke(name, method, ctx, *args, **kwargs)

        setattr(self, name, invoke)
        return invoke


def with_call_guard(service: T, guard: CallGuard) -> T:
    """Return the service with the guard around each of its methods."""
    return cast("T", _GuardedService(service, guard))
