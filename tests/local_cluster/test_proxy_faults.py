"""The front while something breaks, hangs or has no end: a service, a line, a client."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import httpx2
import pytest
from starlette.types import Message, Receive, Scope, Send

from markethall.apart.relay import Incoming
from markethall.topology import Context
from tests.apart.services import Handler, Market, Service, answering, front_of, market, pieces
from tests.e2e.halls import free_port
from tests.e2e.raw import exchange, request
from tests.e2e.shop import refused
from tests.wire import tcp

PATIENCE = 30
# a front that waits a second and a half for an answer to begin
HASTY = {"body_timeout": 0.1, "deadline": 0.1, "gateway_timeout": 0.1}
# half a request, and nothing after it
HALF = b"POST /orders HTTP/1.1\r\nHost: hall\r\nContent-Length: 10\r\n\r\nhalf "

Break = Callable[[asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture
async def four() -> AsyncIterator[Market]:
    async with market() as found:
        yield found


@pytest.fixture
async def http(four: Market) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(base_url=four.url, timeout=20) as client:
        yield client


async def soon(happens: asyncio.Event) -> None:
    async with asyncio.timeout(PATIENCE):
        await happens.wait()


@pytest.mark.parametrize("headers", [[], [(b"content-length", b"10")]], ids=["chunked", "said"])
async def test_an_answer_is_passed_on_while_it_is_made(
    four: Market, http: httpx2.AsyncClient, headers: list[tuple[bytes, bytes]]
) -> None:
    go_on = asyncio.Event()

    async def slowly(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        await soon(go_on)
        await send({"type": "http.response.body", "body": b"later"})

    four.services[Context.ORDERS].says = slowly

    async with http.stream("GET", "/events") as answer:
        parts = answer.aiter_raw()
        first = await anext(parts)
        go_on.set()
        rest = [part async for part in parts]

    assert (first, b"".join(rest)) == (b"first", b"later")


@pytest.mark.parametrize("headers", [{}, {"Content-Length": "10"}], ids=["chunked", "said"])
async def test_a_body_is_passed_on_while_it_arrives(
    four: Market, http: httpx2.AsyncClient, headers: dict[str, str]
) -> None:
    arrived = asyncio.Event()

    async def listening(scope: Scope, receive: Receive, send: Send) -> None:
        heard = b""
        async for piece in pieces(receive):
            heard += piece
            arrived.set()
        await answering(200, heard)(scope, receive, send)

    async def body() -> AsyncIterator[bytes]:
        yield b"first"
        await soon(arrived)
        yield b"later"

    four.services[Context.INVENTORY].says = listening

    answer = await http.post("/imports", content=body(), headers=headers)

    assert answer.content == b"firstlater"


def endless(begun: asyncio.Event, left: asyncio.Event) -> Handler:
    async def stream(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b": here\n\n", "more_body": True})
        begun.set()
        await departure(receive, left)

    return stream


def unanswered(begun: asyncio.Event, left: asyncio.Event) -> Handler:
    async def wait(scope: Scope, receive: Receive, send: Send) -> None:
        begun.set()
        await departure(receive, left)

    return wait


async def departure(receive: Receive, left: asyncio.Event) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    left.set()


@pytest.mark.parametrize("kind", [endless, unanswered])
@pytest.mark.parametrize("sent", [request(b"GET", b"/events"), HALF], ids=["whole", "half"])
async def test_a_client_that_goes_away_is_waited_for_by_nobody(
    four: Market,
    kind: Callable[[asyncio.Event, asyncio.Event], Handler],
    sent: bytes,
    caplog: pytest.LogCaptureFixture,
) -> None:
    begun, left = asyncio.Event(), asyncio.Event()
    four.services[Context.ORDERS].says = kind(begun, left)

    _, writer = await asyncio.open_connection("127.0.0.1", four.port)
    writer.write(sent)
    await soon(begun)
    writer.close()
    await soon(left)

    # our side of it has ended too before the next request is answered
    await exchange(four.port, request(b"GET", b"/users"))
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == []


async def test_a_service_that_is_away_is_said_and_the_others_go_on() -> None:
    async with with_orders_at(f"http://127.0.0.1:{free_port()}") as http:
        gone = await http.post("/orders", json={})
        others = [await http.get(path) for path in ("/users", "/products", "/payments")]

    problem = refused(gone, 503, "system.unavailable")
    assert (problem["details"], problem["retryable"]) == ({"dependency": "orders"}, True)
    assert gone.headers["retry-after"] == "1"
    assert [answer.status_code for answer in others] == [200] * 3


@asynccontextmanager
async def with_orders_at(orders: str, **settings: float) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of a front whose orders are somewhere else, and whose others are well."""
    urls = {Context.ORDERS: orders}
    async with AsyncExitStack() as stack:
        for context in set(Context) - {Context.ORDERS}:
            listening = tcp.listening(Service(context))
            urls[context] = await stack.enter_async_context(listening)
        url, _ = await stack.enter_async_context(front_of(urls, **settings))
        client = httpx2.AsyncClient(base_url=url, timeout=20)
        yield await stack.enter_async_context(client)


