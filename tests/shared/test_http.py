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

from markethall.shared.auth import ORDERS, allow, anyone
from markethall.shared.backend import Backend
from markethall.shared.call import Actor, Call
from markethall.shared.errors import (
    Busy,
    Forbidden,
    Malformed,
    PreconditionFailed,
    Refusal,
    Unavailable,
)
from markethall.shared.http import (
    MONEY,
    conditional,
    created,
    from_container,
    if_match,
    if_match_optional,
    matches,
    ok,
    once,
    problem,
    problems,
    ready,
    refuse,
    refuse_http,
    refuse_invalid,
)
from markethall.shared.idempotency import Attempt, Keys
from markethall.shared.ids import new_id
from markethall.shared.memory import MemoryDatabase, memory_backend
from markethall.shared.model import Body, Id, Int, Text
from markethall.shared.versions import Seen, check_seen, etag
from tests.shared.conftest import ProbeMemoryStore, ProbeTables, Something, Watch
from tests.shared.test_front import JSON, Got, ask, front

PERSON = Actor(user_id=new_id(), scopes=frozenset({ORDERS}))


class Line(Body):
    thing_id: Id
    quantity: Annotated[Int, Query(ge=1, le=999)] = 1


class Wanted(Body):
    name: Annotated[Text, Query(max_length=20)]
    lines: tuple[Line, ...] = ()


class Shop:
    """An application of these tests' own on the memory backend."""

    def __init__(self, watch: Watch) -> None:
        self.backend: Backend[MemoryDatabase[ProbeTables, ProbeMemoryStore]] = memory_backend(
            ProbeTables(), ProbeMemoryStore, watch
        )
        self.keys = Keys(self.backend.claims, watch, timedelta(seconds=15))
        self.refusal: Exception | None = None
        self.effects = 0
        self.app = self._app()
        self.app.state.container = SimpleNamespace(keys=lambda: self.keys)

    async def effect(self, attempt: Attempt, name: str) -> Something:
        async with self.backend.database.transaction() as store:
            self.effects += 1
            made = Something(thing_id=attempt.id, name=name)
            await store.add(str(new_id()))
            if self.refusal:
                raise self.refusal
            await store.finish(attempt, made)
        return made

    def _app(self) -> FastAPI:
        handlers: Any = {
            Refusal: refuse,
            RequestValidationError: refuse_invalid,
            HTTPException: refuse_http,
        }
        app = FastAPI(exception_handlers=handlers)
        keys_of = Annotated[Keys, Depends(from_container("keys"))]

        @app.post("/things")
        async def make(
            request: Request, call: Annotated[Call, anyone()], body: Wanted, keys: keys_of
        ) -> Response:
            return await once(
                request, call, body, keys, lambda attempt: self.effect(attempt, body.name),
                created(lambda dto: f"/things/{dto.thing_id}"),
            )  # fmt: skip

        @app.post("/payments")
        async def pay(request: Request, call: Annotated[Call, anyone()], keys: keys_of) -> Response:
            return await once(
                request, call, None, keys, lambda attempt: self.effect(attempt, "paid"), ok,
                required=True, kept_for=MONEY,
            )  # fmt: skip

        @app.patch("/things/1")
        async def change(seen: Annotated[Seen, Depends(if_match)]) -> Any:
            return seen and sorted(seen)

        @app.delete("/things/1")
        async def drop(seen: Annotated[Seen, Depends(if_match_optional)]) -> Any:
            return seen and sorted(seen)

        @app.get("/things")
        async def things(
            limit: Annotated[int, Query(ge=1, le=100)] = 20, owner: Id | None = None
        ) -> int:
            return limit

        @app.get("/mine")
        async def mine(call: Annotated[Call, allow(ORDERS)]) -> str:
            return str(call.user_id)

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
def shop(watch: Watch) -> Shop:
    return Shop(watch)


# Keys


async def test_without_a_key_each_request_has_its_effect(shop: Shop) -> None:
    first, second = await shop.make(None), await shop.make(None)

    assert (first.status, second.status) == (201, 201)
    assert first.body != second.body
    assert shop.effects == 2


