"""A contract of the tests' own, on the product's own wire: what it says can be told to it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any, Final
from uuid import UUID

import httpx2
import pytest
from fastapi import APIRouter, Depends, Response

from markethall.shared.breaker import Breaker
from markethall.shared.call import Actor, Call
from markethall.shared.errors import Refusal
from markethall.shared.front import Front
from markethall.shared.guard import AllowList
from markethall.shared.http import from_container, ready
from markethall.shared.ids import new_id
from markethall.shared.model import Dto
from markethall.shared.service_tokens import ServiceSigner
from markethall.shared.serving import STRICT, service
from markethall.shared.tokens import generate_key
from markethall.shared.wire import Clients, Patience, Wire
from tests.remote import now, serving
from tests.wire.tcp import listening

ALLOWED: Final = AllowList({"greeter": dict.fromkeys(("greet", "wave"), frozenset({"orders"}))})
SIGNER: Final = ServiceSigner(generate_key(), now)
# shorter pauses than in production, and limits that a slow machine does not reach
QUICK: Final = Patience(attempt=20, total=60, first_pause=0.001)
TRACE: Final = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
PERSON: Final = Actor(
    user_id=new_id(),
    name="user",
    roles=("customer", "staff"),
    scopes=frozenset({"orders", "profile"}),
    session_id=new_id(),
)
CALL: Final = Call(request_id="a-request-of-tests", traceparent=TRACE, actor=PERSON)


class Guest(Dto):
    name: str
    times: int = 1


class Greet(Dto):
    greet_id: UUID
    guests: tuple[Guest, ...] = ()
    mood: str = "plain"


class Greeted(Dto):
    greet_id: UUID
    words: str
    loudly: bool = False


class Greeter:
    """Says hello, unless a test has something else in mind."""

    def __init__(self) -> None:
        self.heard: list[tuple[Call, Greet]] = []
        self.meanwhile: Callable[[], Awaitable[None]] | None = None
        self.done = asyncio.Event()

    async def greet(self, call: Call, command: Greet) -> Greeted:
        self.heard.append((call, command))
        if self.meanwhile:
            await self.meanwhile()
        self.done.set()
        words = ", ".join(f"hello {guest.name}" for guest in command.guests)
        return Greeted(greet_id=command.greet_id, words=words)

    async def wave(self, call: Call, command: Greet) -> None:
        self.heard.append((call, command))


router = APIRouter(prefix="/internal/greeter")
GreeterDep = Annotated[Greeter, Depends(from_container("greeter"))]


@router.post("/greet", response_model=Greeted)
async def greet(
    call: Annotated[Call, service("greeter.greet")],
    command: Annotated[Greet, STRICT],
    greeter: GreeterDep,
) -> Response:
    return ready(await greeter.greet(call, command))


@router.post("/wave", status_code=204, response_class=Response)
async def wave(
    call: Annotated[Call, service("greeter.wave")],
    command: Annotated[Greet, STRICT],
    greeter: GreeterDep,
) -> None:
    await greeter.wave(call, command)


class RemoteGreeter:
    def __init__(self, wire: Wire) -> None:
        self.wire = wire

    async def greet(self, call: Call, command: Greet) -> Greeted:
        return await self.wire.ask(call, "greet", command, Greeted)

    async def wave(self, call: Call, command: Greet) -> None:
        await self.wire.tell(call, "wave", command)


def serving_half(greeter: Greeter, callers: tuple[str, ...] = ("orders",)) -> Front:
    return serving("greeter", router, greeter, SIGNER, ALLOWED, callers)


@asynccontextmanager
async def calling(url: str, patience: Patience = QUICK) -> AsyncIterator[RemoteGreeter]:
    """The calling half over TCP, as the container makes it."""
    clients = Clients({"greeter": url}, patience)
    try:
        yield RemoteGreeter(wire_of(clients.of("greeter"), patience))
    finally:
        await clients.close()


@asynccontextmanager
async def over_tcp(greeter: Greeter, patience: Patience = QUICK) -> AsyncIterator[RemoteGreeter]:
    async with listening(serving_half(greeter)) as url, calling(url, patience) as remote:
        yield remote


def wire_of(http: httpx2.AsyncClient, patience: Patience = QUICK) -> Wire:
    return Wire("orders", "greeter", http, SIGNER, now, patience)


def without_breaker(wire: Wire) -> Wire:
    """To see what the rest does by itself."""
    wire._breaker = Breaker(lambda: 0, failures=10**9)
    return wire


def over(handler: Callable[[httpx2.Request], Any], patience: Patience = QUICK) -> RemoteGreeter:
    """A neighbour that is a function; it never gets to be left alone."""
    http = httpx2.AsyncClient(transport=httpx2.MockTransport(handler), base_url="http://greeter")
    return RemoteGreeter(without_breaker(wire_of(http, patience)))


async def refusal_of(work: Awaitable[object]) -> Refusal:
    with pytest.raises(Refusal) as caught:
        await work
    return caught.value


def hello(*names: str, **fields: Any) -> Greet:
    guests = tuple(Guest(name=name) for name in names)
    return Greet(greet_id=new_id(), guests=guests, **fields)
