"""RPC client: calls the contract of another context over HTTP.

Only this module retries contract calls. A call with an unknown outcome may be sent again, because
the caller chooses the ids and every method is idempotent.
"""

import asyncio
import functools
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, TypeVar

import httpx2
import structlog
from pydantic import BaseModel, ValidationError

from markethall.shared.kernel.call_context import DEADLINE_HEADER, CallContext
from markethall.shared.kernel.circuit_breaker import Breaker, BreakerOpen
from markethall.shared.kernel.clock import Clock
from markethall.shared.kernel.errors import (
    DeadlineExceeded,
    DomainError,
    InternalError,
    RouteNotFound,
    Unauthenticated,
    Unavailable,
)
from markethall.shared.observability.metrics import RPC_CLIENT_ATTEMPTS, RPC_CLIENT_CIRCUIT_OPEN
from markethall.shared.observability.tracing import outgoing_trace_headers
from markethall.shared.security.service_tokens import ServiceSigner

log = structlog.get_logger("markethall.rpc")

D = TypeVar("D", bound=BaseModel)

_GATEWAY_STATUSES: Final = {
    HTTPStatus.BAD_GATEWAY,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
}
# the errors that parsing a malformed document can raise
_DECODE_ERRORS: Final = (ValueError, LookupError, TypeError, RecursionError)
# httpx2 raises AttributeError or OSError if a connection is reset while httpx2 checks it
CONNECTION_ERRORS: Final = (httpx2.TransportError, OSError, AttributeError)
# Errors of a callee that may be temporary: they occur during a deployment or a key rotation.
# RpcClient raises Unavailable instead of them.
TEMPORARY_ERRORS: Final = (Unauthenticated, RouteNotFound)

# maximum of idle connections; it is low because httpx2 checks each one, for 12 us, on every call
MAX_KEEPALIVE: Final = 8


@dataclass(frozen=True)
class RetryPolicy:
    """Timeouts and retries of calls to other contexts."""

    connect_timeout_seconds: float = 0.5
    attempt_timeout_seconds: float = 2.0
    total_timeout_seconds: float = 5.0
    max_attempts: int = 3
    initial_backoff_seconds: float = 0.05
    max_connections: int = 32


class RetryBudget:
    """Limits retries. Each call adds `ratio` to the budget, and each retry takes 1 from it.

    The budget starts at `capacity`, which is also its maximum. Without a budget, an overloaded
    callee would get three attempts for every call.
    """

    def __init__(self, ratio: float = 0.1, capacity: float = 10.0) -> None:
        self._ratio = ratio
        self._capacity = capacity
        self._balance = capacity

    def earn(self) -> None:
        self._balance = min(self._capacity, self._balance + self._ratio)

    def spend(self) -> bool:
        """Take one retry from the budget; return False if the budget is exhausted."""
        if self._balance < 1:
            return False
        self._balance -= 1
        return True


class NoResponse(Exception):
    """There was no response, or a 502, 503 or 504. The callee may have executed the call."""

    def __init__(self, message: str, response: httpx2.Response | None = None) -> None:
        super().__init__(message)
        self.response = response


