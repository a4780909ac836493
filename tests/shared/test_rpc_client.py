"""The RPC client: arguments, results and errors over HTTP."""

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
    CTX,
    SIGNER,
    TRACE,
    USER,
    ProbeResult,
    ProbeService,
    client_with_handler,
    error_of,
    greet_command,
    open_client,
    open_client_over_tcp,
    probe_server,
)
from tests.rpc.tcp import fixed_response, raw_server, serve_app
from tests.rpc_loopback import now

JSON = "content-type: application/json"
PROBLEM = "content-type: application/problem+json"


def problem(code: str, status: int, **details: Any) -> bytes:
    body = {"code": code, "status": status, "detail": "No.", "details": details}
    return json.dumps(body).encode()


# Arguments and results


async def test_call_round_trips() -> None:
    service = ProbeService()
    command = greet_command("Ada", "日本", mood="😀")

    async with open_client_over_tcp(service) as remote:
        response = await remote.greet(CTX, command)

    (ctx, received), *others = service.calls
    assert (received, others) == (command, [])
    assert (ctx.actor, ctx.request_id, ctx.traceparent) == (USER, CTX.request_id, TRACE)
    assert response == ProbeResult(greet_id=command.greet_id, text="hello Ada, hello 日本")


async def test_call_without_result_returns_none() -> None:
    service = ProbeService()

    async with open_client_over_tcp(service) as remote:
        await remote.wave(CTX, greet_command())

    assert len(service.calls) == 1


@pytest.mark.parametrize(("seconds", "expected"), [(5.5, 5500), (60, 20_000), (None, 20_000)])
async def test_remaining_time_is_sent(seconds: float | None, expected: int) -> None:
    deadline = now() + timedelta(seconds=seconds) if seconds else None
    sent = []

    def handler(request: httpx2.Request) -> httpx2.Response:
        sent.append(int(request.headers["x-deadline-ms"]))
        return httpx2.Response(204)

    await client_with_handler(handler).wave(
        CTX.model_copy(update={"deadline": deadline}), greet_command()
    )

    assert expected - 5000 < sent[0] <= expected


async def test_server_receives_deadline() -> None:
    service, started_at = ProbeService(), now()
    ctx = CTX.model_copy(update={"deadline": started_at + timedelta(seconds=9)})

    async with open_client_over_tcp(service) as remote:
        await remote.wave(ctx, greet_command())

    deadline = service.calls[0][0].deadline
    assert deadline is not None
    assert started_at < deadline <= now() + timedelta(seconds=9)


async def test_default_fields_are_not_sent() -> None:
    bodies = []

    def handler(request: httpx2.Request) -> httpx2.Response:
        bodies.append(json.loads(request.content))
        return httpx2.Response(204)

    command = greet_command("Ada")
    await client_with_handler(handler).wave(CTX, command)

    assert bodies == [{"greet_id": str(command.greet_id), "guests": [{"name": "Ada"}]}]


async def test_unknown_response_fields_are_ignored() -> None:
    command = greet_command()
    body = {"greet_id": str(command.greet_id), "text": "hi", "new": {"deep": [1]}}

    response = await client_with_handler(lambda _: httpx2.Response(200, json=body)).greet(
        CTX, command
    )

    assert response == ProbeResult(greet_id=command.greet_id, text="hi")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"new": 1}, "/new"),
        ({"guests": [{"name": "Ada"}, {"name": "Bob", "new": None}]}, "/guests/1/new"),
    ],
)
async def test_unknown_request_fields_are_rejected(change: dict[str, Any], field: str) -> None:
    service = ProbeService()
    body = greet_command("Ada").model_dump(mode="json") | change
    token = SIGNER.sign("orders", "probe", "greet", USER)

    async with serve_app(probe_server(service)) as url, httpx2.AsyncClient() as http:
        headers = {"authorization": f"Bearer {token}"}
        response = await http.post(f"{url}/internal/probe/greet", json=body, headers=headers)

    assert response.status_code == 422
    assert [error["field"] for error in response.json()["errors"]] == [field]
    assert service.calls == []


# Errors and bad responses

