"""Between HTTP and the services: conditions, problems, answers kept under a key."""

import json
from collections.abc import Mapping
from datetime import timedelta
from types import SimpleNamespace
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
from markethall.shared.http.dependencies import from_container
from markethall.shared.http.idempotent_routes import (
    IDEMPOTENCY_RETENTION_EXTENDED,
    created_response,
    ok_response,
    run_idempotent,
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
from tests.shared.test_gateway import JSON, Got, ask, front

PERSON = Actor(user_id=new_id(), scopes=frozenset({ORDERS}))


class Line(RequestModel):
    thing_id: Id
    quantity: Annotated[Int, Query(ge=1, le=999)] = 1


class Wanted(RequestModel):
    name: Annotated[Text, Query(max_length=20)]
    lines: tuple[Line, ...] = ()


class Shop:
    """An application of these tests' own on the memory backend."""

    def __init__(self, clock: FakeClock) -> None:
        self.backend: ContextPersistence[MemoryDatabase[ProbeTables, ProbeMemoryStore]] = (
            build_memory_persistence(ProbeTables(), ProbeMemoryStore, clock)
        )
        self.keys = IdempotencyService(self.backend.idempotency_store, clock, timedelta(seconds=15))
        self.refusal: Exception | None = None
        self.effects = 0
        self.app = self._app()
        self.app.state.container = SimpleNamespace(keys=lambda: self.keys)

    async def effect(self, attempt: IdempotentCommand, name: str) -> Something:
        async with self.backend.database.transaction() as store:
            self.effects += 1
            made = Something(thing_id=attempt.id, name=name)
            await store.add(str(new_id()))
            if self.refusal:
                raise self.refusal
            await store.store_response(attempt, made)
        return made

    def _app(self) -> FastAPI:
        handlers: Any = {
            DomainError: problem_handler,
            RequestValidationError: validation_handler,
            HTTPException: http_exception_handler,
        }
        app = FastAPI(exception_handlers=handlers)
        keys_of = Annotated[IdempotencyService, Depends(from_container("keys"))]

        @app.post("/things")
        async def make(
            request: Request, ctx: Annotated[CallContext, public()], body: Wanted, keys: keys_of
        ) -> Response:
            return await run_idempotent(
                request, ctx, body, keys, lambda attempt: self.effect(attempt, body.name),
                created_response(lambda dto: f"/things/{dto.thing_id}"),
            )  # fmt: skip

        @app.post("/payments")
        async def pay(
            request: Request, ctx: Annotated[CallContext, public()], keys: keys_of
        ) -> Response:
            return await run_idempotent(
                request, ctx, None, keys, lambda attempt: self.effect(attempt, "paid"), ok_response,
                required=True, retention=IDEMPOTENCY_RETENTION_EXTENDED,
            )  # fmt: skip

        @app.patch("/things/1")
        async def change(expected_versions: Annotated[ExpectedVersions, Depends(if_match)]) -> Any:
            return expected_versions and sorted(expected_versions)

        @app.delete("/things/1")
        async def drop(
            expected_versions: Annotated[ExpectedVersions, Depends(if_match_optional)],
        ) -> Any:
            return expected_versions and sorted(expected_versions)

        @app.get("/things")
        async def things(
            limit: Annotated[int, Query(ge=1, le=100)] = 20, owner: Id | None = None
        ) -> int:
            return limit

        @app.get("/mine")
        async def mine(ctx: Annotated[CallContext, require_scope(ORDERS)]) -> str:
            return str(ctx.user_id)

        @app.get("/refused")
        async def refused() -> None:
            assert self.refusal
            raise self.refusal

        return app

    async def ask(self, method: str, path: str, body: object = None, /, **options: Any) -> Got:
        sent = b"" if body is None else json.dumps(body).encode()
        headers = [JSON, *options.pop("headers", ())]
        return await ask(front(self.app), method, path, sent, headers=headers, **options)

    async def make(self, key: str | None, name: str = "a") -> Got:
        headers = [] if key is None else [("idempotency-key", key)]
        return await self.ask("POST", "/things", {"name": name}, headers=headers)


@pytest.fixture
def shop(clock: FakeClock) -> Shop:
    return Shop(clock)


# Keys


async def test_request_without_key_always_runs(shop: Shop) -> None:
    first, second = await shop.make(None), await shop.make(None)

    assert (first.status, second.status) == (201, 201)
    assert first.body != second.body
    assert shop.effects == 2


async def test_retry_with_key_replays_response(shop: Shop) -> None:
    first, second = await shop.make("key-1"), await shop.make("key-1")

    assert (first.status, first.body) == (second.status, second.body)
    assert first.headers["location"] == f"/things/{first.json['thing_id']}"
    assert second.headers["location"] == first.headers["location"]
    assert "idempotency-replayed" not in first.headers
    assert second.headers["idempotency-replayed"] == "true"
    assert shop.effects == 1


async def test_quoted_key_equals_bare_key(shop: Shop) -> None:
    first, second = await shop.make("key-1"), await shop.make('"key-1"')

    assert first.body == second.body
    assert shop.effects == 1


@pytest.mark.parametrize("key", ["x", "x" * 255, '"' + "x" * 255 + '"', "!#$%&'()*+,-./:;<=>?@[]^"])
async def test_key_may_be_any_visible_ascii(shop: Shop, key: str) -> None:
    assert (await shop.make(key)).status == 201


@pytest.mark.parametrize(
    "key",
    ["", '""', "x" * 256, '"' + "x" * 256 + '"', "two words", "tab\tbed", "ñ", "\xff", '"open',
     'open"', 'a"b', '"a"b"', '"a", "b"', "a\nb", "\x7f", "\x00"],
)  # fmt: skip
async def test_invalid_key_is_rejected(shop: Shop, key: str) -> None:
    got = await shop.make(key)

    assert (got.status, got.code) == (400, "idempotency.key_invalid")
    assert shop.effects == 0


async def test_missing_required_key_is_rejected(shop: Shop) -> None:
    without = await shop.ask("POST", "/payments")
    with_one = await shop.ask("POST", "/payments", headers=[("idempotency-key", "k")])

    assert (without.status, without.code) == (400, "idempotency.key_missing")
    assert with_one.status == 200
    assert shop.effects == 1


async def test_another_payload_under_the_same_key_is_refused(shop: Shop) -> None:
    await shop.make("key-1", name="a")

    got = await shop.make("key-1", name="b")

    assert (got.status, got.code) == (422, "idempotency.payload_mismatch")
    assert shop.effects == 1


async def test_error_response_is_replayed(shop: Shop) -> None:
    shop.refusal = Forbidden("Not this one.", scope="things:write")
    first = await shop.make("key-1")
    shop.refusal = None

    second = await shop.make("key-1")

    assert (first.status, second.status) == (403, 403)
    same = ("type", "title", "detail", "code", "details", "instance")
    assert [first.json[name] for name in same] == [second.json[name] for name in same]
    assert first.json["request_id"] != second.json["request_id"]
    assert "idempotency-replayed" not in first.headers
    assert second.headers["idempotency-replayed"] == "true"
    assert shop.effects == 1


async def test_retryable_error_is_not_stored(shop: Shop) -> None:
    shop.refusal = Unavailable(dependency="postgres")
    first = await shop.make("key-1")
    shop.refusal = None

    second = await shop.make("key-1")

    assert (first.status, second.status) == (503, 201)
    assert first.headers["retry-after"] == "1"


async def test_invalid_body_does_not_consume_key(shop: Shop) -> None:
    wrong = await shop.ask("POST", "/things", {}, headers=[("idempotency-key", "key-1")])

    right = await shop.make("key-1")

    assert (wrong.status, right.status) == (422, 201)


# Conditions


def test_an_entity_tag_carries_the_version() -> None:
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
    shop: Shop, header: str, versions: list[int] | None
) -> None:
    got = await shop.ask("PATCH", "/things/1", headers=[("if-match", header)])

    assert (got.status, got.json) == (200, versions)