class RpcClient:
    """Calls the methods of one context (target) on behalf of another (caller)."""

    def __init__(
        self,
        caller: str,
        target: str,
        http: httpx2.AsyncClient,
        signer: ServiceSigner,
        clock: Clock,
        retry_policy: RetryPolicy,
    ) -> None:
        self._caller = caller
        self._target = target
        self._http = http
        self._signer = signer
        self._clock = clock
        self._retry_policy = retry_policy
        self._budget = RetryBudget()
        self._urls: dict[str, httpx2.URL] = {}
        self._breaker = Breaker(time.monotonic, failure_threshold=5, cool_down_seconds=1.0)
        RPC_CLIENT_CIRCUIT_OPEN.labels(target).set_function(lambda: self._breaker.state != "closed")

    async def call(
        self, ctx: CallContext, method: str, command: BaseModel, result_type: type[D]
    ) -> D:
        """Call a method and return its result.

        Raises the errors of the callee, with the same class and details. Raises Unavailable or
        DeadlineExceeded if there is no response, InternalError if the response is invalid.
        """
        content = await self._call_for_content(ctx, method, command)
        try:
            # DTOs ignore unknown fields of a newer callee
            return result_type.model_validate_json(content)
        except ValidationError as error:
            raise self._bad_response(ctx, method, "the response cannot be parsed") from error

    async def call_without_result(self, ctx: CallContext, method: str, command: BaseModel) -> None:
        """Call a method that returns nothing. Raises the same errors as `call`."""
        await self._call_for_content(ctx, method, command)

    async def _call_for_content(self, ctx: CallContext, method: str, command: BaseModel) -> bytes:
        # default values are omitted, because an older callee rejects a field that it does not know
        body = command.model_dump_json(exclude_defaults=True).encode()
        response = await self._call_with_retries(ctx, method, body)
        if not response.is_success:
            raise self._to_error(ctx, method, response)
        return response.content

    async def _call_with_retries(
        self, ctx: CallContext, method: str, body: bytes
    ) -> httpx2.Response:
        """Return the first response whose status is not 502, 503 or 504.

        Connection errors and these statuses are retried, until the deadline or the maximum number
        of attempts is reached, or the retry budget is exhausted. Then the response to the last
        attempt is returned if it contains a known error; otherwise this raises DeadlineExceeded or
        Unavailable.
        """
        deadline = self._loop_deadline(ctx)
        self._budget.earn()
        last_response: httpx2.Response | None = None
        for attempt in range(1, self._retry_policy.max_attempts + 1):
            try:
                return await self._try_once(ctx, method, body, deadline)
            except BreakerOpen:
                raise Unavailable(dependency=self._target) from None
            except NoResponse as failure:
                self._log_retry(ctx, method, attempt, failure)
                last_response = failure.response
                if attempt == self._retry_policy.max_attempts or not self._budget.spend():
                    break
            await self._back_off(attempt, deadline)
        if last_response is not None and _problem_code(last_response) in DomainError.by_code:
            return last_response
        if deadline <= _loop_time():
            raise DeadlineExceeded(dependency=self._target)
        raise Unavailable(dependency=self._target)

    def _loop_deadline(self, ctx: CallContext) -> float:
        """Return the deadline by the clock of the event loop. Raises DeadlineExceeded."""
        seconds = self._retry_policy.total_timeout_seconds
        if ctx.deadline is not None:
            seconds = min(seconds, (ctx.deadline - self._clock()).total_seconds())
        if seconds <= 0:
            raise DeadlineExceeded(dependency=self._target)
        return _loop_time() + seconds

    async def _try_once(
        self, ctx: CallContext, method: str, body: bytes, deadline: float
    ) -> httpx2.Response:
        seconds = min(self._retry_policy.attempt_timeout_seconds, deadline - _loop_time())
        if seconds <= 0:
            raise DeadlineExceeded(dependency=self._target)
        with self._breaker.guard(NoResponse):
            _attempt_counter(self._target, method).inc()
            response = await self._send(ctx, method, body, seconds)
        if response.status_code in _GATEWAY_STATUSES:
            # raised outside the `guard` block, so that the breaker does not count a failure: the
            # response shows that a connection to the target is possible
            raise NoResponse(f"{response.status_code} {_problem_code(response)}", response)
        return response

    async def _send(
        self, ctx: CallContext, method: str, body: bytes, seconds: float
    ) -> httpx2.Response:
        headers = self._headers(ctx, method, seconds)
        url = self._url(method)
        # not `build_request`, because merging the client's settings takes a tenth of a call's time
        request = httpx2.Request("POST", url, headers=headers, content=body)
        try:
            # one timeout for the whole attempt, because the timeout of httpx2 restarts with each
            # received byte
            async with asyncio.timeout(seconds):
                return await self._http.send(request)
        except CONNECTION_ERRORS as error:
            raise NoResponse(repr(error)) from error
        except httpx2.RequestError as error:
            # the response cannot be decoded
            raise self._bad_response(ctx, method, repr(error)) from error

    def _url(self, method: str) -> httpx2.URL:
        if method not in self._urls:
            path = f"/internal/{self._target}/{method}"
            self._urls[method] = self._http.build_request("POST", path).url
        return self._urls[method]

    def _headers(self, ctx: CallContext, method: str, seconds: float) -> dict[str, str]:
        token = self._signer.sign(self._caller, self._target, method, ctx.actor)
        headers = {
            "authorization": f"Bearer {token}",
            "content-type": "application/json",
            "x-request-id": ctx.request_id,
            DEADLINE_HEADER: str(int(seconds * 1000)),
        }
        return headers | outgoing_trace_headers(ctx.traceparent)

    async def _back_off(self, attempt: int, deadline: float) -> None:
        """Sleep with full jitter, so that callers that failed together retry at different times."""
        max_pause = self._retry_policy.initial_backoff_seconds * 2**attempt
        pause = random.uniform(0, max_pause)
        await asyncio.sleep(max(0.0, min(pause, deadline - _loop_time())))

    def _to_error(self, ctx: CallContext, method: str, response: httpx2.Response) -> DomainError:
        """Return the error that the callee raised, with the same class and details."""
        try:
            problem = response.json()
            error_type = DomainError.by_code[problem["code"]]
            error = error_type(problem["detail"], **_problem_details(problem))
        except _DECODE_ERRORS:
            return self._bad_response(
                ctx, method, f"{response.status_code} {_problem_code(response)}"
            )
        if isinstance(error, TEMPORARY_ERRORS):
            log.error("rpc.rejected_our_token", target=self._target, method=method, code=error.code)
            return Unavailable(dependency=self._target)
        return error

    def _bad_response(self, ctx: CallContext, method: str, reason: str) -> InternalError:
        log.error(
            "rpc.bad_response",
            target=self._target,
            method=method,
            request_id=ctx.request_id,
            error=reason,
        )
        return InternalError(error_id=ctx.request_id)

    def _log_retry(self, ctx: CallContext, method: str, attempt: int, failure: NoResponse) -> None:
        log.warning(
            "rpc.no_response",
            target=self._target,
            method=method,
            attempt=attempt,
            request_id=ctx.request_id,
            error=str(failure),
        )


