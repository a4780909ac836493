"""Test the reverse proxy with faults of services, connections and clients."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import httpx2
import pytest
from starlette.types import Receive, Scope, Send

from markethall.contexts import context_names
from markethall.local.cluster.reverse_proxy import requested_wait
from tests.e2e.raw_http import exchange, request
from tests.e2e.servers import free_port
from tests.e2e.shop import expect_problem
from tests.local_cluster.fake_services import (
    FakeCluster,
    FakeService,
    Handler,
    answer,
    cluster_of,
    fake_cluster,
    read_body,
)
from tests.rpc import tcp

TIMEOUT_SECONDS = 30
# with these settings the proxy waits 0.4 s for the headers of a response
SHORT_TIMEOUTS = {
    "body_timeout": 0.1,
    "request_deadline_seconds": 0.1,
    "payment_provider_timeout_seconds": 0.1,
}
HALF_A_REQUEST = b"POST /orders HTTP/1.1\r\nHost: shop\r\nContent-Length: 10\r\n\r\nhalf "

Break = Callable[[asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture
async def cluster() -> AsyncIterator[FakeCluster]:
    async with fake_cluster() as found:
        yield found


@pytest.fixture
async def http(cluster: FakeCluster) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(base_url=cluster.url, timeout=20) as client:
        yield client


async def wait_for(event: asyncio.Event) -> None:
    async with asyncio.timeout(TIMEOUT_SECONDS):
        await event.wait()


@pytest.mark.parametrize(
    "headers", [[], [(b"content-length", b"10")]], ids=["chunked", "content-length"]
)
async def test_a_response_is_streamed(
    cluster: FakeCluster, http: httpx2.AsyncClient, headers: list[tuple[bytes, bytes]]
) -> None:
    may_continue = asyncio.Event()

    async def respond_in_two_parts(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        await wait_for(may_continue)
        await send({"type": "http.response.body", "body": b"later"})

    cluster.services["orders"].handler = respond_in_two_parts

    async with http.stream("GET", "/orders") as response:
        parts = response.aiter_raw()
        first = await anext(parts)
        may_continue.set()
        rest = [part async for part in parts]

    assert (first, b"".join(rest)) == (b"first", b"later")


@pytest.mark.parametrize(
    "headers", [{}, {"Content-Length": "10"}], ids=["chunked", "content-length"]
)
async def test_a_request_body_is_streamed(
    cluster: FakeCluster, http: httpx2.AsyncClient, headers: dict[str, str]
) -> None:
    arrived = asyncio.Event()

    async def listening(scope: Scope, receive: Receive, send: Send) -> None:
        received = b""
        async for piece in read_body(receive):
            received += piece
            arrived.set()
        await answer(200, received)(scope, receive, send)

    async def body() -> AsyncIterator[bytes]:
        yield b"first"
        await wait_for(arrived)
        yield b"later"

    cluster.services["inventory"].handler = listening

    response = await http.post("/imports", content=body(), headers=headers)

    assert response.content == b"firstlater"


def never_ending(started: asyncio.Event, disconnected: asyncio.Event) -> Handler:
    async def stream(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b": here\n\n", "more_body": True})
        started.set()
        await wait_for_disconnect(receive, disconnected)

    return stream


def unanswered(started: asyncio.Event, disconnected: asyncio.Event) -> Handler:
    async def wait(scope: Scope, receive: Receive, send: Send) -> None:
        started.set()
        await wait_for_disconnect(receive, disconnected)

    return wait


async def wait_for_disconnect(receive: Receive, disconnected: asyncio.Event) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    disconnected.set()


@pytest.mark.parametrize(
    ("make_handler", "sent"),
    [
        (never_ending, request(b"GET", b"/orders")),
        (never_ending, HALF_A_REQUEST),
        (unanswered, HALF_A_REQUEST),
    ],
    ids=["event stream", "event stream, half a request", "no response, half a request"],
)
async def test_a_disconnect_of_the_client_reaches_the_service(
    cluster: FakeCluster,
    make_handler: Callable[[asyncio.Event, asyncio.Event], Handler],
    sent: bytes,
    caplog: pytest.LogCaptureFixture,
) -> None:
    started, disconnected = asyncio.Event(), asyncio.Event()
    cluster.services["orders"].handler = make_handler(started, disconnected)

    _, writer = await asyncio.open_connection("127.0.0.1", cluster.port)
    writer.write(sent)
    await wait_for(started)
    writer.close()
    await wait_for(disconnected)

    # when the proxy answers this request, it has also handled the end of the first connection
    await exchange(cluster.port, request(b"GET", b"/users"))
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == []


async def test_unavailable_service_is_named_and_others_are_served() -> None:
    async with with_orders_at(f"http://127.0.0.1:{free_port()}") as http:
        unavailable = await http.post("/orders", json={})
        others = [await http.get(path) for path in ("/users", "/products", "/payments")]

    problem = expect_problem(unavailable, 503, "system.unavailable")
    assert (problem["details"], problem["retryable"]) == ({"dependency": "orders"}, True)
    assert unavailable.headers["retry-after"] == "1"
    assert [response.status_code for response in others] == [200] * 3


@asynccontextmanager
async def with_orders_at(orders: str, **settings: float) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of a cluster whose orders service is at this URL."""
    urls = {"orders": orders}
    async with AsyncExitStack() as stack:
        for context in set(context_names()) - {"orders"}:
            listening = tcp.serve_app(FakeService(context))
            urls[context] = await stack.enter_async_context(listening)
        url, _ = await stack.enter_async_context(cluster_of(urls, **settings))
        client = httpx2.AsyncClient(base_url=url, timeout=20)
        yield await stack.enter_async_context(client)


