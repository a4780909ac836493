"""The wire: what the neighbour said is what the caller hears, and silence has an end."""

import gzip
import json
from datetime import timedelta
from typing import Any

import httpx2
import pytest
from structlog.testing import capture_logs

from markethall.shared.kernel.errors import (
    DomainError,
    InternalError,
    MalformedRequest,
    Overloaded,
    TooManyRequests,
    Unavailable,
)
from tests.rpc.probe_contract import (
    CALL,
    PERSON,
    SIGNER,
    TRACE,
    ProbeResult,
    ProbeService,
    calling,
    hello,
    over,
    over_tcp,
    refusal_of,
    serving_half,
)
from tests.rpc.tcp import bare, listening, saying
from tests.rpc_loopback import now

JSON = "content-type: application/json"
PROBLEM = "content-type: application/problem+json"


def problem(code: str, status: int, **details: Any) -> bytes:
    body = {"code": code, "status": status, "detail": "No.", "details": details}
    return json.dumps(body).encode()


# What travels


async def test_call_round_trips() -> None:
    greeter = ProbeService()
    command = hello("Ada", "日本", mood="😀")

    async with over_tcp(greeter) as remote:
        answer = await remote.greet(CALL, command)

    (ctx, heard), *others = greeter.calls
    assert (heard, others) == (command, [])
    assert (ctx.actor, ctx.request_id, ctx.traceparent) == (PERSON, CALL.request_id, TRACE)
    assert answer == ProbeResult(greet_id=command.greet_id, words="hello Ada, hello 日本")


async def test_call_without_result_returns_none() -> None:
    greeter = ProbeService()

    async with over_tcp(greeter) as remote:
        await remote.wave(CALL, hello())

    assert len(greeter.calls) == 1


@pytest.mark.parametrize(("seconds", "most"), [(5.5, 5500), (60, 20_000), (None, 20_000)])
async def test_remaining_time_is_sent(seconds: float | None, most: int) -> None:
    deadline = now() + timedelta(seconds=seconds) if seconds else None
    given = []

    def handler(request: httpx2.Request) -> httpx2.Response:
        given.append(int(request.headers["x-deadline-ms"]))
        return httpx2.Response(204)

    await over(handler).wave(CALL.model_copy(update={"deadline": deadline}), hello())

    assert most - 5000 < given[0] <= most


async def test_server_receives_deadline() -> None:
    greeter, before = ProbeService(), now()
    ctx = CALL.model_copy(update={"deadline": before + timedelta(seconds=9)})

    async with over_tcp(greeter) as remote:
        await remote.wave(ctx, hello())

    deadline = greeter.calls[0][0].deadline
    assert deadline is not None
    assert before < deadline <= now() + timedelta(seconds=9)


async def test_default_fields_are_not_sent() -> None:
    bodies = []

    def handler(request: httpx2.Request) -> httpx2.Response:
        bodies.append(json.loads(request.content))
        return httpx2.Response(204)

    command = hello("Ada")
    await over(handler).wave(CALL, command)

    assert bodies == [{"greet_id": str(command.greet_id), "guests": [{"name": "Ada"}]}]


async def test_unknown_response_fields_are_ignored() -> None:
    command = hello()
    said = {"greet_id": str(command.greet_id), "words": "hi", "new": {"deep": [1]}}

    answer = await over(lambda _: httpx2.Response(200, json=said)).greet(CALL, command)

    assert answer == ProbeResult(greet_id=command.greet_id, words="hi")


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"new": 1}, "/new"),
        ({"guests": [{"name": "Ada"}, {"name": "Bob", "new": None}]}, "/guests/1/new"),
    ],
)
async def test_unknown_request_fields_are_rejected(change: dict[str, Any], where: str) -> None:
    greeter = ProbeService()
    body = hello("Ada").model_dump(mode="json") | change
    token = SIGNER.sign("orders", "greeter", "greet", PERSON)

    async with listening(serving_half(greeter)) as url, httpx2.AsyncClient() as http:
        headers = {"authorization": f"Bearer {token}"}
        answer = await http.post(f"{url}/internal/greeter/greet", json=body, headers=headers)

    assert answer.status_code == 422
    assert [error["field"] for error in answer.json()["errors"]] == [where]
    assert greeter.calls == []


