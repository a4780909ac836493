"""A contract that exists only for tests, with the real RPC client and server."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any, Final, Protocol
from uuid import UUID

import httpx2
import pytest
from fastapi import APIRouter, Depends, Response

from markethall.shared.http.dependencies import FromContext
from markethall.shared.http.gateway import GatewayMiddleware
from markethall.shared.http.responses import json_response
from markethall.shared.kernel.call_context import Actor, CallContext
from markethall.shared.kernel.circuit_breaker import Breaker
from markethall.shared.kernel.errors import DomainError
from markethall.shared.kernel.ids import new_id
from markethall.shared.kernel.model import Dto
from markethall.shared.rpc.client import HttpClients, RetryPolicy, RpcClient
from markethall.shared.rpc.client_interceptor import AllowList
from markethall.shared.rpc.server import FORBID_UNKNOWN_FIELDS, require_service_token
from markethall.shared.security.access_tokens import generate_private_key
from markethall.shared.security.service_tokens import ServiceSigner
from tests.rpc.tcp import serve_app
from tests.rpc_loopback import now, rpc_server

ALLOWED: Final = AllowList({"probe": dict.fromkeys(("greet", "wave"), frozenset({"orders"}))})
SIGNER: Final = ServiceSigner(generate_private_key(), now)
# short pauses between retries, and long timeouts for slow machines
FAST_RETRIES: Final = RetryPolicy(
    attempt_timeout_seconds=20, total_timeout_seconds=60, initial_backoff_seconds=0.001
)
TRACE: Final = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
USER: Final = Actor(
    user_id=new_id(),
    name="user",
    roles=("customer", "staff"),
    scopes=frozenset({"orders", "profile"}),
    session_id=new_id(),
)
CTX: Final = CallContext(request_id="request-of-tests", traceparent=TRACE, actor=USER)


class Guest(Dto):
    name: str
    times: int = 1


class ProbeCommand(Dto):
    greet_id: UUID
    guests: tuple[Guest, ...] = ()
    mood: str = "plain"


class ProbeResult(Dto):
    greet_id: UUID
    text: str
    loudly: bool = False


class ProbeService:
    """A service that records its calls. `greet` awaits `before_response`, if set, then answers."""

    def __init__(self) -> None:
        self.calls: list[tuple[CallContext, ProbeCommand]] = []
        self.before_response: Callable[[], Awaitable[None]] | None = None
        self.finished = asyncio.Event()

    async def greet(self, ctx: CallContext, command: ProbeCommand) -> ProbeResult:
        self.calls.append((ctx, command))
        if self.before_response:
            await self.before_response()
        self.finished.set()
        text = ", ".join(f"hello {guest.name}" for guest in command.guests)
        return ProbeResult(greet_id=command.greet_id, text=text)

    async def wave(self, ctx: CallContext, command: ProbeCommand) -> None:
        self.calls.append((ctx, command))


router = APIRouter(prefix="/internal/probe")


class ProvidesProbe(Protocol):
    def probe(self) -> ProbeService: ...


_from_probe: FromContext[ProvidesProbe] = FromContext("probe")
ProbeDep = Annotated[ProbeService, Depends(_from_probe(lambda container: container.probe()))]


@router.post("/greet", response_model=ProbeResult)
async def greet(
    ctx: Annotated[CallContext, require_service_token("probe.greet")],
    command: Annotated[ProbeCommand, FORBID_UNKNOWN_FIELDS],
    service: ProbeDep,
) -> Response:
    return json_response(await service.greet(ctx, command))


@router.post("/wave", status_code=204, response_class=Response)
async def wave(
    ctx: Annotated[CallContext, require_service_token("probe.wave")],
    command: Annotated[ProbeCommand, FORBID_UNKNOWN_FIELDS],
    service: ProbeDep,
) -> None:
    await service.wave(ctx, command)


class RemoteProbe:
    def __init__(self, client: RpcClient) -> None:
        self.client = client

    async def greet(self, ctx: CallContext, command: ProbeCommand) -> ProbeResult:
        return await self.client.call(ctx, "greet", command, ProbeResult)

    async def wave(self, ctx: CallContext, command: ProbeCommand) -> None:
        await self.client.call_without_result(ctx, "wave", command)


def probe_server(
    service: ProbeService, callers: tuple[str, ...] = ("orders",)
) -> GatewayMiddleware:
    return rpc_server("probe", router, service, SIGNER, ALLOWED, callers)


@asynccontextmanager
async def open_client(
    url: str, retry_policy: RetryPolicy = FAST_RETRIES
) -> AsyncIterator[RemoteProbe]:
    """Open a client over TCP, built in the same way as in the container."""
    clients = HttpClients({"probe": url}, retry_policy)
    try:
        yield RemoteProbe(rpc_client_of(clients.get("probe"), retry_policy))
    finally:
        await clients.close()


@asynccontextmanager
async def open_client_over_tcp(
    service: ProbeService, retry_policy: RetryPolicy = FAST_RETRIES
) -> AsyncIterator[RemoteProbe]:
    async with serve_app(probe_server(service)) as url, open_client(url, retry_policy) as remote:
        yield remote


def rpc_client_of(http: httpx2.AsyncClient, retry_policy: RetryPolicy = FAST_RETRIES) -> RpcClient:
    return RpcClient("orders", "probe", http, SIGNER, now, retry_policy)


def without_breaker(client: RpcClient) -> RpcClient:
    """Replace the breaker of the client with one that never opens."""
    client._breaker = Breaker(lambda: 0, failure_threshold=10**9)
    return client


def client_with_handler(
    handler: Callable[[httpx2.Request], Any], retry_policy: RetryPolicy = FAST_RETRIES
) -> RemoteProbe:
    """Return a client that gets its responses from `handler`, and whose breaker never opens."""
    http = httpx2.AsyncClient(transport=httpx2.MockTransport(handler), base_url="http://probe")
    return RemoteProbe(without_breaker(rpc_client_of(http, retry_policy)))


async def error_of(work: Awaitable[object]) -> DomainError:
    with pytest.raises(DomainError) as caught:
        await work
    return caught.value


def greet_command(*names: str, **fields: Any) -> ProbeCommand:
    guests = tuple(Guest(name=name) for name in names)
    return ProbeCommand(greet_id=new_id(), guests=guests, **fields)