async def test_with_a_key_a_retry_gets_the_same_answer_and_is_told_so(shop: Shop) -> None:
    first, second = await shop.make("key-1"), await shop.make("key-1")

    assert (first.status, first.body) == (second.status, second.body)
    assert first.headers["location"] == f"/things/{first.json['thing_id']}"
    assert second.headers["location"] == first.headers["location"]
    assert "idempotency-replayed" not in first.headers
    assert second.headers["idempotency-replayed"] == "true"
    assert shop.effects == 1


async def test_a_quoted_key_is_the_same_as_a_bare_one(shop: Shop) -> None:
    first, second = await shop.make("key-1"), await shop.make('"key-1"')

    assert first.body == second.body
    assert shop.effects == 1


@pytest.mark.parametrize("key", ["x", "x" * 255, '"' + "x" * 255 + '"', "!#$%&'()*+,-./:;<=>?@[]^"])
async def test_a_key_is_any_visible_ascii(shop: Shop, key: str) -> None:
    assert (await shop.make(key)).status == 201


@pytest.mark.parametrize(
    "key",
    ["", '""', "x" * 256, '"' + "x" * 256 + '"', "two words", "tab\tbed", "ñ", "\xff", '"open',
     'open"', 'a"b', '"a"b"', '"a", "b"', "a\nb", "\x7f", "\x00"],
)  # fmt: skip
async def test_any_other_key_is_refused(shop: Shop, key: str) -> None:
    got = await shop.make(key)

    assert (got.status, got.code) == (400, "idempotency.key_invalid")
    assert shop.effects == 0


async def test_where_a_key_is_required_it_is_missed(shop: Shop) -> None:
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


async def test_a_replayed_refusal_is_the_same_problem(shop: Shop) -> None:
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


async def test_a_refusal_that_will_pass_is_not_kept(shop: Shop) -> None:
    shop.refusal = Unavailable(dependency="postgres")
    first = await shop.make("key-1")
    shop.refusal = None

    second = await shop.make("key-1")

    assert (first.status, second.status) == (503, 201)
    assert first.headers["retry-after"] == "1"