# What the neighbour refuses

JUNK = {
    "no JSON": saying("200 OK", b"{", JSON),
    "another DTO": saying("200 OK", b'{"greet_id": 5}', JSON),
    "a list": saying("200 OK", b"[]", JSON),
    "nothing": saying("204 No Content", b""),
    "no UTF-8": saying("200 OK", b"\xff\xfe", JSON),
    "no gzip": saying("200 OK", gzip.compress(b"{}")[5:], JSON, "content-encoding: gzip"),
    "a redirect": saying("302 Found", b"", "location: http://127.0.0.1:9/"),
    "an unknown code": saying("409 Conflict", problem("greeter.unheard_of", 409), PROBLEM),
    "a page": saying("404 Not Found", b"<html>", "content-type: text/html"),
    "no document": saying("500 Internal Server Error", b"Internal Server Error"),
    "half a document": saying("409 Conflict", b'{"code": "request.invalid"}', PROBLEM),
    "a code of no text": saying("409 Conflict", b'{"code": []}', PROBLEM),
    "a list of problems": saying("409 Conflict", b"[1]", PROBLEM),
    "a document without end": saying("409 Conflict", b"[" * 100_000, PROBLEM),
    "details of no object": saying(
        "409 Conflict", b'{"code": "request.invalid", "detail": "", "details": [1]}', PROBLEM
    ),
}


@pytest.mark.parametrize("junk", JUNK)
async def test_unreadable_response_is_internal_error_with_request_id(junk: str) -> None:
    async with bare(JUNK[junk]) as told, calling(told.url) as remote:
        refusal = await refusal_of(remote.greet(CALL, hello()))

    assert type(refusal) is InternalError
    assert refusal.details == {"error_id": CALL.request_id}
    assert len(told.asked) == 1


async def test_remote_error_has_request_id() -> None:
    greeter = ProbeService()

    async def fail() -> None:
        raise RuntimeError("a secret")

    greeter.meanwhile = fail
    with capture_logs() as lines:
        async with over_tcp(greeter) as remote:
            refusal = await refusal_of(remote.greet(CALL, hello()))

    assert type(refusal) is InternalError
    assert (refusal.details, refusal.detail) == ({"error_id": CALL.request_id}, "Internal error.")
    assert [line["request_id"] for line in lines if line.get("exc_info")] == [CALL.request_id]
    assert len(greeter.calls) == 1


@pytest.mark.parametrize(
    ("code", "status"), [("auth.unauthenticated", 401), ("request.not_found", 404)]
)
async def test_rejected_service_token_is_unavailable(code: str, status: int) -> None:
    """A method that an older release does not have, keys that are being changed."""
    answer = httpx2.Response(status, content=problem(code, status))

    refusal = await refusal_of(over(lambda _: answer).greet(CALL, hello()))

    assert type(refusal) is Unavailable
    assert (refusal.details, refusal.retry_after) == ({"dependency": "greeter"}, 1)


async def test_temporary_rejection_is_retried_then_raised() -> None:
    asked = []

    def handler(request: httpx2.Request) -> httpx2.Response:
        asked.append(request)
        return httpx2.Response(503, content=problem("system.busy", 503, retry_after=7))

    refusal = await refusal_of(over(handler).greet(CALL, hello()))

    assert type(refusal) is Overloaded
    assert (refusal.detail, refusal.details, refusal.retry_after) == ("No.", {"retry_after": 7}, 7)
    assert len(asked) == 3


@pytest.mark.parametrize("status", [502, 503, 504])
async def test_gateway_error_is_unavailable(status: int) -> None:
    refusal = await refusal_of(
        over(lambda _: httpx2.Response(status, html="<h1>")).greet(CALL, hello())
    )

    assert type(refusal) is Unavailable
    assert refusal.details == {"dependency": "greeter"}


@pytest.mark.parametrize("kind", [MalformedRequest, TooManyRequests])
async def test_domain_error_is_not_retried(kind: type[DomainError]) -> None:
    asked = []

    def handler(request: httpx2.Request) -> httpx2.Response:
        asked.append(request)
        return httpx2.Response(kind.status, content=problem(kind.code, kind.status))

    assert type(await refusal_of(over(handler).greet(CALL, hello()))) is kind
    assert len(asked) == 1
