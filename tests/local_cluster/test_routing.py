"""At the front: a request finds the service whose path it is, unchanged, or nobody."""

import asyncio
import hashlib
import json
import secrets
from collections.abc import AsyncIterator

import httpx2
import pytest

from markethall.topology import OWNERS, Context
from tests.apart.services import Market, answering, market
from tests.e2e.raw import exchange, request


@pytest.fixture(scope="module")
async def four() -> AsyncIterator[Market]:
    async with market() as found:
        yield found


@pytest.fixture
def stalls(four: Market) -> Market:
    for service in four.services.values():
        service.asked.clear()
        service.says = None
    return four


@pytest.fixture
async def http(four: Market) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(base_url=four.url, timeout=20) as client:
        yield client


@pytest.mark.parametrize("segment", OWNERS)
async def test_the_first_segment_decides_who_is_asked(
    stalls: Market, http: httpx2.AsyncClient, segment: str
) -> None:
    alone = (await http.get(f"/{segment}")).json()
    deeper = (await http.get(f"/{segment}/x/y")).json()

    assert {alone["service"], deeper["service"]} == {OWNERS[segment]}


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
async def test_paths_and_queries_travel_byte_by_byte(stalls: Market, target: str) -> None:
    reply = await exchange(stalls.port, request(b"GET", target.encode()))

    heard = reply.json()
    assert target == heard["path"] + ("?" + heard["query"] if heard["query"] else "")


CLIMBING = [
    b"/users/../internal/users/active",
    b"/users/%2e%2e/internal/users/active",
    b"/users/.%2E/internal/users/active",
    b"/users%2f..%2finternal%2fusers%2factive",
    b"/users/./me",
    b"/./users/me",
]
INTERNAL = [
    b"/internal",
    b"/internal/users/active",
    b"/internal/keys.json",
    b"/./internal/users/active",
    b"//internal/users/active",
    b"/%69nternal/users/active",
    b"/%2finternal/users/active",
    b"/internal%2fusers%2factive",
    b"/INTERNAL/users/active",
    b"/;/internal/users/active",
    b"http://hall/internal/users/active",
    b"http://hall//internal/users/active",
]
NOBODYS = [b"/", b"/nothing", b"/Users/me", b"/users%00/me", b"/userss", b"//users/me", b"/%ff"]


@pytest.mark.parametrize("target", [*CLIMBING, *INTERNAL, *NOBODYS])
@pytest.mark.parametrize("method", [b"GET", b"POST"])
async def test_what_is_nobodys_path_reaches_nobody(
    stalls: Market, method: bytes, target: bytes
) -> None:
    reply = await exchange(stalls.port, request(method, target, [(b"X-Request-ID", b"asked-01")]))

    problem = reply.json()
    assert (reply.status, problem["code"]) == (404, "request.not_found")
    assert reply.headers["content-type"] == "application/problem+json"
    assert reply.headers["x-request-id"] == problem["request_id"] == "asked-01"
    assert set(problem) == {
        "type", "title", "status", "detail", "instance", "code", "request_id", "retryable",
        "details",
    }  # fmt: skip
    assert stalls.asked == []


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
async def test_every_method_arrives(stalls: Market, http: httpx2.AsyncClient, method: str) -> None:
    answer = await http.request(method, "/orders/1")

    assert answer.json()["method"] == method


async def test_head_is_answered_without_content_and_with_its_length(
    stalls: Market, http: httpx2.AsyncClient
) -> None:
    stalls.services[Context.USERS].says = answering(200, b"x" * 1234)

    answer = await http.head("/users/me")
    after = await http.get("/users/me")

    assert (answer.headers["content-length"], answer.content) == ("1234", b"")
    assert stalls.asked == [b"HEAD /users/me", b"GET /users/me"]
    assert len(after.content) == 1234


