"""Test which responses the response cache stores, for which requests, and for how long."""

from dataclasses import dataclass, field
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from markethall.shared.http.response_cache import (
    CachedResponse,
    ResponseCacheMiddleware,
    SelectLanguage,
    offer,
)

TTL_SECONDS = 5.0
PUBLIC = [(b"etag", b'"v1"'), (b"cache-control", b"public, max-age=5")]


@dataclass
class CountingApp:
    """An application that responds with its request count, and offers the response to the cache."""

    headers: list[tuple[bytes, bytes]] = field(default_factory=lambda: list(PUBLIC))
    status: int = 200
    offers: bool = True
    current: bool = True
    data_version: int = 1
    select_language: SelectLanguage | None = None
    requests: int = 0
    body: bytes = b""

    async def __call__(self, scope: Scope, _: Receive, send: Send) -> None:
        self.requests += 1
        assert not any(name == b"if-none-match" for name, _ in scope["headers"])
        if self.offers:
            version = self.data_version
            offer(
                scope,
                lambda: self.current and version == self.data_version,
                self.select_language,
            )
        await send({"type": "http.response.start", "status": self.status, "headers": self.headers})
        number = b"%d" % self.requests
        await send({"type": "http.response.body", "body": number, "more_body": True})
        await send({"type": "http.response.body", "body": self.body})


@dataclass
class FakeClock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class CachedApp:
    app: CountingApp = field(default_factory=CountingApp)
    clock: FakeClock = field(default_factory=FakeClock)
    max_bytes: int = 1_000_000

    def __post_init__(self) -> None:
        self.middleware = ResponseCacheMiddleware(self.app, TTL_SECONDS, self.max_bytes, self.clock)

    async def get(self, path: str = "/products", query: str = "", **headers: str) -> list[Message]:
        messages: list[Message] = []

        async def send(message: Message) -> None:
            messages.append(message)

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
        return messages

    async def body(self, path: str = "/products", query: str = "", **headers: str) -> bytes:
        messages = await self.get(path, query, **headers)
        return b"".join(message.get("body", b"") for message in messages)


async def test_response_is_cached_for_ttl() -> None:
    cached = CachedApp()

    bodies = [await cached.body() for _ in range(3)]
    cached.clock.now += TTL_SECONDS
    bodies.append(await cached.body())

    assert bodies == [b"1", b"1", b"1", b"2"]


async def test_response_is_dropped_when_data_changes() -> None:
    cached = CachedApp()
    await cached.body()

    cached.app.current = False

    assert await cached.body() == b"2"


async def test_cache_key_is_path_query_and_language() -> None:
    cached = CachedApp(CountingApp(select_language=lambda header: header[:2]))
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
    assert await cached.body(accept_language="de-AT,de;q=0.9") == b"4"


async def test_languages_of_new_data_replace_those_of_old_data() -> None:
    cached = CachedApp(CountingApp(select_language=lambda _: b""))
    assert [await cached.body(accept_language="de") for _ in range(2)] == [b"1", b"1"]

    cached.app.data_version += 1
    cached.app.select_language = lambda header: header[:2]
    assert await cached.body() == b"2"

    assert [await cached.body(accept_language="de") for _ in range(2)] == [b"3", b"3"]
    assert await cached.body() == b"2"


async def test_without_selector_all_languages_share_one_response() -> None:
    cached = CachedApp()

    assert [await cached.body(accept_language=tag) for tag in ("de", "fr", "")] == [b"1"] * 3


@pytest.mark.parametrize(
    "app",
    [
        CountingApp(offers=False),
        CountingApp(status=404),
        CountingApp(headers=[(b"cache-control", b"public")]),
        CountingApp(headers=[(b"etag", b'"v1"'), (b"cache-control", b"no-store")]),
        CountingApp(headers=[(b"etag", b'"v1"')]),
        CountingApp(headers=[*PUBLIC, (b"vary", b"Cookie")]),
    ],
    ids=["not offered", "not 200", "no etag", "not public", "no cache-control", "varies"],
)
async def test_other_responses_are_not_cached(app: CountingApp) -> None:
    cached = CachedApp(app)

    assert [await cached.body() for _ in range(2)] == [b"1", b"2"]


@pytest.mark.parametrize("headers", [{"authorization": "Bearer x"}, {"method": "POST"}])
async def test_other_requests_bypass_cache(headers: dict[str, str]) -> None:
    cached = CachedApp()
    await cached.body()

    assert [await cached.body(**headers) for _ in range(2)] == [b"2", b"3"]
    assert await cached.body() == b"1"


async def test_response_may_vary_by_language() -> None:
    cached = CachedApp(CountingApp(headers=[*PUBLIC, (b"vary", b"Accept-Language")]))

    assert [await cached.body(accept_language="de") for _ in range(2)] == [b"1", b"1"]


@pytest.mark.parametrize("known", ['"v1"', 'W/"v1"', '"v0", "v1"', "*"])
async def test_matching_if_none_match_gets_304(known: str) -> None:
    cached = CachedApp(CountingApp(headers=[*PUBLIC, (b"content-type", b"application/json")]))

    for _ in range(2):
        start, body = await cached.get(if_none_match=known)

        assert start["status"] == 304
        assert start["headers"] == PUBLIC
        assert body["body"] == b""
    assert cached.app.requests == 1


async def test_other_if_none_match_gets_response() -> None:
    cached = CachedApp()

    responses = [await cached.get(if_none_match='"v0"') for _ in range(2)]

    assert [messages[0]["status"] for messages in responses] == [200, 200]
    assert cached.app.requests == 1


async def test_conditional_request_works_for_uncached_response() -> None:
    cached = CachedApp(CountingApp(offers=False))

    responses = [await cached.get(if_none_match='"v1"') for _ in range(2)]

    assert [messages[0]["status"] for messages in responses] == [304, 304]
    assert cached.app.requests == 2


@pytest.mark.parametrize("body", [b"", b"x" * 10_000])
async def test_memory_is_bounded_and_oldest_response_is_evicted(body: bytes) -> None:
    cached = CachedApp(CountingApp(body=body), max_bytes=1_000_000)
    for number in range(1000):
        await cached.body(query=f"q={number}")

    await cached.body(query="q=999")
    assert cached.app.requests == 1000
    await cached.body(query="q=0")
    assert cached.app.requests == 1001


async def test_response_larger_than_memory_is_not_cached() -> None:
    cached = CachedApp(CountingApp(body=b"x" * 10_000), max_bytes=5000)

    for _ in range(2):
        await cached.body()

    assert cached.app.requests == 2


async def test_late_response_of_old_data_changes_no_language() -> None:
    """The old data has only German texts. The new data also has French texts."""
    cached = CachedApp()
    resource = ("/products", b"")
    fresh = CachedResponse(PUBLIC, b"default texts of the new data", "/products")
    late = CachedResponse(PUBLIC, b"German texts of the old data", "/products")

    cached.middleware.put(resource, b"", fresh, lambda: True, lambda header: header)
    cached.middleware.put(
        resource, b"de", late, lambda: False, lambda header: b"de" if header == b"de" else b""
    )

    assert cached.middleware.get(resource, b"fr") is None
    assert cached.middleware.get(resource, b"de") is None
    assert cached.middleware.get(resource, b"") is fresh