async def test_an_if_match_in_several_lines_is_one_list(shop: Shop) -> None:
    lines = [("if-match", '"v7"'), ("if-match", '"v8"')]

    got = await shop.ask("PATCH", "/things/1", headers=lines)

    assert (got.status, got.json) == (200, [7, 8])


@pytest.mark.parametrize(
    "header",
    ["", ",,", "7", "v7", '"7"', 'W/"v7"', 'w/"v7"', 'W/ "v7"', '"v7', '"v-7"', '"v07"', '"v"',
     '"v1e3"', '"v9999999999"', '"v' + "9" * 5000 + '"', '"v\xb2"', '"v7-xyz"', "\xff",
     '"v7" "v8"', '"v7""v8"', '"v7", v8', '"v7", "v8', '*, "v7"', '"v7", *', "**", '"v7";',
     'W/"v7", W/"v8"', '"v7 "', " " * 20_000 + "!", '"v7"' + " ," * 10_000 + "!"],
)  # fmt: skip
async def test_unknown_if_match_tag_fails_precondition(shop: Shop, header: str) -> None:
    got = await shop.ask("PATCH", "/things/1", headers=[("if-match", header)])

    assert (got.status, got.code) == (412, "request.if_match_failed")


async def test_if_match_is_required_where_declared(shop: Shop) -> None:
    required = await shop.ask("PATCH", "/things/1")
    optional = await shop.ask("DELETE", "/things/1")
    given_all_the_same = await shop.ask("DELETE", "/things/1", headers=[("if-match", '"v3"')])

    assert (required.status, required.code) == (428, "request.if_match_missing")
    assert (optional.status, optional.json) == (200, None)
    assert given_all_the_same.json == [3]


