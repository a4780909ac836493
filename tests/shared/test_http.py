"""Idempotent routes, conditional requests and problem details."""

import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from hypothesis import given
from hypothesis import strategies as st
from starlette.exceptions import HTTPException

from markethall.shared.composition.context_persistence import ContextPersistence
from markethall.shared.composition.memory import MemoryDatabase, build_memory_persistence
from markethall.shared.http.conditional_requests import (
    apply_if_none_match,
    etag_matches,
    if_match,
    if_match_optional,
)
from markethall.shared.http.dependencies import FromContext
from markethall.shared.http.idempotent_routes import (
    IdempotencyRunner,
    created_response,
)
from markethall.shared.http.problem_details import (
    http_exception_handler,
    problem_handler,
    problem_response,
    problems,
    validation_handler,
)
from markethall.shared.http.responses import json_response
from markethall.shared.http.route_policies import public, require_scope
from markethall.shared.idempotency.records import IdempotentCommand
from markethall.shared.idempotency.service import IdempotencyService
from markethall.shared.kernel.call_context import Actor, CallContext
from markethall.shared.kernel.errors import (
    DomainError,
    Forbidden,
    MalformedRequest,
    Overloaded,
    PreconditionFailed,
    Unavailable,
)
from markethall.shared.kernel.etags import ExpectedVersions, check_expected_version, etag
from markethall.shared.kernel.ids import new_id
from markethall.shared.kernel.model import Id, Int, RequestModel, Text
from markethall.shared.kernel.scopes import ORDERS
from tests.shared.conftest import FakeClock, ProbeMemoryStore, ProbeTables, Something
from tests.shared.test_gateway import JSON, HttpResponse, gateway, send_request

USER = Actor(user_id=new_id(), scopes=frozenset({ORDERS}))


class Line(RequestModel):
    thing_id: Id
    quantity: Annotated[Int, Query(ge=1, le=999)] = 1


class ThingBody(RequestModel):
    name: Annotated[Text, Query(max_length=20)]
    lines: tuple[Line, ...] = ()


class ProbeApp:
    """An application with idempotent, conditional and failing routes, and memory storage."""

    def __init__(self, clock: FakeClock) -> None:
        self.backend: ContextPersistence[MemoryDatabase[ProbeTables, ProbeMemoryStore]] = (
            build_memory_persistence(ProbeTables(), ProbeMemoryStore, clock)
        )
        self.service = IdempotencyService(
            self.backend.idempotency_store, clock, timedelta(seconds=15)
        )
        self.error: Exception | None = None
        self.executions = 0
        self.app = self._app()
        self.app.state.contexts = {"probe": self}

    async def create(self, attempt: IdempotentCommand, name: str) -> Something:
        async with self.backend.database.transaction() as store:
            self.executions += 1
            thing = Something(thing_id=attempt.id, name=name)
            await store.add(str(new_id()))
            if self.error:
                raise self.error
            await store.store_response(attempt, thing)
        return thing

    def _app(self) -> FastAPI:
        handlers: Any = {
            DomainError: problem_handler,
            RequestValidationError: validation_handler,
            HTTPException: http_exception_handler,
        }
        app = FastAPI(exception_handlers=handlers)
        from_probe: FromContext[Any] = FromContext("probe")
        service_type = Annotated[
            IdempotencyService, Depends(from_probe(lambda container: container.service))
        ]

        @app.post("/things")
        async def create_thing(
            request: Request,
            ctx: Annotated[CallContext, public()],
            body: ThingBody,
            service: service_type,
        ) -> Response:
            return await IdempotencyRunner(request, service).run(
                ctx,
                body,
                lambda attempt: self.create(attempt, body.name),
                created_response(lambda dto: f"/things/{dto.thing_id}"),
            )

        @app.post("/payments")
        async def pay(
            request: Request, ctx: Annotated[CallContext, public()], service: service_type
        ) -> Response:
            return await IdempotencyRunner(request, service).run_with_key(
                ctx, None, lambda attempt: self.create(attempt, "paid")
            )

        @app.patch("/things/1")
        async def change_thing(
            expected_versions: Annotated[ExpectedVersions, Depends(if_match)],
        ) -> Any:
            return expected_versions and sorted(expected_versions)

        @app.delete("/things/1")
        async def delete_thing(
            expected_versions: Annotated[ExpectedVersions, Depends(if_match_optional)],
        ) -> Any:
            return expected_versions and sorted(expected_versions)

        @app.get("/things")
        async def list_things(
            limit: Annotated[int, Query(ge=1, le=100)] = 20, owner: Id | None = None
        ) -> int:
            return limit

        @app.get("/mine")
        async def get_own(ctx: Annotated[CallContext, require_scope(ORDERS)]) -> str:
            return str(ctx.user_id)

        @app.get("/failing")
        async def fail() -> None:
            assert self.error
            raise self.error

        return app

    async def send_request(
        self, method: str, path: str, body: object = None, /, **options: Any
    ) -> HttpResponse:
        content = b"" if body is None else json.dumps(body).encode()
        headers = [JSON, *options.pop("headers", ())]
        return await send_request(
            gateway(self.app), method, path, content, headers=headers, **options
        )

    async def create_thing(self, key: str | None, name: str = "a") -> HttpResponse:
        headers = [] if key is None else [("idempotency-key", key)]
        return await self.send_request("POST", "/things", {"name": name}, headers=headers)


