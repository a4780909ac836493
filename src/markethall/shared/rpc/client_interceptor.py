"""The caller's side of every contract call: the same laws in process and over the wire.

Who may call what (the allow-list), never with a connection in hand, and only until the deadline.
Giving up waiting does not undo the work: the callee goes on, here as it would elsewhere.
"""

import asyncio
import functools
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Any, TypeVar

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


class AllowList:
    """Who may call which method of whom; what is not in the table may not be called."""

    def __init__(self, allowed_calls: Mapping[Any, Mapping[str, frozenset[Any]]]) -> None:
        """`callers`: target -> method -> who may call it."""
        self._allowed_calls = allowed_calls

    def check(self, caller: str, target: str, method: str) -> None:
        """Raises Forbidden. Details: scope, caller."""
        if caller not in self._allowed_calls.get(target, {}).get(method, frozenset()):
            scope = f"{target}.{method}"
            raise Forbidden(f"{caller} may not call {scope}.", scope=scope, caller=caller)


class InFlightCalls:
    """The calls that are under way, also those that nobody waits for any more."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, coroutine: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._on_done)
        return task

    async def drain(self, timeout_seconds: float) -> None:
        """At the end of the process: what is under way may end, within this time."""
        tasks = list(self._tasks)
        if tasks:
            await asyncio.wait(tasks, timeout=timeout_seconds)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _on_done(self, task: "asyncio.Task[Any]") -> None:
        self._tasks.discard(task)
        with suppress(asyncio.CancelledError):
            task.exception()  # looked at, so that nobody complains when the caller has gone


class CallGuard:
    """One caller's way to one target's contract."""

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
        self, ctx: CallContext, method: str, call: Callable[[CallContext], Coroutine[Any, Any, T]]
    ) -> T:
        """Await the call with a deadline.

        Raises CalledWhileHoldingConnection, Forbidden, DeadlineExceeded, InternalError, and the
        domain errors of the method.
        """
        if HOLDS_CONNECTION.get():
            raise CalledWhileHoldingConnection(
                f"{self._target}.{method} was called with a connection in hand"
            )
        outcome = "ok"
        try:
            self._allow_list.check(self._caller, self._target, method)
            return await self._await_before_deadline(ctx, call)
        except DomainError as error:
            outcome = error.code
            raise
        except BaseException as error:
            outcome = type(error).__name__
            raise
        finally:
            _call_counter(self._target, method, outcome).inc()

    async def _await_before_deadline(
        self, ctx: CallContext, call: Callable[[CallContext], Coroutine[Any, Any, T]]
    ) -> T:
        now = self._clock()
        deadline = min(ctx.deadline or now + self._timeout, now + self._timeout)
        seconds = (deadline - now).total_seconds()
        if seconds <= 0:
            raise DeadlineExceeded(dependency=self._target)
        if ctx.deadline != deadline:
            ctx = ctx.model_copy(update={"deadline": deadline})
        task = self._in_flight_calls.start(self._translate_failure(call(ctx), ctx))
        # not wait_for: that would cancel a call which could not be cancelled over HTTP
        await asyncio.wait({task}, timeout=seconds)
        if not task.done():
            raise DeadlineExceeded(dependency=self._target)
        return task.result()

    async def _translate_failure(self, call: Coroutine[Any, Any, T], ctx: CallContext) -> T:
        """Raise InternalError for a fault of the target, as over HTTP.

        The fault is logged here, because the caller may have stopped waiting.
        """
        try:
            return await call
        except DomainError:
            raise
        except Exception as error:
            log.exception("rpc.handler_failed", target=self._target, request_id=ctx.request_id)
            raise InternalError(error_id=ctx.request_id) from error


_call_counter = functools.lru_cache(maxsize=1024)(RPC_CLIENT_CALLS.labels)