async def closes(writer: asyncio.StreamWriter) -> None:
    """Without a word."""


async def resets(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


async def babbles(writer: asyncio.StreamWriter) -> None:
    writer.write(b"I do not speak HTTP\r\n\r\n")


@pytest.mark.parametrize("breaks", [closes, resets, babbles])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_what_may_have_arrived_is_not_sent_again(breaks: Break, method: str) -> None:
    async with tcp.bare(breaks) as told, with_orders_at(told.url) as http:
        answer = await http.request(method, "/orders")

    assert refused(answer, 503, "system.unavailable")["details"] == {"dependency": "orders"}
    assert len(told.asked) == 1


@pytest.mark.parametrize(
    "framing", [b"content-length: 100\r\n\r\n", b"transfer-encoding: chunked\r\n\r\n4\r\n"]
)
async def test_half_an_answer_is_never_taken_for_a_whole_one(framing: bytes) -> None:
    async def dies(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n" + framing + b"half\r\n")
        await writer.drain()
        await soon(seen)
        writer.transport.abort()

    seen = asyncio.Event()
    async with (
        tcp.bare(dies) as told,
        with_orders_at(told.url) as http,
        http.stream("GET", "/orders") as answer,
    ):
        parts = answer.aiter_raw()
        first = await anext(parts)
        seen.set()
        with pytest.raises(httpx2.RemoteProtocolError):
            await anext(parts)

    assert (answer.status_code, first[:4]) == (200, b"half")


async def test_a_service_that_does_not_answer_is_not_waited_for_without_end() -> None:
    async def hangs(writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async with tcp.bare(hangs) as told, with_orders_at(told.url, **HASTY) as http:
        answer = await http.get("/orders")

    problem = refused(answer, 503, "system.deadline_exceeded")
    assert problem["details"] == {"dependency": "orders"}
    assert answer.headers["retry-after"] == "1"


async def test_between_two_pieces_of_an_answer_any_time_may_pass() -> None:
    """An event stream is silent for as long as nothing happens."""

    async def pauses(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nfirst")
        await writer.drain()
        await asyncio.sleep(2)  # longer than the hasty wait for a whole answer
        writer.write(b"later")
        await writer.drain()

    async with tcp.bare(pauses) as told, with_orders_at(told.url, **HASTY) as http:
        answer = await http.get("/events")

    assert answer.content == b"firstlater"


async def test_a_body_that_does_not_arrive_is_not_waited_for_without_end() -> None:
    async with market(body_timeout=0.1) as impatient:
        reply = await exchange(impatient.port, HALF)

    assert (reply.status, reply.json()["code"]) == (408, "request.timeout")
    assert reply.headers["connection"] == "close"


async def test_a_body_has_time_by_its_size() -> None:
    """No time at all, but for what has arrived: a megabyte gives it a minute."""
    messages = iter([b"x" * 1024 * 1024, b"later"])

    async def receive() -> Message:
        piece = next(messages)
        if piece == b"later":
            # enough for a time that has run out to be noticed
            for _ in range(10):
                await asyncio.sleep(0)
        return {"type": "http.request", "body": piece, "more_body": piece != b"later"}

    told: list[float] = []
    incoming = Incoming(receive, 0, has_body=True)

    with incoming.watched(told.append):
        heard = [len(piece) async for piece in incoming]

    assert heard == [1024 * 1024, 5]
    # and whoever waits for the answer waits as much longer, until the body is through
    assert max(told) - told[0] >= 60 > told[-1] - told[0]


async def test_a_refusal_comes_before_the_body_that_it_refuses(four: Market) -> None:
    """Its length is enough for a service to say no, and it reads no further."""
    large = request(b"POST", b"/imports", body=b"x" * 5_000_000)
    four.services[Context.INVENTORY].says = answering(413, b"too large")

    reply = await exchange(four.port, large)

    assert (reply.status, reply.body) == (413, b"too large")


async def test_a_connection_that_a_service_has_closed_is_not_used_again(
    four: Market, http: httpx2.AsyncClient
) -> None:
    closing = answering(200, b"x", (b"connection", b"close"))
    four.services[Context.USERS].says = closing

    answers = [await http.get("/users") for _ in range(5)]

    assert [answer.status_code for answer in answers] == [200] * 5


async def test_a_hanging_service_takes_no_connections_from_the_others(
    four: Market, http: httpx2.AsyncClient
) -> None:
    begun, left = asyncio.Event(), asyncio.Event()
    four.services[Context.ORDERS].says = unanswered(begun, left)
    stuck = [asyncio.create_task(http.get(f"/orders/{n}")) for n in range(90)]
    await soon(begun)
    async with asyncio.timeout(PATIENCE):
        while len(four.services[Context.ORDERS].asked) < len(stuck):
            await asyncio.sleep(0.01)

    reply = await exchange(four.port, request(b"GET", b"/users"))
    for task in stuck:
        task.cancel()
    await asyncio.gather(*stuck, return_exceptions=True)

    assert reply.status == 200