BAD_RESPONSES = {
    "no JSON": fixed_response("200 OK", b"{", JSON),
    "another DTO": fixed_response("200 OK", b'{"greet_id": 5}', JSON),
    "a list": fixed_response("200 OK", b"[]", JSON),
    "nothing": fixed_response("204 No Content", b""),
    "no UTF-8": fixed_response("200 OK", b"\xff\xfe", JSON),
    "no gzip": fixed_response("200 OK", gzip.compress(b"{}")[5:], JSON, "content-encoding: gzip"),
    "a redirect": fixed_response("302 Found", b"", "location: http://127.0.0.1:9/"),
    "an unknown code": fixed_response("409 Conflict", problem("probe.unheard_of", 409), PROBLEM),
    "a page": fixed_response("404 Not Found", b"<html>", "content-type: text/html"),
    "no document": fixed_response("500 Internal Server Error", b"Internal Server Error"),
    "half a document": fixed_response("409 Conflict", b'{"code": "request.invalid"}', PROBLEM),
    "a code of no text": fixed_response("409 Conflict", b'{"code": []}', PROBLEM),
    "a list of problems": fixed_response("409 Conflict", b"[1]", PROBLEM),
    "a document without end": fixed_response("409 Conflict", b"[" * 100_000, PROBLEM),
    "details of no object": fixed_response(
        "409 Conflict", b'{"code": "request.invalid", "detail": "", "details": [1]}', PROBLEM
    ),
}


@pytest.mark.parametrize("name", BAD_RESPONSES)
async def test_unreadable_response_is_internal_error_with_request_id(name: str) -> None:
    async with raw_server(BAD_RESPONSES[name]) as recorded, open_client(recorded.url) as remote:
        error = await error_of(remote.greet(CTX, greet_command()))

    assert type(error) is InternalError
    assert error.details == {"error_id": CTX.request_id}
    assert len(recorded.requests) == 1


async def test_remote_error_has_request_id() -> None:
    service = ProbeService()

    async def fail() -> None:
        raise RuntimeError("a secret")

    service.before_response = fail
    with capture_logs() as lines:
        async with open_client_over_tcp(service) as remote:
            error = await error_of(remote.greet(CTX, greet_command()))

    assert type(error) is InternalError
    assert (error.details, error.detail) == ({"error_id": CTX.request_id}, "Internal error.")
    assert [line["request_id"] for line in lines if line.get("exc_info")] == [CTX.request_id]
    assert len(service.calls) == 1


@pytest.mark.parametrize(
    ("code", "status"), [("auth.unauthenticated", 401), ("request.not_found", 404)]
)
async def test_rejected_service_token_is_unavailable(code: str, status: int) -> None:
    """The error is temporary: during a deployment the callee may not yet have the caller's key."""
    response = httpx2.Response(status, content=problem(code, status))

    error = await error_of(client_with_handler(lambda _: response).greet(CTX, greet_command()))

    assert type(error) is Unavailable
    assert (error.details, error.retry_after) == ({"dependency": "probe"}, 1)


async def test_temporary_rejection_is_retried_then_raised() -> None:
    requests = []

    def handler(request: httpx2.Request) -> httpx2.Response:
        requests.append(request)
        return httpx2.Response(503, content=problem("system.busy", 503, retry_after=7))

    error = await error_of(client_with_handler(handler).greet(CTX, greet_command()))

    assert type(error) is Overloaded
    assert (error.detail, error.details, error.retry_after) == ("No.", {"retry_after": 7}, 7)
    assert len(requests) == 3


@pytest.mark.parametrize("status", [502, 503, 504])
async def test_gateway_error_is_unavailable(status: int) -> None:
    error = await error_of(
        client_with_handler(lambda _: httpx2.Response(status, html="<h1>")).greet(
            CTX, greet_command()
        )
    )

    assert type(error) is Unavailable
    assert error.details == {"dependency": "probe"}


@pytest.mark.parametrize("error_type", [MalformedRequest, TooManyRequests])
async def test_domain_error_is_not_retried(error_type: type[DomainError]) -> None:
    requests = []

    def handler(request: httpx2.Request) -> httpx2.Response:
        requests.append(request)
        return httpx2.Response(
            error_type.status, content=problem(error_type.code, error_type.status)
        )

    assert (
        type(await error_of(client_with_handler(handler).greet(CTX, greet_command()))) is error_type
    )
    assert len(requests) == 1