def test_change_accepts_current_version_or_star() -> None:
    check_expected_version({6, 7, 8}, 7)
    check_expected_version(None, 7)
    with pytest.raises(PreconditionFailed) as refused:
        check_expected_version({6, 8}, 7)

    assert refused.value.details == {"etag": '"v7"'}


@pytest.mark.parametrize(
    ("header", "same"),
    [('"v7"', True), ('W/"v7"', True), ("*", True), (" * ", True), ('"v6", "v7"', True),
     ('"v6" ,W/"v7"', True), ('"v6"', False), ("", False), ("v7", False), ('"v7', False),
     (",,,", False)],
)  # fmt: skip
def test_if_none_match_is_compared_as_rfc_9110_says(header: str, same: bool) -> None:
    assert etag_matches(header, '"v7"') is same


def test_matching_etag_returns_304() -> None:
    kept = {"etag": '"v7"', "cache-control": "public, max-age=5", "vary": "accept"}
    response = Response(b"long", headers={**kept, "x-other": "1"})

    same = apply_if_none_match(asking({"if-none-match": '"v7"'}), response)
    changed = apply_if_none_match(asking({"if-none-match": '"v6"'}), response)
    unasked = apply_if_none_match(asking({}), response)
    untagged = apply_if_none_match(asking({"if-none-match": "*"}), Response(b"x"))

    assert (same.status_code, same.body, dict(same.headers)) == (304, b"", kept)
    assert changed is response
    assert unasked is response
    assert untagged.status_code == 200


# Problems


async def test_a_problem_has_every_member(shop: Shop) -> None:
    shop.refusal = PreconditionFailed("It has changed.", etag='"v8"')

    got = await shop.ask("GET", "/refused", headers=[("x-request-id", "one-of-mine")])

    assert got.json == {
        "type": "urn:markethall:problem:request.if_match_failed",
        "title": "The resource has changed since it was read",
        "status": 412,
        "detail": "It has changed.",
        "instance": "/refused",
        "code": "request.if_match_failed",
        "request_id": "one-of-mine",
        "retryable": False,
        "details": {"etag": '"v8"'},
    }


async def test_www_authenticate_names_scheme_and_scope(shop: Shop) -> None:
    nobody = await shop.ask("GET", "/mine")
    bad = await shop.ask("GET", "/mine", headers=[("authorization", "Bearer bad")])
    lacking = await shop.ask("GET", "/mine", headers=[("authorization", "Bearer good")])

    assert (nobody.status, nobody.headers["www-authenticate"]) == (401, "Bearer")
    assert (bad.status, bad.headers["www-authenticate"]) == (401, 'Bearer error="invalid_token"')
    assert (lacking.status, lacking.json["details"]) == (403, {"scope": ORDERS})


@pytest.mark.parametrize(
    ("refusal", "seconds"),
    [(Overloaded(), "1"), (Overloaded(retry_after=9), "9"), (MalformedRequest(), None)],
)
async def test_retryable_errors_have_retry_after(
    shop: Shop, refusal: DomainError, seconds: str | None
) -> None:
    shop.refusal = refusal

    got = await shop.ask("GET", "/refused")

    assert got.headers.get("retry-after") == seconds


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
async def test_validation_error_points_to_field(shop: Shop, body: object, field: str) -> None:
    got = await shop.ask("POST", "/things", body)

    assert (got.status, got.code) == (422, "request.invalid")
    assert field in [error["field"] for error in got.json["errors"]]
    for error in got.json["errors"]:
        assert set(error) == {"field", "code", "message"}


async def test_query_validation_error_points_to_field(shop: Shop) -> None:
    for query, field in ((b"limit=0", "/query/limit"), (b"owner=5", "/query/owner")):
        got = await shop.ask("GET", "/things", query=query)

        assert (got.status, [error["field"] for error in got.json["errors"]]) == (422, [field])


async def test_validation_errors_are_limited(shop: Shop) -> None:
    body = {"name": "a"} | {f"x{number}": 1 for number in range(150)}

    got = await shop.ask("POST", "/things", body)

    assert len(got.json["errors"]) == 50


async def test_rejected_value_is_not_echoed(shop: Shop) -> None:
    got = await shop.ask("POST", "/things", {"name": "correct horse battery staple"})

    assert got.status == 422
    assert b"horse" not in got.body


@given(st.dictionaries(st.text(), st.none() | st.text() | st.integers() | st.booleans()))
def test_problem_details_are_always_json(details: dict[str, Any]) -> None:
    class_of_it = MalformedRequest(**{f"detail_{name}": value for name, value in details.items()})

    body = problem_response({"path": "/\ud800", "state": {"request_id": "r"}}, class_of_it).body

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


def asking(headers: Mapping[str, str]) -> Request:
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "headers": raw})
