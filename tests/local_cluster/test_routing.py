"""Test that the reverse proxy forwards requests unchanged to the owners of their paths."""

import asyncio
import hashlib
import json
import secrets
from collections.abc import AsyncIterator

import httpx2
import pytest

from markethall.contexts import topology
from tests.e2e.raw_http import exchange, request
from tests.local_cluster.fake_services import FakeCluster, answer, fake_cluster


@pytest.fixture(scope="module")
async def module_cluster() -> AsyncIterator[FakeCluster]:
    async with fake_cluster() as found:
        yield found


@pytest.fixture
def cluster(module_cluster: FakeCluster) -> FakeCluster:
    for service in module_cluster.services.values():
        service.requests.clear()
        service.handler = None
    return module_cluster


@pytest.fixture
async def http(module_cluster: FakeCluster) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(base_url=module_cluster.url, timeout=20) as client:
        yield client


@pytest.mark.parametrize("segment", topology().context_by_path)
async def test_the_first_path_segment_decides_the_service(
    cluster: FakeCluster, http: httpx2.AsyncClient, segment: str
) -> None:
    alone = (await http.get(f"/{segment}")).json()
    deeper = (await http.get(f"/{segment}/x/y")).json()

    assert {alone["service"], deeper["service"]} == {topology().context_by_path[segment]}


@pytest.mark.parametrize(
    "target",
    [
        "/products/a%2Fb%20c",
        "/products/%C3%A4?name=%C3%A4+%20&name=2&empty=",
        "/orders//x/",
        "/orders/a;b=c,d?x=a?b/c",
        "/users/%25%32%66?q=%00",
        "/%75sers/me",
        "/users%2Fme",
        "/orders/...",
    ],
)
async def test_paths_and_queries_are_passed_byte_by_byte(cluster: FakeCluster, target: str) -> None:
    reply = await exchange(cluster.port, request(b"GET", target.encode()))

    received = reply.json()
    assert target == received["path"] + ("?" + received["query"] if received["query"] else "")


DOT_SEGMENTS = [
    b"/users/../internal/users/get_active_customer",
    b"/users/%2e%2e/internal/users/get_active_customer",
    b"/users/.%2E/internal/users/get_active_customer",
    b"/users%2f..%2finternal%2fusers%2factive",
    b"/users/./me",
    b"/./users/me",
]
INTERNAL = [
    b"/internal",
    b"/internal/users/get_active_customer",
    b"/internal/keys.json",
    b"/./internal/users/get_active_customer",
    b"//internal/users/get_active_customer",
    b"/%69nternal/users/get_active_customer",
    b"/%2finternal/users/get_active_customer",
    b"/internal%2fusers%2factive",
    b"/INTERNAL/users/get_active_customer",
    b"/;/internal/users/get_active_customer",
    b"http://shop/internal/users/get_active_customer",
    b"http://shop//internal/users/get_active_customer",
]
UNKNOWN = [b"/", b"/nothing", b"/Users/me", b"/users%00/me", b"/userss", b"//users/me", b"/%ff"]


@pytest.mark.parametrize("target", [*DOT_SEGMENTS, *INTERNAL, *UNKNOWN])
@pytest.mark.parametrize("method", [b"GET", b"POST"])
async def test_a_path_without_an_owner_reaches_no_service(
    cluster: FakeCluster, method: bytes, target: bytes
) -> None:
    reply = await exchange(cluster.port, request(method, target, [(b"X-Request-ID", b"first-01")]))

    problem = reply.json()
    assert (reply.status, problem["code"]) == (404, "request.not_found")
    assert reply.headers["content-type"] == "application/problem+json"
    assert reply.headers["x-request-id"] == problem["request_id"] == "first-01"
    assert set(problem) == {
        "type", "title", "status", "detail", "instance", "code", "request_id", "retryable",
        "details",
    }  # fmt: skip
    assert cluster.requests == []


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
async def test_every_method_is_passed_on(
    cluster: FakeCluster, http: httpx2.AsyncClient, method: str
) -> None:
    response = await http.request(method, "/orders/1")

    assert response.json()["method"] == method


async def test_head_has_a_length_and_no_content(
    cluster: FakeCluster, http: httpx2.AsyncClient
) -> None:
    cluster.services["users"].handler = answer(200, b"x" * 1234)

    response = await http.head("/users/me")
    after = await http.get("/users/me")

    assert (response.headers["content-length"], response.content) == ("1234", b"")
    assert cluster.requests == [b"HEAD /users/me", b"GET /users/me"]
    assert len(after.content) == 1234


async def test_all_but_hop_by_hop_headers_are_passed_on(
    cluster: FakeCluster, http: httpx2.AsyncClient
) -> None:
    headers = [
        ("Host", "shop.example"),
        ("Authorization", "Bearer x.y.z"),
        ("X-Request-ID", "request-0001"),
        ("traceparent", "00-11111111111111111111111111111111-2222222222222222-01"),
        ("X-Many", "one"),
        ("X-Many", "two"),
        ("Connection", "keep-alive, X-Secret"),
        ("X-Secret", "for one hop"),
        ("Keep-Alive", "timeout=5"),
        ("Proxy-Authorization", "Basic eA=="),
        ("TE", "trailers"),
        ("Upgrade", "websocket"),
    ]

    received = (await http.get("/users/me", headers=headers)).json()["headers"]

    given = [[name.lower(), value] for name, value in headers[:6]]
    names = {name for name, _ in received}
    assert sorted(item for item in received if item in given) == sorted(given)
    assert [value for name, value in received if name == "x-many"] == ["one", "two"]
    assert names.isdisjoint(
        {"connection", "x-secret", "keep-alive", "proxy-authorization", "te", "upgrade"}
    )