class HttpClients:
    """One HTTP client per target, created on first use and closed with the application."""

    def __init__(
        self,
        urls: Mapping[str, str],
        retry_policy: RetryPolicy,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        """`transport` replaces TCP, for tests with several applications in one process."""
        self._urls = urls
        self._retry_policy = retry_policy
        self._transport = transport
        self._clients: dict[str, httpx2.AsyncClient] = {}

    def get(self, target: str) -> httpx2.AsyncClient:
        if target not in self._clients:
            self._clients[target] = self._create_client(self._urls[target])
        return self._clients[target]

    async def close(self) -> None:
        for client in self._clients.values():
            await client.aclose()

    def _create_client(self, url: str) -> httpx2.AsyncClient:
        max_connections = self._retry_policy.max_connections
        # The server closes idle connections after 15 s. The client closes them earlier; otherwise a
        # request could be sent at the moment when the server closes its connection.
        limits = httpx2.Limits(
            max_connections=max_connections,
            max_keepalive_connections=min(max_connections, MAX_KEEPALIVE),
            keepalive_expiry=10,
        )
        timeout = httpx2.Timeout(
            self._retry_policy.attempt_timeout_seconds,
            connect=self._retry_policy.connect_timeout_seconds,
        )
        return httpx2.AsyncClient(
            base_url=url,
            timeout=timeout,
            limits=limits,
            transport=self._transport,
            # ignores the environment: proxies, certificate bundles and .netrc
            trust_env=False,
        )


_attempt_counter = functools.lru_cache(maxsize=256)(RPC_CLIENT_ATTEMPTS.labels)


def _loop_time() -> float:
    return asyncio.get_running_loop().time()


def _problem_code(response: httpx2.Response) -> str:
    try:
        return str(response.json()["code"])
    except _DECODE_ERRORS:
        return "no problem document"


def _problem_details(problem: Mapping[str, Any]) -> dict[str, Any]:
    errors = {"errors": problem["errors"]} if "errors" in problem else {}
    return {**problem["details"], **errors}