async def test_headers_travel_but_for_those_of_one_connection(
    stalls: Market, http: httpx2.AsyncClient
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

    heard = (await http.get("/users/me", headers=headers)).json()["headers"]

    given = [[name.lower(), value] for name, value in headers[:6]]
    names = {name for name, _ in heard}
    assert sorted(item for item in heard if item in given) == sorted(given)
    assert [value for name, value in heard if name == "x-many"] == ["one", "two"]
    assert names.isdisjoint(
        {"connection", "x-secret", "keep-alive", "proxy-authorization", "te", "upgrade"}
    )


async def test_an_id_is_given_to_a_request_that_has_none(
    stalls: Market, http: httpx2.AsyncClient
) -> None:
    heard = (await http.get("/users/me")).json()["headers"]

    assert len([value for name, value in heard if name == "x-request-id"]) == 1


async def test_an_address_that_a_client_makes_up_is_not_passed_on(
    stalls: Market, http: httpx2.AsyncClient
) -> None:
    heard = (await http.get("/users", headers={"X-Forwarded-For": "203.0.113.9"})).json()

    assert forwarded(heard["headers"]) == ["127.0.0.1"]


async def test_the_list_of_a_proxy_that_is_trusted_is_lengthened() -> None:
    lists = [("X-Forwarded-For", "192.0.2.1, 203.0.113.9"), ("X-Forwarded-For", "203.0.113.10")]
    async with (
        market(trusted_proxies="127.0.0.1/32") as trusting,
        httpx2.AsyncClient(base_url=trusting.url) as http,
    ):
        heard = (await http.get("/users", headers=lists)).json()

    assert forwarded(heard["headers"]) == ["192.0.2.1, 203.0.113.9, 203.0.113.10, 127.0.0.1"]


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
async def test_answers_travel_unchanged(
    stalls: Market,
    http: httpx2.AsyncClient,
    status: int,
    body: bytes,
    headers: list[tuple[bytes, bytes]],
) -> None:
    one_hop = [(b"connection", b"x-inner"), (b"x-inner", b"1"), (b"keep-alive", b"timeout=1")]
    stalls.services[Context.ORDERS].says = answering(status, body, *headers, *one_hop)

    async with http.stream("GET", "/orders") as answer:
        content = b"".join([piece async for piece in answer.aiter_raw()])

    assert (answer.status_code, content) == (status, body)
    assert [item for item in answer.headers.raw if item in headers] == headers
    assert answer.headers.get_list("date") == [answer.headers["date"]]
    assert not {"x-inner", "keep-alive"} & set(answer.headers)


@pytest.mark.parametrize("length", ["said", "chunked"])
async def test_a_large_body_arrives_whole(
    stalls: Market, http: httpx2.AsyncClient, length: str
) -> None:
    body = secrets.token_bytes(1 << 20) * 20

    async def in_pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 100_000):
            yield body[start : start + 100_000]

    content = body if length == "said" else in_pieces()
    heard = (await http.post("/imports", content=content)).json()

    assert (heard["size"], heard["sha256"]) == (len(body), hashlib.sha256(body).hexdigest())


async def test_what_is_no_header_of_a_request_is_refused_and_not_passed_on(
    stalls: Market,
) -> None:
    twice = request(b"GET", b"/users/me", [(b"Host", b"another")])

    reply = await exchange(stalls.port, twice)

    assert (reply.status, reply.json()["code"]) == (400, "request.malformed")
    assert stalls.asked == []


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
async def test_no_second_request_hides_in_the_body_of_the_first(
    stalls: Market, framing: list[tuple[bytes, bytes]]
) -> None:
    hidden = b"0\r\n\r\nGET /users/hidden HTTP/1.1\r\nHost: hall\r\n\r\n"

    await exchange(stalls.port, request(b"POST", b"/users", framing, hidden))

    assert b"GET /users/hidden" not in stalls.asked
    assert len(stalls.asked) <= 1


async def test_many_at_once_get_each_their_own_answer(
    stalls: Market, http: httpx2.AsyncClient
) -> None:
    paths = [f"/{segment}/{number}" for number in range(10) for segment in OWNERS]

    answers = await asyncio.gather(*(http.get(path) for path in paths))

    assert [json.loads(answer.content)["path"] for answer in answers] == paths
