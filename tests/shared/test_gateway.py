"""The gateway: limits, authentication, rate limits, errors and headers of every response."""

import asyncio
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, FastAPI, Form, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message

from markethall.shared.http.client_ip import client_ip
from markethall.shared.http.cors import CorsPolicy
from markethall.shared.http.gateway import GatewayMiddleware, TokenVerifiers
from markethall.shared.http.gateway_config import GatewayConfig
from markethall.shared.http.problem_details import (
    http_exception_handler,
    problem_handler,
    unexpected_handler,
    validation_handler,
)
from markethall.shared.http.rate_limits import LOGIN, REQUESTS, SEARCHES, RateLimiter
from markethall.shared.http.request_body import normalize_form, validate_json
from markethall.shared.http.request_context import MAX_HEADER_BYTES, TokenVerifier
from markethall.shared.http.work_kinds import WorkKinds
from markethall.shared.kernel.call_context import Actor, CallContext
from markethall.shared.kernel.errors import (
    DomainError,
    MalformedRequest,
    Overloaded,
    Unauthenticated,
)
from markethall.shared.kernel.ids import new_id
from markethall.shared.kernel.model import Int, RequestModel, Text
from markethall.shared.observability.metrics import REGISTRY
from markethall.shared.persistence.redis_client import RedisClient

LIMIT = 2048
PROXIES = (ip_network("10.0.0.0/8"),)
USER = Actor(user_id=new_id())


class Thing(RequestModel):
    name: Text = ""
    number: Int = 0


@dataclass(frozen=True)
class HttpResponse:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        assert self.headers["content-type"] == "application/problem+json"
        assert self.json["status"] == self.status
        return str(self.json["code"])


class ProbeVerifier:
    async def verify(self, token: str) -> Actor:
        if token != "good":
            raise Unauthenticated(reason="invalid")
        return USER


def probe_app() -> FastAPI:
    handlers: Any = {
        DomainError: problem_handler,
        RequestValidationError: validation_handler,
        HTTPException: http_exception_handler,
        Exception: unexpected_handler,
    }
    app = FastAPI(exception_handlers=handlers)

    @app.post("/things")
    async def create_thing(thing: Thing) -> Thing:
        return thing

    @app.get("/things/{name}")
    async def get_thing(name: str, request: Request) -> dict[str, Any]:
        ctx: CallContext = request.scope["state"]["get_call_context"]()
        return json.loads(ctx.model_dump_json()) | {"name": name}  # type: ignore[no-any-return]

    @app.post("/token")
    async def token(username: Annotated[str, Form()], request: Request) -> dict[str, str]:
        return {"username": username}

    @app.get("/fault")
    async def fault() -> None:
        raise ZeroDivisionError("an internal detail")

    @app.get("/busy")
    async def busy() -> None:
        raise Overloaded(retry_after=7)

    inner = APIRouter()

    @inner.get("/deep/{number}")
    async def deep(number: int) -> int:
        return number

    app.include_router(inner, prefix="/very")

    @app.get("/cached")
    async def cached() -> Response:
        return Response("x", headers={"cache-control": "public, max-age=5"})

    return app


def gateway(
    app: ASGIApp | None = None,
    *,
    limits: str = "off",
    body_timeout: float = 5,
    trusted_proxies: Any = (),
    cors: CorsPolicy | None = None,
    **config_fields: Any,
) -> GatewayMiddleware:
    config = GatewayConfig(
        max_body_bytes=LIMIT,
        body_timeout_seconds=body_timeout,
        trusted_proxies=trusted_proxies,
        context_by_path={"things": "probe"},
        form_paths=frozenset({"/token"}),
        rate_limit_exempt_paths=frozenset({"/busy"}),
        **config_fields,
    )
    verifier: TokenVerifier = ProbeVerifier()
    return GatewayMiddleware(
        app or probe_app(),
        config,
        TokenVerifiers(lambda: verifier),
        RateLimiter(limits, RedisClient(None)),
        cors=cors,
    )


