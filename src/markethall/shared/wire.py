"""The calling half of the wire: one neighbour's contract over HTTP.

One layer retries, and only this one. Every call of a contract may be repeated (its ids come from
the caller), so a call whose outcome is unknown is made again with the same ids.
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

from markethall.shared.breaker import Breaker, BreakerOpen
from markethall.shared.call import Call
from markethall.shared.clock import Clock
from markethall.shared.errors import (
    DeadlineExceeded,
    Internal,
    Refusal,
    RouteNotFound,
    Unauthenticated,
    Unavailable,
)
from markethall.shared.metrics import NEIGHBOUR_ATTEMPTS, NEIGHBOUR_BREAKER
from markethall.shared.service_tokens import ServiceSigner

log = structlog.get_logger("markethall.wire")

D = TypeVar("D", bound=BaseModel)

# remaining milliseconds, as the gRPC timeout: clocks of two machines need not agree
DEADLINE_HEADER: Final = "x-deadline-ms"

_GATEWAYS: Final = {
    HTTPStatus.BAD_GATEWAY,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
}
# whatever reading a document that is none may set off, nesting without end included
_UNREADABLE: Final = (ValueError, LookupError, TypeError, RecursionError)
# nobody answers. A connection that is reset while the client looks at its socket ends in errors
# that are none of the client's own
_SILENT: Final = (httpx2.TransportError, OSError, AttributeError)
# the neighbour is there and does not take us: a release under way, keys that are being changed
_NOT_NOW: Final = (Unauthenticated, RouteNotFound)

# the client looks at every idle connection on every call, at 12 us each
_MOST_IDLE: Final = 8


@dataclass(frozen=True)
class Patience:
    """Seconds for connecting, for one attempt and for all of them; attempts, jitter in seconds."""

    connect: float = 0.5
    attempt: float = 2.0
    total: float = 5.0
    attempts: int = 3
    first_pause: float = 0.05
    connections: int = 32


class RetryBudget:
    """Retries are a tenth of the calls, and a few more where there are few calls.

    So that a neighbour who is overloaded does not get three times the load for it.
    """

    def __init__(self, share: float = 0.1, most: float = 10.0) -> None:
        self._share = share
        self._most = most
        self._saved = most

    def earn(self) -> None:
        self._saved = min(self._most, self._saved + self._share)

    def spend(self) -> bool:
        """False when there is nothing left."""
        if self._saved < 1:
            return False
        self._saved -= 1
        return True


class Silence(Exception):
    """No answer, or one that says not now. What was asked may have been done."""

    def __init__(self, words: str, response: httpx2.Response | None = None) -> None:
        super().__init__(words)
        self.response = response


class Wire:
    """The way to one neighbour, for one caller."""

    def __init__(  # noqa: PLR0917 - two ends, an identity, a client, and the limits of both
        self,
        caller: str,
        target: str,
        http: httpx2.AsyncClient,
        signer: ServiceSigner,
        clock: Clock,
        patience: Patience,
    ) -> None:
        self._caller = caller
        self._target = target
        self._http = http
        self._signer = signer
        self._clock = clock
        self._patience = patience
        self._budget = RetryBudget()
        self._addresses: dict[str, httpx2.URL] = {}
        self._breaker = Breaker(time.monotonic, failures=5, cool_down=1.0)
        NEIGHBOUR_BREAKER.labels(target).set_function(lambda: self._breaker.state != "closed")

    async def ask(self, call: Call, method: str, command: BaseModel, answer: type[D]) -> D:
        """The answer of the neighbour.

        Raises what the neighbour refuses, as the same class with the same details; Unavailable,
        DeadlineExceeded when it does not answer; Internal for its faults.
        """
        content = await self._content(call, method, command)
        try:
            # what a newer neighbour says besides is ignored
            return answer.model_validate_json(content)
        except ValidationError as error:
            raise self._fault(call, method, "the answer cannot be read") from error

    async def tell(self, call: Call, method: str, command: BaseModel) -> None:
        """The same, for methods that answer nothing."""
        await self._content(call, method, command)

    async def _content(self, call: Call, method: str, command: BaseModel) -> bytes:
        # defaults stay at home: a neighbour one release older may not know their names
        body = command.model_dump_json(exclude_defaults=True).encode()
        response = await self._answered(call, method, body)
        if not response.is_success:
            raise self._refusal(call, method, response)
        return response.content

    async def _answered(self, call: Call, method: str, body: bytes) -> httpx2.Response:
        """Attempts until one is answered, or time, attempts or the budget are at an end."""
        until = self._until(call)
        self._budget.earn()
        last: httpx2.Response | None = None
        for attempt in range(1, self._patience.attempts + 1):
            try:
                return await self._attempt(call, method, body, until)
            except BreakerOpen:
                raise Unavailable(dependency=self._target) from None
            except Silence as silence:
                self._say(call, method, attempt, silence)
                last = silence.response
                if attempt == self._patience.attempts or not self._budget.spend():
                    break
            await self._pause(attempt, until)
        if last is not None and _code(last) in Refusal.by_code:
            return last
        if until <= _now():
            raise DeadlineExceeded(dependency=self._target)
        raise Unavailable(dependency=self._target)

    def _until(self, call: Call) -> float:
        """By the clock of the event loop. Raises DeadlineExceeded."""
        seconds = self._patience.total
        if call.deadline is not None:
            seconds = min(seconds, (call.deadline - self._clock()).total_seconds())
        if seconds <= 0:
            raise DeadlineExceeded(dependency=self._target)
        return _now() + seconds

    async def _attempt(self, call: Call, method: str, body: bytes, until: float) -> httpx2.Response:
        seconds = min(self._patience.attempt, until - _now())
        if seconds <= 0:
            raise DeadlineExceeded(dependency=self._target)
        with self._breaker.guard(Silence):
            _attempts(self._target, method).inc()
            response = await self._send(call, method, body, seconds)
        if response.status_code in _GATEWAYS:
            # it is there and says not now: worth another try, and no reason to leave it alone
            raise Silence(f"{response.status_code} {_code(response)}", response)
        return response

    async def _send(self, call: Call, method: str, body: bytes, seconds: float) -> httpx2.Response:
        headers = self._headers(call, method, seconds)
        address = self._address(method)
        # not the client's build_request: it merges what is always the same, for a tenth of the call
        request = httpx2.Request("POST", address, headers=headers, content=body)
        try:
            # one limit for everything: httpx's own read timeout begins anew with each byte
            async with asyncio.timeout(seconds):
                return await self._http.send(request)
        except _SILENT as error:
            raise Silence(repr(error)) from error
        except httpx2.RequestError as error:
            # it answered, and what it said cannot be unpacked
            raise self._fault(call, method, repr(error)) from error

    def _address(self, method: str) -> httpx2.URL:
        if method not in self._addresses:
            path = f"/internal/{self._target}/{method}"
            self._addresses[method] = self._http.build_request("POST", path).url
        return self._addresses[method]

    def _headers(self, call: Call, method: str, seconds: float) -> dict[str, str]:
        token = self._signer.sign(self._caller, self._target, method, call.actor)
        headers = {
            "authorization": f"Bearer {token}",
            "content-type": "application/json",
            "x-request-id": call.request_id,
            DEADLINE_HEADER: str(int(seconds * 1000)),
        }
        if call.traceparent:
            headers["traceparent"] = call.traceparent
        return headers

    async def _pause(self, attempt: int, until: float) -> None:
        """Full jitter: so that those who failed together do not come back together."""
        longest = self._patience.first_pause * 2**attempt
        pause = random.uniform(0, longest)  # noqa: S311 - no secret
        await asyncio.sleep(max(0.0, min(pause, until - _now())))

    def _refusal(self, call: Call, method: str, response: httpx2.Response) -> Refusal:
        """What the neighbour raised, as the same class with the same details."""
        try:
            problem = response.json()
            kind = Refusal.by_code[problem["code"]]
            refusal = kind(problem["detail"], **_details(problem))
        except _UNREADABLE:
            return self._fault(call, method, f"{response.status_code} {_code(response)}")
        if isinstance(refusal, _NOT_NOW):
            log.error("neighbour.refuses_us", target=self._target, method=method, code=refusal.code)
            return Unavailable(dependency=self._target)
        return refusal

    def _fault(self, call: Call, method: str, what: str) -> Internal:
        log.error(
            "neighbour.fault",
            target=self._target,
            method=method,
            request_id=call.request_id,
            error=what,
        )
        return Internal(error_id=call.request_id)

    def _say(self, call: Call, method: str, attempt: int, silence: Silence) -> None:
        log.warning(
            "neighbour.silent",
            target=self._target,
            method=method,
            attempt=attempt,
            request_id=call.request_id,
            error=str(silence),
        )


class Clients:
    """One HTTP client per neighbour, made when first needed and closed with the process."""

    def __init__(
        self,
        addresses: Mapping[str, str],
        patience: Patience,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        """`transport`: another way than TCP, for several halls in one process."""
        self._addresses = addresses
        self._patience = patience
        self._transport = transport
        self._opened: dict[str, httpx2.AsyncClient] = {}

    def of(self, target: str) -> httpx2.AsyncClient:
        if target not in self._opened:
            self._opened[target] = self._open(self._addresses[target])
        return self._opened[target]

    async def close(self) -> None:
        for client in self._opened.values():
            await client.aclose()

    def _open(self, address: str) -> httpx2.AsyncClient:
        most = self._patience.connections
        # the server closes what is idle for 15 s: we do so before, and never meet it half-way
        limits = httpx2.Limits(
            max_connections=most,
            max_keepalive_connections=min(most, _MOST_IDLE),
            keepalive_expiry=10,
        )
        timeout = httpx2.Timeout(self._patience.attempt, connect=self._patience.connect)
        return httpx2.AsyncClient(
            base_url=address,
            timeout=timeout,
            limits=limits,
            transport=self._transport,
            # no proxy, no certificate bundle, no .netrc of whoever starts us
            trust_env=False,
        )


_attempts = functools.lru_cache(maxsize=256)(NEIGHBOUR_ATTEMPTS.labels)


def _now() -> float:
    return asyncio.get_running_loop().time()


def _code(response: httpx2.Response) -> str:
    try:
        return str(response.json()["code"])
    except _UNREADABLE:
        return "no problem document"


def _details(problem: Mapping[str, Any]) -> dict[str, Any]:
    errors = {"errors": problem["errors"]} if "errors" in problem else {}
    return {**problem["details"], **errors}
