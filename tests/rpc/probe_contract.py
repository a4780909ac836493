"""A contract of the tests' own, on the product's own wire: what it says can be told to it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any, Final
from uuid import UUID

import httpx2
import pytest
from fastapi import APIRouter, Depends, Response

from markethall.shared.http.dependencies import from_container
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
from tests.rpc.tcp import listening
from tests.rpc_loopback import now, rpc_server

ALLOWED: Final = AllowList({"greeter": dict.fromkeys(("greet", "wave"), frozenset({"orders"}))})
SIGNER: Final = ServiceSigner(generate_private_key(), now)
# shorter pauses than in production, and limits that a slow machine does not reach
QUICK: Final = RetryPolicy(
    attempt_timeout_seconds=20, total_timeout_seconds=60, initial_backoff_seconds=0.001
)
TRACE: Final = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
PERSON: Final = Actor(
    user_id=new_id(),
    name="user",
    roles=("customer", "staff"),
    scopes=frozenset({"orders", "profile"}),
    session_id=new_id(),
)
CALL: Final = CallContext(request_id="a-request-of-tests", traceparent=TRACE, actor=PERSON)


class Guest(Dto):
    name: str
    times: int = 1


class ProbeCommand(Dto):
    greet_id: UUID
    guests: tuple[Guest, ...] = ()
    mood: str = "plain"


class ProbeResult(Dto):
    greet_id: UUID
    words: str
    loudly: bool = False


class ProbeService:
    """Says hello, unless a test has something else in mind."""

    def __init__(self) -> None:
        self.calls: list[tuple[CallContext, ProbeCommand]] = []
        self.meanwhile: Callable[[], Awaitable[None]] | None = None
        self.done = asyncio.Event()

    async def greet(self, ctx: CallContext, command: ProbeCommand) -> ProbeResult:
        self.calls.append((ctx, command))
        if self.meanwhile:
            await self.meanwhile()
        self.done.set()
        words = ", ".join(f"hello {guest.name}" for guest in command.guests)
        return ProbeResult(greet_id=command.greet_id, words=words)

    async def wave(self, ctx: CallContext, command: ProbeCommand) -> None:
        self.calls.append((ctx, command))


router = APIRouter(prefix="/internal/greeter")
GreeterDep = Annotated[ProbeService, Depends(from_container("greeter"))]


@router.post("/greet", response_model=ProbeResult)
async def greet(
    ctx: Annotated[CallContext, require_service_token("greeter.greet")],
    command: Annotated[ProbeCommand, FORBID_UNKNOWN_FIELDS],
    greeter: GreeterDep,
) -> Response:
    return json_response(await greeter.greet(ctx, command))


@router.post("/wave", status_code=204, response_class=Response)
async def wave(
    ctx: Annotated[CallContext, require_service_token("greeter.wave")],
    command: Annotated[ProbeCommand, FORBID_UNKNOWN_FIELDS],
    greeter: GreeterDep,
) -> None:
    await greeter.wave(ctx, command)


class RemoteProbe:
    def __init__(self, wire: RpcClient) -> None:
        self.wire = wire

    async def greet(self, ctx: CallContext, command: ProbeCommand) -> ProbeResult:
        return await self.wire.call(ctx, "greet", command, ProbeResult)

    async def wave(self, ctx: CallContext, command: ProbeCommand) -> None:
        await self.wire.call_without_result(ctx, "wave", command)


def serving_half(
    greeter: ProbeService, callers: tuple[str, ...] = ("orders",)
) -> GatewayMiddleware:
    return rpc_server("greeter", router, greeter, SIGNER, ALLOWED, callers)


@asynccontextmanager
async def calling(url: str, patience: RetryPolicy = QUICK) -> AsyncIterator[RemoteProbe]:
    """The calling half over TCP, as the container makes it."""
    clients = HttpClients({"greeter": url}, patience)
    try:
        yield RemoteProbe(rpc_client_of(clients.get("greeter"), patience))
    finally:
        await clients.close()


@asynccontextmanager
async def over_tcp(
    greeter: ProbeService, patience: RetryPolicy = QUICK
) -> AsyncIterator[RemoteProbe]:
    async with listening(serving_half(greeter)) as url, calling(url, patience) as remote:
        yield remote


def rpc_client_of(http: httpx2.AsyncClient, retry_policy: RetryPolicy = QUICK) -> RpcClient:
    return RpcClient("orders", "greeter", http, SIGNER, now, retry_policy)


def without_breaker(wire: RpcClient) -> RpcClient:
    """To see what the rest does by itself."""
    wire._breaker = Breaker(lambda: 0, failure_threshold=10**9)
    return wire


def over(handler: Callable[[httpx2.Request], Any], patience: RetryPolicy = QUICK) -> RemoteProbe:
    """A neighbour that is a function; it never gets to be left alone."""
    http = httpx2.AsyncClient(transport=httpx2.MockTransport(handler), base_url="http://greeter")
    return RemoteProbe(without_breaker(rpc_client_of(http, patience)))


async def refusal_of(work: Awaitable[object]) -> DomainError:
    with pytest.raises(DomainError) as caught:
        await work
    return caught.value


def hello(*names: str, **fields: Any) -> ProbeCommand:
    guests = tuple(Guest(name=name) for name in names)
    return ProbeCommand(greet_id=new_id(), guests=guests, **fields)