async def send_request(
    app: ASGIApp,
    method: str,
    path: str,
    *chunks: bytes,
    headers: Iterable[tuple[str, str]] = (),
    query: bytes = b"",
    peer: str = "192.0.2.1",
    is_stalled: bool = False,
) -> HttpResponse:
    """Send one ASGI request with a body of these chunks.

    If `is_stalled` is true, the client then sends nothing more and does not end the body.
    """
    scope: dict[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": query,
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in headers],
        "client": (peer, 5000),
        "server": ("testserver", 80),
    }
    messages = [
        {"type": "http.request", "body": chunk, "more_body": is_stalled or index < len(chunks) - 1}
        for index, chunk in enumerate(chunks or (b"",))
    ]
    sent: list[Message] = []

    async def receive() -> Message:
        if messages:
            return messages.pop(0)
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Message) -> None:
        sent.append(message)

    try:
        await app(scope, receive, send)
    except ZeroDivisionError:  # Starlette raises the exception again after the response
        assert sent
    start = sent[0]
    headers_sent = {
        name.decode(): value.decode("latin-1") for name, value in start.get("headers", [])
    }
    return HttpResponse(
        start["status"], headers_sent, b"".join(message.get("body", b"") for message in sent[1:])
    )


JSON = ("content-type", "application/json")
FORM = ("content-type", "application/x-www-form-urlencoded")


async def post(body: bytes, *headers: tuple[str, str]) -> HttpResponse:
    return await send_request(gateway(), "POST", "/things", body, headers=headers or (JSON,))


# Bodies


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b'{"name": "a", "number": 1}',
        '{"name": "ñ 😀"}'.encode(),
        b'{"name": "\\ud83d\\ude00"}',
        b'  {"number": -5}\n',
    ],
)
async def test_valid_json_is_accepted(body: bytes) -> None:
    response = await post(body)

    assert response.status == 200
    assert response.json == {"name": "", "number": 0} | json.loads(body)


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{", 400, "request.malformed"),
        (b"nonsense", 400, "request.malformed"),
        (b'{"a": 1} {"b": 2}', 400, "request.malformed"),
        (b'{"name": "a", "name": "b"}', 400, "request.malformed"),
        (b'{"name": "a", "\\u006eame": "b"}', 400, "request.malformed"),
        (b'[{"a": 1}, {"a": 1, "a": 2}]', 400, "request.malformed"),
        (b'{"number": NaN}', 400, "request.malformed"),
        (b'{"number": Infinity}', 400, "request.malformed"),
        (b'{"number": -Infinity}', 400, "request.malformed"),
        (b'{"number": 1e999}', 400, "request.malformed"),
        (b'{"number": -1e999}', 400, "request.malformed"),
        (b'{"number": ' + b"9" * 1900 + b"}", 200, ""),
        (b'{"number": 01}', 400, "request.malformed"),
        (b'{"name": "\x00"}', 400, "request.malformed"),
        (b'{"name": "\\u0000"}', 422, "request.invalid"),
        (b'{"\\u0000": 1}', 422, "request.invalid"),
        (b'{"name": "\\ud800"}', 422, "request.invalid"),
        (b'{"\\udfff": 1}', 422, "request.invalid"),
        (b'{"name": "\\udc00\\ud800"}', 422, "request.invalid"),
        (b'[[[["\\ud800"]]]]', 422, "request.invalid"),
        (b"\xff\xfe{\x00}\x00", 400, "request.malformed"),
        ('{"name": "a"}'.encode("utf-16"), 400, "request.malformed"),
        ('{"name": "ñ"}'.encode("latin-1"), 400, "request.malformed"),
        (b"\xef\xbb\xbf{}", 400, "request.malformed"),
        (b'{"name": "\xed\xa0\x80"}', 400, "request.malformed"),
        (b"[" * 65 + b"]" * 65, 400, "request.malformed"),
        (b'{"a":' * 65 + b"1" + b"}" * 65, 400, "request.malformed"),
        (b"[" * 1500, 400, "request.malformed"),
        (b"", 422, "request.invalid"),
        (b"null", 422, "request.invalid"),
        (b"[]", 422, "request.invalid"),
        (b"1", 422, "request.invalid"),
        (b'"text"', 422, "request.invalid"),
        (b'{"colour": "red"}', 422, "request.invalid"),
        (b'{"number": true}', 422, "request.invalid"),
        (b'{"number": "1"}', 422, "request.invalid"),
        (b'{"number": 1.0}', 422, "request.invalid"),
        (b'{"number": 1e2}', 422, "request.invalid"),
    ],
    ids=lambda value: repr(value)[:40],
)
async def test_invalid_body_is_rejected_without_server_error(
    body: bytes, status: int, code: str
) -> None:
    response = await post(body)

    assert response.status == status
    assert not code or response.code == code