async def test_a_body_that_is_not_valid_does_not_use_the_key_up(shop: Shop) -> None:
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
async def test_if_match_gives_the_versions_that_were_seen(
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
async def test_an_if_match_that_is_no_tag_of_ours_has_failed(shop: Shop, header: str) -> None:
    got = await shop.ask("PATCH", "/things/1", headers=[("if-match", header)])

    assert (got.status, got.code) == (412, "request.if_match_failed")


async def test_if_match_is_missed_where_it_is_required_and_not_where_it_is_not(shop: Shop) -> None:
    required = await shop.ask("PATCH", "/things/1")
    optional = await shop.ask("DELETE", "/things/1")
    given_all_the_same = await shop.ask("DELETE", "/things/1", headers=[("if-match", '"v3"')])

    assert (required.status, required.code) == (428, "request.if_match_missing")
    assert (optional.status, optional.json) == (200, None)
    assert given_all_the_same.json == [3]


def test_a_change_is_good_for_who_has_seen_the_version_or_takes_any() -> None:
    check_seen({6, 7, 8}, 7)
    check_seen(None, 7)
    with pytest.raises(PreconditionFailed) as refused:
        check_seen({6, 8}, 7)

    assert refused.value.details == {"etag": '"v7"'}


@pytest.mark.parametrize(
    ("header", "same"),
    [('"v7"', True), ('W/"v7"', True), ("*", True), (" * ", True), ('"v6", "v7"', True),
     ('"v6" ,W/"v7"', True), ('"v6"', False), ("", False), ("v7", False), ('"v7', False),
     (",,,", False)],
)  # fmt: skip
def test_if_none_match_is_compared_as_rfc_9110_says(header: str, same: bool) -> None:
    assert matches(header, '"v7"') is same


def test_what_the_client_has_already_is_not_sent_again() -> None:
    kept = {"etag": '"v7"', "cache-control": "public, max-age=5", "vary": "accept"}
    response = Response(b"long", headers={**kept, "x-other": "1"})

    same = conditional(asking({"if-none-match": '"v7"'}), response)
    changed = conditional(asking({"if-none-match": '"v6"'}), response)
    unasked = conditional(asking({}), response)
    untagged = conditional(asking({"if-none-match": "*"}), Response(b"x"))

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


async def test_an_answer_to_nobody_names_the_scheme_and_the_missing_scope(shop: Shop) -> None:
    nobody = await shop.ask("GET", "/mine")
    bad = await shop.ask("GET", "/mine", headers=[("authorization", "Bearer bad")])
    lacking = await shop.ask("GET", "/mine", headers=[("authorization", "Bearer good")])

    assert (nobody.status, nobody.headers["www-authenticate"]) == (401, "Bearer")
    assert (bad.status, bad.headers["www-authenticate"]) == (401, 'Bearer error="invalid_token"')
    assert (lacking.status, lacking.json["details"]) == (403, {"scope": ORDERS})


@pytest.mark.parametrize(
    ("refusal", "seconds"), [(Busy(), "1"), (Busy(retry_after=9), "9"), (Malformed(), None)]
)
async def test_retry_after_is_there_where_a_retry_may_help(
    shop: Shop, refusal: Refusal, seconds: str | None
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
async def test_what_is_not_valid_is_pointed_at(shop: Shop, body: object, field: str) -> None:
    got = await shop.ask("POST", "/things", body)

    assert (got.status, got.code) == (422, "request.invalid")
    assert field in [error["field"] for error in got.json["errors"]]
    for error in got.json["errors"]:
        assert set(error) == {"field", "code", "message"}


async def test_a_query_that_is_not_valid_is_pointed_at_too(shop: Shop) -> None:
    for query, field in ((b"limit=0", "/query/limit"), (b"owner=5", "/query/owner")):
        got = await shop.ask("GET", "/things", query=query)

        assert (got.status, [error["field"] for error in got.json["errors"]]) == (422, [field])


async def test_a_thousand_faults_are_not_answered_with_a_thousand_errors(shop: Shop) -> None:
    body = {"name": "a"} | {f"x{number}": 1 for number in range(150)}

    got = await shop.ask("POST", "/things", body)

    assert len(got.json["errors"]) == 50


async def test_a_value_that_was_refused_is_not_repeated(shop: Shop) -> None:
    got = await shop.ask("POST", "/things", {"name": "correct horse battery staple"})

    assert got.status == 422
    assert b"horse" not in got.body


@given(st.dictionaries(st.text(), st.none() | st.text() | st.integers() | st.booleans()))
def test_whatever_details_hold_a_problem_is_json(details: dict[str, Any]) -> None:
    class_of_it = Malformed(**{f"detail_{name}": value for name, value in details.items()})

    body = problem({"path": "/\ud800", "state": {"request_id": "r"}}, class_of_it).body

    assert json.loads(bytes(body))["code"] == "request.malformed"


def test_the_documentation_has_every_code_under_its_status() -> None:
    documented = problems(Malformed, Busy, Unavailable)

    assert sorted(documented) == [400, 503]
    examples = documented[503]["content"]["application/problem+json"]["examples"]
    assert set(examples) == {"system.busy", "system.unavailable"}
    assert examples["system.busy"]["value"]["status"] == 503


def test_a_dto_is_serialised_once_and_as_it_is() -> None:
    dto = Something(thing_id=new_id(), name="ñ")

    response = ready(dto, status=202, headers={"etag": '"v1"'})

    assert json.loads(bytes(response.body)) == json.loads(dto.model_dump_json())
    assert (response.status_code, response.headers["etag"]) == (202, '"v1"')
    assert response.headers["content-type"] == "application/json"


def asking(headers: Mapping[str, str]) -> Request:
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "headers": raw})
