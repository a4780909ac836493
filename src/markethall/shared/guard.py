"""The caller's side of every contract call: the same laws in process and over the wire.

Who may call what (the allow-list), never with a connection in hand, and only until the deadline.
Giving up waiting does not undo the work: the callee goes on, here as it would elsewhere.
"""

import asyncio
import functools
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Any, TypeVar, cast

import structlog

from markethall.shared.call import Call
from markethall.shared.clock import Clock
from markethall.shared.db import IN_TRANSACTION
from markethall.shared.errors import (
    CalledInTransaction,
    DeadlineExceeded,
    Forbidden,
    Internal,
    Refusal,
)
from markethall.shared.metrics import NEIGHBOUR_CALLS

log = structlog.get_logger("markethall.guard")

T = TypeVar("T")
Method = Callable[..., Coroutine[Any, Any, Any]]


class AllowList:
    """Who may call which method of whom; what is not in the table may not be called."""

    def __init__(self, callers: Mapping[Any, Mapping[str, frozenset[Any]]]) -> None:
        """`callers`: target -> method -> who may call it."""
        self._callers = callers

    def check(self, caller: str, target: str, method: str) -> None:
        """Raises Forbidden. Details: scope, caller."""
        if caller not in self._callers.get(target, {}).get(method, frozenset()):
            scope = f"{target}.{method}"
            raise Forbidden(f"{caller} may not call {scope}.", scope=scope, caller=caller)


class Errands:
    """The calls that are under way, also those that nobody waits for any more."""

    def __init__(self) -> None:
        self._going: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        task = asyncio.create_task(work)
        self._going.add(task)
        task.add_done_callback(self._ended)
        return task

    async def finish(self, seconds: float) -> None:
        """At the end of the process: what is under way may end, within this time."""
        going = list(self._going)
        if going:
            await asyncio.wait(going, timeout=seconds)
        for task in going:
            task.cancel()
        await asyncio.gather(*going, return_exceptions=True)

    def _ended(self, task: "asyncio.Task[Any]") -> None:
        self._going.discard(task)
        with suppress(asyncio.CancelledError):
            task.exception()  # looked at, so that nobody complains when the caller has gone


class Guard:
    """One caller's way to one target's contract."""

    def __init__(  # noqa: PLR0917 - who, to whom, by which rules
        self,
        caller: str,
        target: str,
        allowed: AllowList,
        errands: Errands,
        clock: Clock,
        seconds: float,
    ) -> None:
        self._caller = caller
        self._target = target
        self._allowed = allowed
        self._errands = errands
        self._clock = clock
        self._limit = timedelta(seconds=seconds)

    async def ask(self, name: str, method: Method, call: Call, *given: Any, **named: Any) -> Any:
        """Raises CalledInTransaction, Forbidden, DeadlineExceeded, and what the method raises."""
        if IN_TRANSACTION.get():
            raise CalledInTransaction(f"{method.__qualname__} was called with a connection in hand")
        outcome = "ok"
        try:
            self._allowed.check(self._caller, self._target, name)
            return await self._bounded(method, call, given, named)
        except Refusal as refusal:
            outcome = refusal.code
            raise
        except BaseException as error:
            outcome = type(error).__name__
            raise
        finally:
            _calls(self._target, name, outcome).inc()

    async def _bounded(
        self, method: Method, call: Call, given: tuple[Any, ...], named: dict[str, Any]
    ) -> Any:
        now = self._clock()
        until = min(call.deadline or now + self._limit, now + self._limit)
        seconds = (until - now).total_seconds()
        if seconds <= 0:
            raise DeadlineExceeded(dependency=self._target)
        bounded = call if call.deadline == until else call.model_copy(update={"deadline": until})
        task = self._errands.start(self._told(method(bounded, *given, **named), bounded))
        # not wait_for: that would cancel what over the wire could not be cancelled
        await asyncio.wait({task}, timeout=seconds)
        if not task.done():
            raise DeadlineExceeded(dependency=self._target)
        return task.result()

    async def _told(self, work: Coroutine[Any, Any, Any], call: Call) -> Any:
        """A fault of the neighbour's is Internal, as it would be over the wire.

        It is told where it happens: perhaps nobody waits for it any more.
        """
        try:
            return await work
        except Refusal:
            raise
        except Exception as error:
            log.exception("neighbour.failed", target=self._target, request_id=call.request_id)
            raise Internal(error_id=call.request_id) from error


_calls = functools.lru_cache(maxsize=1024)(NEIGHBOUR_CALLS.labels)


class _Guarded:
    def __init__(self, service: object, guard: Guard) -> None:
        self._service = service
        self._guard = guard

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        method = getattr(self._service, name)

        @functools.wraps(method)
        async def ask(call: Call, *given: Any, **named: Any) -> Any:
            return await self._guard.ask(name, method, call, *given, **named)

        setattr(self, name, ask)
        return ask


def guarded(service: T, guard: Guard) -> T:
    """The service, asked through the guard: over the wire or in process, the laws are the same."""
    return cast("T", _Guarded(service, guard))