@pytest.mark.parametrize("body", [b"[" * 100_000, b'{"a":' * 100_000, b"[" * 10**5 + b"]" * 10**5])
def test_deeply_nested_json_is_rejected_quickly(body: bytes) -> None:
    with pytest.raises(MalformedRequest) as raised:
        validate_json(body, max_members=10**6)

    assert "deep" in raised.value.detail


@pytest.mark.parametrize("inside", [b"", b"1", b'"a"', b"[]"])
def test_json_depth_limit_is_sixty_four(inside: bytes) -> None:
    levels = 63 if inside == b"[]" else 64
    validate_json(b"[" * levels + inside + b"]" * levels)

    with pytest.raises(MalformedRequest) as raised:
        validate_json(b"[" * (levels + 1) + inside + b"]" * (levels + 1))

    assert "64 levels" in raised.value.detail


def test_wide_json_is_accepted() -> None:
    validate_json(b"[" + b"[{}]," * 1000 + b"[]]")


def test_oversized_integer_is_rejected() -> None:
    with pytest.raises(MalformedRequest):
        validate_json(b"9" * 5000)


async def test_body_size_limit_is_exact() -> None:
    namespace = b" " * (LIMIT - 2)

    fits = await send_request(gateway(), "POST", "/things", b"{}" + namespace, headers=[JSON])
    declared = await send_request(
        gateway(), "POST", "/things", b"", headers=[JSON, ("content-length", str(LIMIT + 1))]
    )
    chunked = await send_request(
        gateway(), "POST", "/things", b"{}" + namespace, b" ", headers=[JSON]
    )

    assert fits.status == 200
    assert (declared.status, declared.code) == (413, "request.too_large")
    assert (chunked.status, chunked.code) == (413, "request.too_large")
    assert chunked.json["details"] == {"limit": LIMIT}


async def test_chunked_body_is_joined() -> None:
    pieces = [bytes([letter]) for letter in b'{"name": "a"}']

    response = await send_request(gateway(), "POST", "/things", *pieces, headers=[JSON])

    assert response.json["name"] == "a"


async def test_slow_body_closes_connection() -> None:
    response = await send_request(
        gateway(body_timeout=0.05), "POST", "/things", b'{"name"', headers=[JSON], is_stalled=True
    )

    assert (response.status, response.code) == (408, "request.timeout")
    assert response.headers["connection"] == "close"


@pytest.mark.parametrize(
    "kind",
    ["application/json", "application/json; charset=utf-8", 'Application/JSON;charset="UTF-8"',
     "application/merge-patch+json"],
)  # fmt: skip
async def test_json_content_types_are_accepted(kind: str) -> None:
    assert (await post(b"{}", ("content-type", kind))).status == 200


@pytest.mark.parametrize(
    "kind",
    ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x",
     "application/json; charset=utf-16", "application/jsonp", "json", "", "\xff",
     "application/json, text/plain"],
)  # fmt: skip
async def test_other_content_types_are_rejected(kind: str) -> None:
    response = await post(b"{}", ("content-type", kind))

    assert (response.status, response.code) == (415, "request.unsupported_media_type")
    assert response.json["details"] == {"supported": ["application/json"]}


async def test_missing_content_type_is_rejected() -> None:
    response = await send_request(gateway(), "POST", "/things", b"{}")

    assert response.status == 415


async def test_get_body_is_ignored() -> None:
    response = await send_request(
        gateway(), "GET", "/things/a", b"nonsense", headers=[("content-length", "8")]
    )

    assert response.status == 200