@pytest.fixture
def probe_app(clock: FakeClock) -> ProbeApp:
    return ProbeApp(clock)


# Idempotency keys


async def test_request_without_key_always_runs(probe_app: ProbeApp) -> None:
    first, second = await probe_app.create_thing(None), await probe_app.create_thing(None)

    assert (first.status, second.status) == (201, 201)
    assert first.body != second.body
    assert probe_app.executions == 2


async def test_retry_with_key_replays_response(probe_app: ProbeApp) -> None:
    first, second = await probe_app.create_thing("key-1"), await probe_app.create_thing("key-1")

    assert (first.status, first.body) == (second.status, second.body)
    assert first.headers["location"] == f"/things/{first.json['thing_id']}"
    assert second.headers["location"] == first.headers["location"]
    assert "idempotency-replayed" not in first.headers
    assert second.headers["idempotency-replayed"] == "true"
    assert probe_app.executions == 1


async def test_quoted_key_equals_bare_key(probe_app: ProbeApp) -> None:
    first, second = await probe_app.create_thing("key-1"), await probe_app.create_thing('"key-1"')

    assert first.body == second.body
    assert probe_app.executions == 1


@pytest.mark.parametrize("key", ["x", "x" * 255, '"' + "x" * 255 + '"', "!#$%&'()*+,-./:;<=>?@[]^"])
async def test_key_may_be_any_visible_ascii(probe_app: ProbeApp, key: str) -> None:
    assert (await probe_app.create_thing(key)).status == 201


@pytest.mark.parametrize(
    "key",
    ["", '""', "x" * 256, '"' + "x" * 256 + '"', "two words", "tab\tbed", "ñ", "\xff", '"open',
     'open"', 'a"b', '"a"b"', '"a", "b"', "a\nb", "\x7f", "\x00"],
)  # fmt: skip
async def test_invalid_key_is_rejected(probe_app: ProbeApp, key: str) -> None:
    response = await probe_app.create_thing(key)

    assert (response.status, response.code) == (400, "idempotency.key_invalid")
    assert probe_app.executions == 0


async def test_missing_required_key_is_rejected(probe_app: ProbeApp) -> None:
    without = await probe_app.send_request("POST", "/payments")
    with_one = await probe_app.send_request("POST", "/payments", headers=[("idempotency-key", "k")])

    assert (without.status, without.code) == (400, "idempotency.key_missing")
    assert with_one.status == 200
    assert probe_app.executions == 1


async def test_key_with_another_payload_is_rejected(probe_app: ProbeApp) -> None:
    await probe_app.create_thing("key-1", name="a")

    response = await probe_app.create_thing("key-1", name="b")

    assert (response.status, response.code) == (422, "idempotency.payload_mismatch")
    assert probe_app.executions == 1


async def test_error_response_is_replayed(probe_app: ProbeApp) -> None:
    probe_app.error = Forbidden("Not this one.", scope="things:write")
    first = await probe_app.create_thing("key-1")
    probe_app.error = None

    second = await probe_app.create_thing("key-1")

    assert (first.status, second.status) == (403, 403)
    same = ("type", "title", "detail", "code", "details", "instance")
    assert [first.json[name] for name in same] == [second.json[name] for name in same]
    assert first.json["request_id"] != second.json["request_id"]
    assert "idempotency-replayed" not in first.headers
    assert second.headers["idempotency-replayed"] == "true"
    assert probe_app.executions == 1


async def test_retryable_error_is_not_stored(probe_app: ProbeApp) -> None:
    probe_app.error = Unavailable(dependency="postgres")
    first = await probe_app.create_thing("key-1")
    probe_app.error = None

    second = await probe_app.create_thing("key-1")

    assert (first.status, second.status) == (503, 201)
    assert first.headers["retry-after"] == "1"


async def test_invalid_body_does_not_consume_key(probe_app: ProbeApp) -> None:
    invalid = await probe_app.send_request(
        "POST", "/things", {}, headers=[("idempotency-key", "key-1")]
    )

    valid = await probe_app.create_thing("key-1")

    assert (invalid.status, valid.status) == (422, 201)


# Conditional requests