async def test_a_request_without_an_id_gets_one(
    cluster: FakeCluster, http: httpx2.AsyncClient
) -> None:
    received = (await http.get("/users/me")).json()["headers"]

    assert len([value for name, value in received if name == "x-request-id"]) == 1


async def test_a_forged_client_address_is_not_passed_on(
    cluster: FakeCluster, http: httpx2.AsyncClient
) -> None:
    received = (await http.get("/users", headers={"X-Forwarded-For": "203.0.113.9"})).json()

    assert forwarded(received["headers"]) == ["127.0.0.1"]


async def test_the_client_address_of_a_trusted_proxy_is_passed_on() -> None:
    lists = [("X-Forwarded-For", "192.0.2.1, 203.0.113.9"), ("X-Forwarded-For", "203.0.113.10")]
    async with (
        fake_cluster(trusted_proxies="127.0.0.1/32") as trusting,
        httpx2.AsyncClient(base_url=trusting.url) as http,
    ):
        received = (await http.get("/users", headers=lists)).json()

    assert forwarded(received["headers"]) == ["203.0.113.10"]


def forwarded(headers: list[list[str]]) -> list[str]:
    return [value for name, value in headers if name == "x-forwarded-for"]


@pytest.mark.parametrize(
    ("status", "body", "headers"),
    [
        (201, b"{}", [(b"location", b"/orders/1"), (b"x-many", b"1"), (b"x-many", b"2")]),
        (204, b"", [(b"etag", b'"v1"')]),
        (304, b"", [(b"etag", b'"v1"'), (b"cache-control", b"public, max-age=5")]),
        (307, b"", [(b"location", b"/orders?x=1")]),
        (429, b"{}", [(b"retry-after", b"7"), (b"ratelimit", b'"a";r=0')]),
        (500, b"{}", [(b"content-type", b"application/problem+json")]),
        (200, b"\x1f\x8b not unpacked", [(b"content-encoding", b"gzip")]),
    ],
)
async def test_responses_are_passed_unchanged(
    cluster: FakeCluster,
    http: httpx2.AsyncClient,
    status: int,
    body: bytes,
    headers: list[tuple[bytes, bytes]],
) -> None:
    one_hop = [(b"connection", b"x-inner"), (b"x-inner", b"1"), (b"keep-alive", b"timeout=1")]
    cluster.services["orders"].handler = answer(status, body, *headers, *one_hop)

    async with http.stream("GET", "/orders") as response:
        content = b"".join([piece async for piece in response.aiter_raw()])

    assert (response.status_code, content) == (status, body)
    assert [item for item in response.headers.raw if item in headers] == headers
    assert response.headers.get_list("date") == [response.headers["date"]]
    assert not {"x-inner", "keep-alive"} & set(response.headers)


@pytest.mark.parametrize("length", ["content-length", "chunked"])
async def test_a_large_body_is_passed_completely(
    cluster: FakeCluster, http: httpx2.AsyncClient, length: str
) -> None:
    body = secrets.token_bytes(1 << 20) * 20

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 100_000):
            yield body[start : start + 100_000]

    content = body if length == "content-length" else chunks()
    received = (await http.post("/imports", content=content)).json()

    assert (received["size"], received["sha256"]) == (len(body), hashlib.sha256(body).hexdigest())


async def test_a_request_with_two_hosts_is_refused_and_not_passed_on(
    cluster: FakeCluster,
) -> None:
    twice = request(b"GET", b"/users/me", [(b"Host", b"another")])

    reply = await exchange(cluster.port, twice)

    assert (reply.status, reply.json()["code"]) == (400, "request.malformed")
    assert cluster.requests == []


@pytest.mark.parametrize(
    "framing",
    [
        [(b"Content-Length", b"5"), (b"Transfer-Encoding", b"chunked")],
        [(b"Transfer-Encoding", b"xchunked")],
        [(b"Transfer-Encoding", b"chunked"), (b"Transfer-Encoding", b"identity")],
        [(b"Content-Length", b"5"), (b"Content-Length", b"50")],
        [(b"Content-Length", b"+5")],
        [(b"Connection", b"content-length"), (b"Content-Length", b"47")],
    ],
)
async def test_no_second_request_is_smuggled_in_the_body_of_the_first(
    cluster: FakeCluster, framing: list[tuple[bytes, bytes]]
) -> None:
    hidden = b"0\r\n\r\nGET /users/hidden HTTP/1.1\r\nHost: shop\r\n\r\n"

    await exchange(cluster.port, request(b"POST", b"/users", framing, hidden))

    assert b"GET /users/hidden" not in cluster.requests
    assert len(cluster.requests) <= 1


async def test_concurrent_requests_get_their_own_responses(
    cluster: FakeCluster, http: httpx2.AsyncClient
) -> None:
    paths = [
        f"/{segment}/{number}" for number in range(10) for segment in topology().context_by_path
    ]

    responses = await asyncio.gather(*(http.get(path) for path in paths))

    assert [json.loads(response.content)["path"] for response in responses] == paths