# Forms


async def test_form_is_decoded() -> None:
    response = await send_request(
        gateway(), "POST", "/token", b"username=a%2Bb+%C3%B1;x&n=", headers=[FORM]
    )

    assert response.json == {"username": "a+b ñ;x"}


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"username=a&username=b", 400),
        (b"username=a&user%6eame=b", 400),
        (b"&".join(b"f%d=1" % number for number in range(30)), 400),
        (b"username=\xff", 400),
        (b"username=%ff", 400),
        (b"username=%ED%A0%80", 400),
        (b"username=%00", 422),
        (b"user%00name=1", 422),
        (b"", 422),
        (b"other=1", 422),
    ],
)
async def test_ambiguous_form_is_rejected(body: bytes, status: int) -> None:
    response = await send_request(gateway(), "POST", "/token", body, headers=[FORM])

    assert response.status == status
    assert response.code.startswith("request.")


async def test_form_route_rejects_multipart() -> None:
    headers = [("content-type", "multipart/form-data; boundary=x")]
    response = await send_request(gateway(), "POST", "/token", b"--x--", headers=headers)

    assert response.status == 415


async def test_form_route_ignores_json() -> None:
    response = await send_request(gateway(), "POST", "/token", b'{"username": "a"}', headers=[JSON])

    assert response.status == 422


def test_normalized_form_is_stable() -> None:
    normalized = normalize_form("a=ñ&b=%20+&c=;&d".encode())

    assert normalize_form(normalized) == normalized


async def test_login_limit_counts_only_forms_with_username() -> None:
    limited_gateway = gateway(limits="on")

    async def send(body: bytes) -> int:
        response = await send_request(
            limited_gateway, "POST", "/token", body, headers=[FORM], peer="192.0.2.1"
        )
        return response.status

    refreshes = [await send(b"refresh_token=x") for _ in range(LOGIN.quota + 1)]
    logins = [await send(b"username=victim") for _ in range(LOGIN.quota + 1)]

    assert 429 not in refreshes
    assert logins == [200] * LOGIN.quota + [429]


# Authentication and client address


