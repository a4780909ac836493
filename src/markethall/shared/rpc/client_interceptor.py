"""Call guard: the same rules for every contract call, in process and over HTTP.

It checks the allow-list, rejects a caller that holds a database connection, and raises
DeadlineExceeded at the deadline. The callee continues after the deadline, in process and over HTTP.
"""

import asyncio
import functools
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Any, Concatenate, ParamSpec, TypeVar

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
from markethall.shared.persistence.database import HOLDS_CONNECTION

log = structlog.get_logger("markethall.rpc")

P = ParamSpec("P")
T = TypeVar("T")


class AllowList:
    """The allowed callers of each contract method. A method that is not listed has no callers."""

    def __init__(self, allowed_calls: Mapping[Any, Mapping[str, frozenset[Any]]]) -> None:
        """`allowed_calls` maps a target and a method to the allowed callers."""
        self._allowed_calls = allowed_calls

    def check(self, caller: str, target: str, method: str) -> None:
        """Raise Forbidden, with the details `scope` and `caller`, unless the call is allowed."""
        if caller not in self._allowed_calls.get(target, {}).get(method, frozenset()):
            scope = f"{target}.{method}"
            raise Forbidden(f"{caller} may not call {scope}.", scope=scope, caller=caller)


class InFlightCalls:
    """The tasks of running calls, including calls whose caller has stopped waiting."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, coroutine: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._on_done)
        return task

    async def drain(self, timeout_seconds: float) -> None:
        """Wait for running calls at shutdown; after the timeout cancel the remaining ones."""
        tasks = list(self._tasks)
        if tasks:
            await asyncio.wait(tasks, timeout=timeout_seconds)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _on_done(self, task: "asyncio.Task[Any]") -> None:
        self._tasks.discard(task)
        with suppress(asyncio.CancelledError):
            # read the exception: if the caller stopped waiting, asyncio would log it as unretrieved
            task.exception()


class CallGuard:
    """Checks the calls of one context (caller) to the contract of another (target)."""

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
        self.target = target
        self._allow_list = allow_list
        self._in_flight_calls = in_flight_calls
        self._clock = clock
        self._timeout = timedelta(seconds=timeout_seconds)

    async def invoke(
        self,
        ctx: CallContext,
        method: str,
        call: Callable[Concatenate[CallContext, P], Coroutine[Any, Any, T]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Check and await the call with these arguments. Raises the errors of the callee.

        The guard raises CalledWhileHoldingConnection, Forbidden and DeadlineExceeded.
        """
        if HOLDS_CONNECTION.get():
            raise CalledWhileHoldingConnection(
                f"{self.target}.{method} was called while the caller held a connection"
            )
        outcome = "ok"
        try:
            self._allow_list.check(self._caller, self.target, method)
            return await self._await_before_deadline(ctx, lambda ctx: call(ctx, *args, **kwargs))
        except DomainError as error:
            outcome = error.code
            raise
        except BaseException as error:
            outcome = type(error).__name__
            raise
        finally:
            _call_counter(self.target, method, outcome).inc()

    async def _await_before_deadline(
        self, ctx: CallContext, call: Callable[[CallContext], Coroutine[Any, Any, T]]
    ) -> T:
        now = self._clock()
        deadline = min(ctx.deadline or now + self._timeout, now + self._timeout)
        seconds = (deadline - now).total_seconds()
        if seconds <= 0:
            raise DeadlineExceeded(dependency=self.target)
        if ctx.deadline != deadline:
            ctx = ctx.model_copy(update={"deadline": deadline})
        task = self._in_flight_calls.start(self._translate_failure(call(ctx), ctx))
        # not asyncio.wait_for, which would cancel the callee: a call in process must behave like a
        # call over HTTP, where the callee continues
        await asyncio.wait({task}, timeout=seconds)
        if not task.done():
            raise DeadlineExceeded(dependency=self.target)
        return task.result()

    async def _translate_failure(self, call: Coroutine[Any, Any, T], ctx: CallContext) -> T:
        """Raise InternalError instead of an unexpected exception, as a call over HTTP does.

        The exception is logged here, because the caller may have stopped waiting.
        """
        try:
            return await call
        except DomainError:
            raise
        except Exception as error:
            log.exception("rpc.handler_failed", target=self.target, request_id=ctx.request_id)
            raise InternalError(error_id=ctx.request_id) from error


_call_counter = functools.lru_cache(maxsize=1024)(RPC_CLIENT_CALLS.labels)