def test_etag_contains_version() -> None:
    assert etag(7) == '"v7"'
    assert etag(7, "0123456789ab") == '"v7-0123456789ab"'


@pytest.mark.parametrize(
    ("header", "versions"),
    [('"v7"', [7]), ('"v7-0123456789ab"', [7]), (' "v0" ', [0]), ('"v999999999"', [999999999]),
     ('"v7", "v8"', [7, 8]), ('"v7","v7"', [7]), (',"v7" ,\t, "v8",', [7, 8]),
     ('W/"v6", "v7"', [7]), ('"other", "v7"', [7]), ('"a,b", "\xe9", "", "v7"', [7]),
     ("*", None), (" * ", None)],
)  # fmt: skip
async def test_if_match_gives_expected_versions(
    probe_app: ProbeApp, header: str, versions: list[int] | None
) -> None:
    response = await probe_app.send_request("PATCH", "/things/1", headers=[("if-match", header)])

    assert (response.status, response.json) == (200, versions)


async def test_several_if_match_headers_are_one_list(probe_app: ProbeApp) -> None:
    lines = [("if-match", '"v7"'), ("if-match", '"v8"')]

    response = await probe_app.send_request("PATCH", "/things/1", headers=lines)

    assert (response.status, response.json) == (200, [7, 8])


@pytest.mark.parametrize(
    "header",
    ["", ",,", "7", "v7", '"7"', 'W/"v7"', 'w/"v7"', 'W/ "v7"', '"v7', '"v-7"', '"v07"', '"v"',
     '"v1e3"', '"v9999999999"', '"v' + "9" * 5000 + '"', '"v\xb2"', '"v7-xyz"', "\xff",
     '"v7" "v8"', '"v7""v8"', '"v7", v8', '"v7", "v8', '*, "v7"', '"v7", *', "**", '"v7";',
     'W/"v7", W/"v8"', '"v7 "', " " * 20_000 + "!", '"v7"' + " ," * 10_000 + "!"],
)  # fmt: skip
async def test_unknown_if_match_tag_fails_precondition(probe_app: ProbeApp, header: str) -> None:
    response = await probe_app.send_request("PATCH", "/things/1", headers=[("if-match", header)])

    assert (response.status, response.code) == (412, "request.if_match_failed")


async def test_if_match_is_required_where_declared(probe_app: ProbeApp) -> None:
    required = await probe_app.send_request("PATCH", "/things/1")
    optional = await probe_app.send_request("DELETE", "/things/1")
    conditional = await probe_app.send_request(
        "DELETE", "/things/1", headers=[("if-match", '"v3"')]
    )

    assert (required.status, required.code) == (428, "request.if_match_missing")
    assert (optional.status, optional.json) == (200, None)
    assert conditional.json == [3]


def test_change_accepts_current_version_or_star() -> None:
    check_expected_version({6, 7, 8}, 7)
    check_expected_version(None, 7)
    with pytest.raises(PreconditionFailed) as raised:
        check_expected_version({6, 8}, 7)

    assert raised.value.details == {"etag": '"v7"'}


@pytest.mark.parametrize(
    ("header", "same"),
    [('"v7"', True), ('W/"v7"', True), ("*", True), (" * ", True), ('"v6", "v7"', True),
     ('"v6" ,W/"v7"', True), ('"v6"', False), ("", False), ("v7", False), ('"v7', False),
     (",,,", False)],
)  # fmt: skip
def test_if_none_match_uses_weak_comparison(header: str, same: bool) -> None:
    assert etag_matches(header, '"v7"') is same


def test_matching_etag_returns_304() -> None:
    retained = {"etag": '"v7"', "cache-control": "public, max-age=5", "vary": "accept"}
    response = Response(b"long", headers={**retained, "x-other": "1"})

    same = apply_if_none_match(request_with({"if-none-match": '"v7"'}), response)
    changed = apply_if_none_match(request_with({"if-none-match": '"v6"'}), response)
    unconditional = apply_if_none_match(request_with({}), response)
    untagged = apply_if_none_match(request_with({"if-none-match": "*"}), Response(b"x"))

    assert (same.status_code, same.body, dict(same.headers)) == (304, b"", retained)
    assert changed is response
    assert unconditional is response
    assert untagged.status_code == 200


# Problem details


async def test_problem_has_all_members(probe_app: ProbeApp) -> None:
    probe_app.error = PreconditionFailed("It has changed.", etag='"v8"')

    response = await probe_app.send_request(
        "GET", "/failing", headers=[("x-request-id", "client-request-id")]
    )

    assert response.json == {
        "type": "urn:markethall:problem:request.if_match_failed",
        "title": "The resource has changed since it was read",
        "status": 412,
        "detail": "It has changed.",
        "instance": "/failing",
        "code": "request.if_match_failed",
        "request_id": "client-request-id",
        "retryable": False,
        "details": {"etag": '"v8"'},
    }


