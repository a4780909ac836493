"""What the response cache keeps, for whom, and for how long."""

from dataclasses import dataclass, field
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from markethall.shared.http.response_cache import ResponseCacheMiddleware, offer

TTL_SECONDS = 5.0
PUBLIC = [(b"etag", b'"v1"'), (b"cache-control", b"public, max-age=5")]


@dataclass
class App:
    """Responds with its headers and the number of the request; offers what is current."""

    headers: list[tuple[bytes, bytes]] = field(default_factory=lambda: list(PUBLIC))
    status: int = 200
    offers: bool = True
    current: bool = True
    requests: int = 0
    body: bytes = b""

    async def __call__(self, scope: Scope, _: Receive, send: Send) -> None:
        self.requests += 1
        assert not any(name == b"if-none-match" for name, _ in scope["headers"])
        if self.offers:
            offer(scope, lambda: self.current)
        await send({"type": "http.response.start", "status": self.status, "headers": self.headers})
        number = b"%d" % self.requests
        await send({"type": "http.response.body", "body": number, "more_body": True})
        await send({"type": "http.response.body", "body": self.body})


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Cached:
    app: App = field(default_factory=App)
    clock: Clock = field(default_factory=Clock)
    max_bytes: int = 1_000_000

    def __post_init__(self) -> None:
        self.middleware = ResponseCacheMiddleware(self.app, TTL_SECONDS, self.max_bytes, self.clock)

    async def get(self, path: str = "/products", query: str = "", **headers: str) -> list[Message]:
        sent: list[Message] = []

        async def send(message: Message) -> None:
            sent.append(message)

        async def receive() -> Any:
            raise AssertionError("a GET has no body")

        scope = {
            "type": "http",
            "method": headers.pop("method", "GET"),
            "path": path,
            "query_string": query.encode(),
            "headers": [
                (name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()
            ],
            "state": {},
        }
        await self.middleware(scope, receive, send)
        return sent

    async def body(self, path: str = "/products", query: str = "", **headers: str) -> bytes:
        sent = await self.get(path, query, **headers)
        return b"".join(message.get("body", b"") for message in sent)


async def test_a_response_is_kept_for_the_ttl() -> None:
    cached = Cached()

    bodies = [await cached.body() for _ in range(3)]
    cached.clock.now += TTL_SECONDS
    bodies.append(await cached.body())

    assert bodies == [b"1", b"1", b"1", b"2"]


async def test_a_response_ends_when_its_data_is_not_current() -> None:
    cached = Cached()
    await cached.body()

    cached.app.current = False

    assert await cached.body() == b"2"


async def test_path_query_and_language_have_their_own_responses() -> None:
    cached = Cached()
    requests: list[dict[str, str]] = [
        {},
        {"path": "/products/1"},
        {"query": "limit=1"},
        {"accept_language": "de"},
        {"accept_language": "fr"},
    ]

    first = [await cached.body(**request) for request in requests]
    second = [await cached.body(**request) for request in requests]

    assert first == second == [b"1", b"2", b"3", b"4", b"5"]


@pytest.mark.parametrize(
    "app",
    [
        App(offers=False),
        App(status=404),
        App(headers=[(b"cache-control", b"public")]),
        App(headers=[(b"etag", b'"v1"'), (b"cache-control", b"no-store")]),
        App(headers=[(b"etag", b'"v1"')]),
        App(headers=[*PUBLIC, (b"vary", b"Cookie")]),
    ],
    ids=["not offered", "not 200", "no etag", "not public", "no cache-control", "varies"],
)
async def test_other_responses_are_not_kept(app: App) -> None:
    cached = Cached(app)

    assert [await cached.body() for _ in range(2)] == [b"1", b"2"]


@pytest.mark.parametrize("headers", [{"authorization": "Bearer x"}, {"method": "POST"}])
async def test_other_requests_are_not_answered_from_the_cache(headers: dict[str, str]) -> None:
    cached = Cached()
    await cached.body()

    assert [await cached.body(**headers) for _ in range(2)] == [b"2", b"3"]
    assert await cached.body() == b"1"


async def test_a_response_may_vary_by_language() -> None:
    cached = Cached(App(headers=[*PUBLIC, (b"vary", b"Accept-Language")]))

    assert [await cached.body(accept_language="de") for _ in range(2)] == [b"1", b"1"]


@pytest.mark.parametrize("known", ['"v1"', 'W/"v1"', '"v0", "v1"', "*"])
async def test_a_client_with_this_version_gets_304(known: str) -> None:
    cached = Cached(App(headers=[*PUBLIC, (b"content-type", b"application/json")]))

    for _ in range(2):
        start, body = await cached.get(if_none_match=known)

        assert start["status"] == 304
        assert start["headers"] == PUBLIC
        assert body["body"] == b""
    assert cached.app.requests == 1


async def test_a_client_with_another_version_gets_the_response() -> None:
    cached = Cached()

    sent = [await cached.get(if_none_match='"v0"') for _ in range(2)]

    assert [messages[0]["status"] for messages in sent] == [200, 200]
    assert cached.app.requests == 1


async def test_a_conditional_request_is_answered_for_what_is_not_kept_too() -> None:
    cached = Cached(App(offers=False))

    sent = [await cached.get(if_none_match='"v1"') for _ in range(2)]

    assert [messages[0]["status"] for messages in sent] == [304, 304]
    assert cached.app.requests == 2


@pytest.mark.parametrize("body", [b"", b"x" * 10_000])
async def test_the_memory_is_bounded_and_the_oldest_responses_go_first(body: bytes) -> None:
    cached = Cached(App(body=body), max_bytes=1_000_000)
    for number in range(1000):
        await cached.body(query=f"q={number}")

    await cached.body(query="q=999")
    assert cached.app.requests == 1000
    await cached.body(query="q=0")
    assert cached.app.requests == 1001


async def test_a_response_larger_than_the_memory_is_not_kept() -> None:
    cached = Cached(App(body=b"x" * 10_000), max_bytes=5000)

    for _ in range(2):
        await cached.body()

    assert cached.app.requests == 2