@pytest.mark.parametrize(
    ("peer", "lines", "client"),
    [
        # the peer is not a trusted proxy
        ("192.0.2.1", ["203.0.113.9"], "192.0.2.1"),
        ("10.0.0.1", ["203.0.113.9"], "203.0.113.9"),
        # the client may have forged the addresses on the left
        ("10.0.0.1", ["1.1.1.1, 203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", ["1.1.1.1", "203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", ["10.9.9.9, 203.0.113.9"], "203.0.113.9"),
        # several trusted proxies
        ("10.0.0.1", ["203.0.113.9, 10.0.0.7, 10.0.0.8"], "203.0.113.9"),
        ("10.0.0.1", ["10.0.0.7, 10.0.0.8"], "10.0.0.7"),
        ("10.0.0.1", ["2001:db8::9"], "2001:db8::9"),
        ("::ffff:10.0.0.1", ["203.0.113.9"], "203.0.113.9"),
        # the search from right to left stops at an invalid address, and uses the last valid one
        ("10.0.0.1", ["garbage"], "10.0.0.1"),
        ("10.0.0.1", [""], "10.0.0.1"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.9, garbage"], "10.0.0.1"),
        ("10.0.0.1", ["garbage, 10.0.0.7"], "10.0.0.7"),
        # some load balancers add the port
        ("10.0.0.1", ["203.0.113.9:4711"], "203.0.113.9"),
        ("10.0.0.1", ["1.1.1.1:1, 203.0.113.9:4711, 10.0.0.7:80"], "203.0.113.9"),
        ("10.0.0.1", ["[2001:db8::9]:4711"], "2001:db8::9"),
        ("10.0.0.1", ["[2001:db8::9]"], "2001:db8::9"),
        ("10.0.0.1", ["203.0.113.9:port"], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.9:123456"], "10.0.0.1"),
        ("10.0.0.1", ["[203.0.113.9:4711"], "10.0.0.1"),
        ("10.0.0.1", ["2001:db8::9]:4711"], "10.0.0.1"),
        ("10.0.0.1", ["999.0.113.9:4711"], "10.0.0.1"),
        ("10.0.0.1", ["unknown"], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.9, unknown, 10.0.0.7"], "10.0.0.7"),
        ("10.0.0.1", ["_hidden, 10.0.0.7"], "10.0.0.7"),
        ("10.0.0.1", ["fe80::1%" + "x" * 500], "10.0.0.1"),
        ("10.0.0.1", ["\xff\xfe, <script>"], "10.0.0.1"),
        ("10.0.0.1", [","], "10.0.0.1"),
    ],
)
async def test_client_ip_is_nearest_untrusted_address(
    peer: str, lines: list[str], client: str
) -> None:
    limited_gateway = gateway(limits="on", trusted_proxies=("10.0.0.0/8",))
    headers = [("x-forwarded-for", line) for line in lines]
    for _ in range(3):
        await send_request(limited_gateway, "GET", "/things/a", headers=headers, peer=peer)

    # the rate limit has counted the three earlier requests for this address
    response = await send_request(limited_gateway, "GET", "/things/a", peer=client)

    used = REQUESTS.quota - int(response.headers["ratelimit"].partition("r=")[2].partition(";")[0])
    assert used == 4


@pytest.mark.parametrize(
    ("lines", "client"),
    [
        (["for=203.0.113.9"], "203.0.113.9"),
        (["For=203.0.113.9;proto=https;by=10.0.0.1"], "203.0.113.9"),
        (["proto=https; for=203.0.113.9"], "203.0.113.9"),
        (['for="203.0.113.9:4711"'], "203.0.113.9"),
        (['for="[2001:db8::9]:4711"'], "2001:db8::9"),
        (['for="[2001:db8::9]:_port"'], "2001:db8::9"),
        (["for=1.1.1.1, for=203.0.113.9, for=10.0.0.7"], "203.0.113.9"),
        (["for=1.1.1.1", "for=203.0.113.9"], "203.0.113.9"),
        # a malformed element from the client must not hide the element that the proxy appends
        (['for="1.1.1.1, for=203.0.113.9'], "203.0.113.9"),
        (["for=unknown"], "10.0.0.1"),
        (["for=203.0.113.9, for=_hidden, for=10.0.0.7"], "10.0.0.7"),
        (["for=203.0.113.9;for=1.1.1.1"], "10.0.0.1"),
        (["proto=https"], "10.0.0.1"),
        ([""], "10.0.0.1"),
        (["203.0.113.9"], "10.0.0.1"),
    ],
)
def test_client_ip_of_forwarded_header(lines: list[str], client: str) -> None:
    headers = [(b"forwarded", line.encode()) for line in lines]

    assert client_ip({"client": ("10.0.0.1", 1), "headers": headers}, PROXIES) == client
    assert client_ip({"client": ("192.0.2.1", 1), "headers": headers}, PROXIES) == "192.0.2.1"


def test_x_forwarded_for_takes_precedence_over_forwarded() -> None:
    # most proxies write only X-Forwarded-For, so the client may have forged Forwarded
    headers = [(b"forwarded", b"for=1.1.1.1"), (b"x-forwarded-for", b"203.0.113.9")]

    assert client_ip({"client": ("10.0.0.1", 1), "headers": headers}, PROXIES) == "203.0.113.9"


async def test_valid_token_authenticates_and_invalid_is_anonymous() -> None:
    authenticated = await send_request(
        gateway(), "GET", "/things/a", headers=[("authorization", "Bearer good")]
    )
    anonymous = await send_request(
        gateway(), "GET", "/things/a", headers=[("authorization", "Bearer bad")]
    )

    assert authenticated.json["actor"]["user_id"] == str(USER.user_id)
    assert anonymous.json["actor"]["user_id"] is None


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer ", "Basic good", "good", "Bearer \xff", "bearer  x y", "\x00"]
)
async def test_any_authorization_header_is_safe(header: str) -> None:
    response = await send_request(
        gateway(), "GET", "/things/a", headers=[("authorization", header)]
    )

    assert response.status == 200
    assert response.json["actor"]["user_id"] is None


@pytest.mark.parametrize(("path", "status"), [("/fault", 500), ("/busy", 503)])
async def test_page_of_an_allowed_origin_can_read_server_errors(path: str, status: int) -> None:
    app = gateway(cors=CorsPolicy(["https://shop.example"]))

    response = await send_request(app, "GET", path, headers=[("origin", "https://shop.example")])

    assert response.status == status
    assert response.headers["access-control-allow-origin"] == "https://shop.example"


async def test_rate_limited_response_has_retry_after() -> None:
    limited_gateway = gateway(limits="on")
    for _ in range(REQUESTS.quota):
        await send_request(limited_gateway, "GET", "/things/a")

    response = await send_request(limited_gateway, "GET", "/things/a")
    unlimited = await send_request(limited_gateway, "GET", "/busy")

    assert (response.status, response.code) == (429, "request.rate_limited")
    assert int(response.headers["retry-after"]) >= 1
    assert "requests" in response.headers["ratelimit-policy"]
    assert unlimited.status == 503


# Request headers


@pytest.mark.parametrize(
    "request_id", ["12345678", "a" * 128, "0199c0de-0000-7000-8000-000000000001", "a.b_c:d/e+f=g"]
)
async def test_valid_request_id_is_kept(request_id: str) -> None:
    response = await send_request(
        gateway(), "GET", "/things/a", headers=[("x-request-id", request_id)]
    )

    assert response.headers["x-request-id"] == request_id
    assert response.json["request_id"] == request_id


@pytest.mark.parametrize(
    "invalid_id",
    ["", "short", "a" * 129, "with space", "line\nbreak", "quote'\"<>", "\xff" * 9, "a;b" * 5],
)
async def test_any_other_request_id_is_replaced(invalid_id: str) -> None:
    response = await send_request(
        gateway(), "GET", "/things/a", headers=[("x-request-id", invalid_id)]
    )

    assert response.headers["x-request-id"] != invalid_id
    assert len(response.headers["x-request-id"]) == 36
    assert response.json["request_id"] == response.headers["x-request-id"]


TRACE = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"


@pytest.mark.parametrize(
    ("traceparent", "expected"),
    [
        (TRACE, TRACE),
        (TRACE.upper(), None),
        ("00-" + "0" * 32 + "-" + "b" * 16 + "-01", None),
        ("00-" + "a" * 32 + "-" + "0" * 16 + "-01", None),
        ("ff" + TRACE[2:], None),
        (TRACE + "-more", None),
        ("", None),
        ("nonsense", None),
    ],
)
async def test_valid_traceparent_is_kept(traceparent: str, expected: str | None) -> None:
    response = await send_request(
        gateway(), "GET", "/things/a", headers=[("traceparent", traceparent)]
    )

    assert response.json["traceparent"] == expected


async def test_headers_beyond_limit_are_rejected() -> None:
    response = await send_request(
        gateway(), "GET", "/things/a", headers=[("x-long", "a" * MAX_HEADER_BYTES)]
    )
    many = await send_request(
        gateway(), "GET", "/things/a", headers=[("x", "y")] * MAX_HEADER_BYTES
    )

    assert (response.status, response.code) == (431, "request.headers_too_large")
    assert many.status == 431


@pytest.mark.parametrize("path", ["/things/\x00", "/things/\ufffd", "/\x00"])
async def test_undecodable_path_is_not_found(path: str) -> None:
    response = await send_request(gateway(), "GET", path)

    assert (response.status, response.code) == (404, "request.not_found")


async def test_nul_in_query_is_rejected() -> None:
    response = await send_request(gateway(), "GET", "/things/a", query=b"q=a%00b")

    assert (response.status, response.code) == (422, "request.invalid")
    assert response.json["errors"][0]["field"] == "/query"


@pytest.mark.parametrize("path", ["", "*", "nonsense", "//", "/" * 500, "/../../etc/passwd"])
async def test_any_path_is_safe(path: str) -> None:
    response = await send_request(gateway(), "GET", path)

    assert (response.status, response.code) == (404, "request.not_found")


# Responses


async def test_responses_have_request_id_and_no_store() -> None:
    for path in ("/things/a", "/nowhere", "/busy", "/fault"):
        response = await send_request(gateway(), "GET", path)

        assert len(response.headers["x-request-id"]) == 36
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["cache-control"] == "no-store"


async def test_cacheable_response_sets_cache_control() -> None:
    response = await send_request(gateway(), "GET", "/cached")

    assert response.headers["cache-control"] == "public, max-age=5"


async def test_wrong_method_lists_allowed_methods() -> None:
    response = await send_request(gateway(), "DELETE", "/things")

    assert (response.status, response.code) == (405, "request.method_not_allowed")
    assert response.headers["allow"] == "POST"


async def test_overload_has_retry_after() -> None:
    response = await send_request(gateway(), "GET", "/busy")

    assert (response.status, response.headers["retry-after"]) == (503, "7")
    assert response.json["retryable"] is True


async def failing_app(scope: Any, receive: Any, send: Any) -> None:
    raise ValueError("an internal detail")


@pytest.mark.parametrize("app", [None, failing_app], ids=["fastapi", "asgi"])
async def test_internal_error_has_id_and_no_details(app: ASGIApp | None) -> None:
    response = await send_request(
        gateway(app), "GET", "/fault", headers=[("x-request-id", "client-request-id")]
    )

    assert (response.status, response.code) == (500, "system.internal")
    assert response.json["details"] == {"error_id": "client-request-id"}
    for word in (b"internal detail", b"Error(", b"Traceback", b"ZeroDivision"):
        assert word not in response.body


async def test_error_after_response_start_is_not_sent() -> None:
    async def fail_after_start(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        raise ValueError

    response = await send_request(gateway(fail_after_start), "GET", "/")

    assert response.status == 200
    assert "x-request-id" in response.headers


async def test_client_disconnect_is_no_error() -> None:
    async def disconnect() -> Message:
        return {"type": "http.disconnect"}

    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/things",
        "headers": [],
        "query_string": b"",
    }
    await gateway()(scope, disconnect, send)

    assert sent[0]["status"] == 400


async def test_metrics_use_route_template() -> None:
    def count_requests(method: str, route: str, status: str) -> float:
        labels = {"method": method, "route": route, "status": status}
        return REGISTRY.get_sample_value("markethall_http_requests_total", labels) or 0

    things = count_requests("GET", "/things/{name}", "200")
    deep = count_requests("GET", "/very/deep/{number}", "200")
    unmatched = count_requests("GET", "unmatched", "404")
    other = count_requests("other", "unmatched", "405") + count_requests(
        "other", "unmatched", "404"
    )
    for number in range(3):
        await send_request(gateway(), "GET", f"/things/{number}")
        await send_request(gateway(), "GET", f"/very/deep/{number}")
        await send_request(gateway(), "GET", f"/nowhere/{number}")
        await send_request(gateway(), f"MAKEUP{number}", "/nowhere")

    assert count_requests("GET", "/things/{name}", "200") == things + 3
    assert count_requests("GET", "/very/deep/{number}", "200") == deep + 3
    assert count_requests("GET", "unmatched", "404") == unmatched + 3
    assert (
        count_requests("other", "unmatched", "405") + count_requests("other", "unmatched", "404")
        == other + 3
    )


async def test_non_http_scope_is_passed_through() -> None:
    scope_types: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope_types.append(scope["type"])

    async def do_nothing(*_: Any) -> Any:
        return None

    await gateway(app)({"type": "lifespan"}, do_nothing, do_nothing)

    assert scope_types == ["lifespan"]


async def test_searches_are_limited_more_than_other_reads() -> None:
    app = gateway(limits="on", work_kinds=WorkKinds({"/things/a": frozenset({"facets"})}))

    searches = [
        await send_request(app, "GET", "/things/a", query=b"facets=tag")
        for _ in range(SEARCHES.quota + 1)
    ]
    read = await send_request(app, "GET", "/things/a")

    assert [response.status for response in searches] == [200] * SEARCHES.quota + [429]
    assert searches[-1].json["details"]["policy"] == "searches"
    assert read.status == 200