async def test_www_authenticate_names_error_of_rejected_token(probe_app: ProbeApp) -> None:
    anonymous = await probe_app.send_request("GET", "/mine")
    rejected = await probe_app.send_request(
        "GET", "/mine", headers=[("authorization", "Bearer bad")]
    )
    forbidden = await probe_app.send_request(
        "GET", "/mine", headers=[("authorization", "Bearer good")]
    )

    assert (anonymous.status, anonymous.headers["www-authenticate"]) == (401, "Bearer")
    assert (rejected.status, rejected.headers["www-authenticate"]) == (
        401,
        'Bearer error="invalid_token"',
    )
    assert (forbidden.status, forbidden.json["details"]) == (403, {"scope": ORDERS})


@pytest.mark.parametrize(
    ("error", "seconds"),
    [(Overloaded(), "1"), (Overloaded(retry_after=9), "9"), (MalformedRequest(), None)],
)
async def test_retryable_errors_have_retry_after(
    probe_app: ProbeApp, error: DomainError, seconds: str | None
) -> None:
    probe_app.error = error

    response = await probe_app.send_request("GET", "/failing")

    assert response.headers.get("retry-after") == seconds


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "/name"),
        ({"name": 5}, "/name"),
        ({"name": "a", "lines": [{"thing_id": "x"}]}, "/lines/0/thing_id"),
        ({"name": "a", "lines": [{"thing_id": str(new_id()), "quantity": 0}]}, "/lines/0/quantity"),
        ({"name": "a", "a/b~c": 1}, "/a~1b~0c"),
        ({"name": "a", "": 1}, "/"),
        ({"name": "a", "ñ😀": 1}, "/ñ😀"),
        ({"name": "a", "x" * 150: 1}, "/" + "x" * 100),
        ({"name": "a", "\r\nset-cookie: x": 1}, "/\r\nset-cookie: x"),
        ({"name": "a", "<script>": 1}, "/<script>"),
        ("text", ""),
        ([], ""),
    ],
)
async def test_validation_error_points_to_field(
    probe_app: ProbeApp, body: object, field: str
) -> None:
    response = await probe_app.send_request("POST", "/things", body)

    assert (response.status, response.code) == (422, "request.invalid")
    assert field in [error["field"] for error in response.json["errors"]]
    for error in response.json["errors"]:
        assert set(error) == {"field", "code", "message"}


async def test_query_validation_error_points_to_field(probe_app: ProbeApp) -> None:
    for query, field in ((b"limit=0", "/query/limit"), (b"owner=5", "/query/owner")):
        response = await probe_app.send_request("GET", "/things", query=query)

        assert (response.status, [error["field"] for error in response.json["errors"]]) == (
            422,
            [field],
        )


async def test_validation_errors_are_limited(probe_app: ProbeApp) -> None:
    unknown = {f"x{number}": 1 for number in range(51)}
    body = {"name": "a"}

    many = await probe_app.send_request("POST", "/things", body | unknown)
    unknown.popitem()
    most = await probe_app.send_request("POST", "/things", body | unknown)

    assert [error["code"] for error in many.json["errors"]] == ["too_many_errors"]
    assert {error["code"] for error in most.json["errors"]} == {"extra_forbidden"}
    assert len(most.json["errors"]) == 50


async def test_rejected_value_is_not_echoed(probe_app: ProbeApp) -> None:
    response = await probe_app.send_request(
        "POST", "/things", {"name": "correct horse battery staple"}
    )

    assert response.status == 422
    assert b"horse" not in response.body


@given(st.dictionaries(st.text(), st.none() | st.text() | st.integers() | st.booleans()))
def test_problem_details_are_always_json(details: dict[str, Any]) -> None:
    error = MalformedRequest(**{f"detail_{name}": value for name, value in details.items()})

    body = problem_response({"path": "/\ud800", "state": {"request_id": "r"}}, error).body

    assert json.loads(bytes(body))["code"] == "request.malformed"


def test_documentation_lists_every_error_code() -> None:
    documented = problems(MalformedRequest, Overloaded, Unavailable)

    assert sorted(documented) == [400, 503]
    examples = documented[503]["content"]["application/problem+json"]["examples"]
    assert set(examples) == {"system.busy", "system.unavailable"}
    assert examples["system.busy"]["value"]["status"] == 503


def test_dto_is_serialised_once() -> None:
    dto = Something(thing_id=new_id(), name="ñ")

    response = json_response(dto, status=202, headers={"etag": '"v1"'})

    assert json.loads(bytes(response.body)) == json.loads(dto.model_dump_json())
    assert (response.status_code, response.headers["etag"]) == (202, '"v1"')
    assert response.headers["content-type"] == "application/json"


def request_with(headers: Mapping[str, str]) -> Request:
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "headers": raw})