async def closes(writer: asyncio.StreamWriter) -> None:
    """Send no response. The server then closes the connection."""


async def resets(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


async def speaks_no_http(writer: asyncio.StreamWriter) -> None:
    writer.write(b"this is not HTTP\r\n\r\n")


@pytest.mark.parametrize("breaks", [closes, resets, speaks_no_http])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_request_is_never_retried(breaks: Break, method: str) -> None:
    async with tcp.raw_server(breaks) as upstream, with_orders_at(upstream.url) as http:
        response = await http.request(method, "/orders")

    assert expect_problem(response, 503, "system.unavailable")["details"] == {
        "dependency": "orders"
    }
    assert len(upstream.requests) == 1


@pytest.mark.parametrize(
    "framing", [b"content-length: 100\r\n\r\n", b"transfer-encoding: chunked\r\n\r\n4\r\n"]
)
async def test_incomplete_response_is_an_error_for_the_client(framing: bytes) -> None:
    async def abort_midway(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n" + framing + b"half\r\n")
        await writer.drain()
        await wait_for(was_read)
        writer.transport.abort()

    was_read = asyncio.Event()
    async with (
        tcp.raw_server(abort_midway) as upstream,
        with_orders_at(upstream.url) as http,
        http.stream("GET", "/orders") as response,
    ):
        parts = response.aiter_raw()
        first = await anext(parts)
        was_read.set()
        with pytest.raises(httpx2.RemoteProtocolError):
            await anext(parts)

    assert (response.status_code, first[:4]) == (200, b"half")


async def test_a_service_that_hangs_ends_in_deadline_exceeded() -> None:
    async def hangs(writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async with (
        tcp.raw_server(hangs) as upstream,
        with_orders_at(upstream.url, **SHORT_TIMEOUTS) as http,
    ):
        response = await http.get("/orders")

    problem = expect_problem(response, 503, "system.deadline_exceeded")
    assert problem["details"] == {"dependency": "orders"}
    assert response.headers["retry-after"] == "1"


@pytest.mark.parametrize(
    ("query", "seconds"),
    [
        (b"", 0),
        (b"wait=", 0),
        (b"wait=-1", 0),
        (b"wait=2.5", 0),
        (b"wait=\xb2", 0),
        (b"limit=3&wait=25", 25),
        (b"wait=999", 30),
        (b"wait=" + b"9" * 5000, 0),
    ],
)
def test_proxy_waits_longer_when_the_client_lets_the_service_wait(
    query: bytes, seconds: int
) -> None:
    assert requested_wait(query) == seconds


async def test_response_within_the_requested_wait_is_no_timeout() -> None:
    async def waits(writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(2)  # more than 0.4 s, the timeout of a request without `wait`
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nnews")
        await writer.drain()

    async with (
        tcp.raw_server(waits) as upstream,
        with_orders_at(upstream.url, **SHORT_TIMEOUTS) as http,
    ):
        response = await http.get("/orders/1/status?wait=25")

    assert (response.status_code, response.text) == (200, "news")


async def test_pause_within_a_response_is_no_timeout() -> None:
    """An event stream may send nothing for a long time."""

    async def pauses(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nfirst")
        await writer.drain()
        await asyncio.sleep(2)  # longer than the timeout for response headers
        writer.write(b"later")
        await writer.drain()

    async with (
        tcp.raw_server(pauses) as upstream,
        with_orders_at(upstream.url, **SHORT_TIMEOUTS) as http,
    ):
        response = await http.get("/orders")

    assert response.content == b"firstlater"


async def test_missing_request_body_times_out() -> None:
    async with fake_cluster(body_timeout=0.1) as cluster:
        reply = await exchange(cluster.port, HALF_A_REQUEST)

    assert (reply.status, reply.json()["code"]) == (408, "request.timeout")
    assert reply.headers["connection"] == "close"


async def test_body_timeout_applies_between_chunks() -> None:
    async def body() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b"piece"
            await asyncio.sleep(0.6)  # one pause is below the timeout of 1.1 s, three are above it

    async with (
        fake_cluster(body_timeout=0.1) as cluster,
        httpx2.AsyncClient(base_url=cluster.url, timeout=20) as http,
    ):
        response = await http.post("/imports", content=body())

    assert response.json()["size"] == 15


async def test_service_may_reject_before_reading_the_body(cluster: FakeCluster) -> None:
    large = request(b"POST", b"/imports", body=b"x" * 5_000_000)
    cluster.services["inventory"].handler = answer(413, b"too large")

    reply = await exchange(cluster.port, large)

    assert (reply.status, reply.body) == (413, b"too large")


async def test_connection_closed_by_a_service_is_not_reused(
    cluster: FakeCluster, http: httpx2.AsyncClient
) -> None:
    closing = answer(200, b"x", (b"connection", b"close"))
    cluster.services["users"].handler = closing

    responses = [await http.get("/users") for _ in range(5)]

    assert [response.status_code for response in responses] == [200] * 5


async def test_hanging_service_does_not_exhaust_other_pools(
    cluster: FakeCluster, http: httpx2.AsyncClient
) -> None:
    started, disconnected = asyncio.Event(), asyncio.Event()
    cluster.services["orders"].handler = unanswered(started, disconnected)
    stuck = [asyncio.create_task(http.get(f"/orders/{n}")) for n in range(90)]
    await wait_for(started)
    async with asyncio.timeout(TIMEOUT_SECONDS):
        while len(cluster.services["orders"].requests) < len(stuck):
            await asyncio.sleep(0.01)

    reply = await exchange(cluster.port, request(b"GET", b"/users"))
    for task in stuck:
        task.cancel()
    await asyncio.gather(*stuck, return_exceptions=True)

    assert reply.status == 200
