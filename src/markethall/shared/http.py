"""Between HTTP and the services: answers, refusals as problem+json, conditions, idempotency."""

import json
import re
from collections.abc import Awaitable, Callable
from datetime import timedelta
from http import HTTPStatus
from itertools import islice
from typing import Any, Final, TypeVar

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from markethall.shared import idempotency
from markethall.shared.call import Call
from markethall.shared.errors import (
    Internal,
    Invalid,
    Malformed,
    MethodNotAllowed,
    PreconditionRequired,
    Refusal,
    RouteNotFound,
    TooLarge,
    UnsupportedMediaType,
)
from markethall.shared.idempotency import Answer, Attempt, KeyInvalid, KeyMissing, Keys
from markethall.shared.ids import new_id
from markethall.shared.versions import Seen, digest, etag, seen_by

D = TypeVar("D", bound=BaseModel)

DAY: Final = timedelta(days=1)
MONEY: Final = timedelta(days=30)

PROBLEM_REF: Final = "#/components/schemas/Problem"

_JSON: Final = "application/json"
_PROBLEM: Final = "application/problem+json"
_KEY: Final = re.compile(r'"([\x21\x23-\x7e]{1,255})"|([\x21\x23-\x7e]{1,255})')
_MOST_ERRORS: Final = 50


def from_container(name: str) -> Callable[[Request], Awaitable[Any]]:
    """A dependency that asks this app's own container, so two apps may share a process."""

    async def provide(request: Request) -> Any:
        return getattr(request.app.state.container, name)()

    return provide


# Answers


def ready(dto: BaseModel, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Serialised once, here; FastAPI does not look at it again."""
    return Response(dto.model_dump_json().encode(), status, headers, _JSON)


def whole(request: Request, dto: BaseModel) -> Response:
    """200 with a strong entity tag of the very bytes, or 304: for what has no version."""
    response = ready(dto)
    response.headers["etag"] = f'"{digest(response.body)}"'
    return conditional(request, response)


def ok(dto: BaseModel) -> Answer:
    return Answer(status=200, body=dto.model_dump_json())


def created(path: Callable[[Any], str]) -> Callable[[Any], Answer]:
    """201 with the Location of what was made, and its entity tag where it has a version."""

    def present(dto: BaseModel) -> Answer:
        version = getattr(dto, "version", None)
        tag = None if version is None else etag(version)
        return Answer(status=201, body=dto.model_dump_json(), location=path(dto), etag=tag)

    return present


def accepted(path: Callable[[Any], str]) -> Callable[[Any], Answer]:
    """202 with the Location of the job that goes on."""

    def present(dto: BaseModel) -> Answer:
        return Answer(status=202, body=dto.model_dump_json(), location=path(dto))

    return present


class Kept(Response):
    """200 with a body and headers that are bytes already: nothing is looked at again."""

    def __init__(self, body: bytes, tag: str, cache_control: bytes) -> None:
        self.status_code = 200
        self.background = None
        self.body = body
        self.raw_headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"etag", tag.encode()),
            (b"cache-control", cache_control),
        ]


# Idempotency


async def once(  # noqa: PLR0917 - what a route has in hand
    request: Request,
    call: Call,
    body: BaseModel | None,
    keys: Keys,
    effect: Callable[[Attempt], Awaitable[D]],
    present: Callable[[Any], Answer],
    *,
    required: bool = False,
    kept_for: timedelta = DAY,
) -> Response:
    """Run the effect once per Idempotency-Key, or answer again what it answered.

    Raises KeyMissing, KeyInvalid, InFlight, PayloadMismatch, and what the effect raises.
    """
    key = _key_of(request, required=required)
    if key is None:
        attempt = Attempt("", new_id(), kept_for, present)
        return _respond(present(await effect(attempt)))
    asked = idempotency.Request(
        principal=_principal(request, call),
        method=request.method,
        # an id in capitals is the same id
        path=request.url.path.lower().rstrip("/"),
        key=key,
        payload=body.model_dump(mode="json") if body else None,
    )
    answer, replayed = await keys.once(asked, kept_for, present, effect)
    return _respond(answer) if not replayed else _replay(request, answer)


def _principal(request: Request, call: Call) -> str:
    """Strangers do not share their keys: each address has its own."""
    if call.actor.user_id:
        return call.actor.known_as
    return f"{call.actor.known_as} {request.scope['state'].get('client_ip', '')}"


def _key_of(request: Request, *, required: bool) -> str | None:
    header = request.headers.get("idempotency-key")
    if header is None:
        if required:
            raise KeyMissing
        return None
    found = _KEY.fullmatch(header)
    if not found:
        raise KeyInvalid
    return found[1] or found[2]


def _respond(answer: Answer) -> Response:
    given = {"location": answer.location, "etag": answer.etag}
    headers = {name: value for name, value in given.items() if value is not None}
    return Response(answer.body.encode(), answer.status, headers, answer.content_type)


def _replay(request: Request, answer: Answer) -> Response:
    request.scope["state"]["replayed"] = True
    if answer.content_type == _PROBLEM:
        stored = json.loads(answer.body)
        raise Refusal.by_code[stored["code"]](stored["detail"], **stored["details"])
    response = _respond(answer)
    response.headers["idempotency-replayed"] = "true"
    return response


# Conditions


async def if_match(request: Request) -> Seen:
    """Dependency: the versions that the client has seen.

    Raises PreconditionRequired, PreconditionFailed.
    """
    if "if-match" not in request.headers:
        raise PreconditionRequired
    # several lines are one list (RFC 9110, section 5.3)
    return seen_by(", ".join(request.headers.getlist("if-match")))


async def if_match_optional(request: Request) -> Seen:
    """Dependency: as if_match, for resources that one may change without having read them."""
    return await if_match(request) if "if-match" in request.headers else None


def conditional(request: Request, response: Response) -> Response:
    """The response, or 304 when the client has it already (RFC 9110, section 13.1.2)."""
    header = request.headers.get("if-none-match")
    if header is None:
        return response
    tag = response.headers.get("etag")
    if tag is None or not matches(header, tag):
        return response
    kept = ("etag", "cache-control", "vary")
    headers = {name: value for name, value in response.headers.items() if name in kept}
    return Response(status_code=304, headers=headers)


def matches(if_none_match: str, tag: str) -> bool:
    if if_none_match == tag:
        return True
    tags = (part.strip().removeprefix("W/") for part in if_none_match.split(","))
    return if_none_match.strip() == "*" or tag in tags


# Refusals


class FieldError(BaseModel):
    field: str
    code: str
    message: str


class Problem(BaseModel):
    """RFC 9457 problem details, with what Markethall adds."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    request_id: str
    retryable: bool
    details: dict[str, Any]
    errors: list[FieldError] | None = None


def problem(scope: Any, refusal: Refusal) -> Response:
    """The refusal as the client sees it."""
    body = _problem_body(scope, refusal)
    headers = _problem_headers(scope, refusal)
    content = json.dumps(body, separators=(",", ":")).encode()
    return Response(content, refusal.status, headers, _PROBLEM)


def _problem_body(scope: Any, refusal: Refusal) -> dict[str, Any]:
    details = dict(refusal.details)
    errors = details.pop("errors", None)
    body = {
        "type": f"urn:markethall:problem:{refusal.code}",
        "title": refusal.title,
        "status": refusal.status,
        "detail": refusal.detail,
        "instance": scope["path"],
        "code": refusal.code,
        "request_id": scope["state"]["request_id"],
        "retryable": refusal.retryable,
        "details": details,
    }
    return body if errors is None else body | {"errors": errors}


def _problem_headers(scope: Any, refusal: Refusal) -> dict[str, str]:
    headers = {"cache-control": "no-store"}
    if refusal.status == HTTPStatus.UNAUTHORIZED:
        headers["www-authenticate"] = _challenge(refusal)
    if refusal.retry_after is not None:
        headers["retry-after"] = str(refusal.retry_after)
    if scope["state"].get("replayed"):
        headers["idempotency-replayed"] = "true"
    if allowed := refusal.details.get("allow"):
        headers["allow"] = allowed
    return headers


def _challenge(refusal: Refusal) -> str:
    """RFC 6750: an error is named only where a token was sent."""
    bad_token = refusal.details.get("reason") in {"invalid", "expired"}
    return 'Bearer error="invalid_token"' if bad_token else "Bearer"


async def refuse(request: Request, error: Exception) -> Response:
    """Exception handler for Refusal."""
    assert isinstance(error, Refusal)
    return problem(request.scope, error)


async def refuse_invalid(request: Request, error: Exception) -> Response:
    """Exception handler for what does not fit a route's models."""
    assert isinstance(error, RequestValidationError)
    # a body of a thousand unknown fields need not be answered with a thousand errors
    errors = [_field_error(item) for item in islice(error.errors(), _MOST_ERRORS)]
    return problem(request.scope, Invalid(_sentence(errors), errors=errors))


async def refuse_http(request: Request, error: Exception) -> Response:
    """Exception handler for what the framework refuses by itself."""
    assert isinstance(error, HTTPException)
    match error.status_code:
        case HTTPStatus.NOT_FOUND:
            refusal: Refusal = RouteNotFound()
        case HTTPStatus.METHOD_NOT_ALLOWED:
            headers = {name.lower(): value for name, value in (error.headers or {}).items()}
            refusal = MethodNotAllowed(allow=headers.get("allow", ""))
        case HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            refusal = TooLarge()
        case HTTPStatus.UNSUPPORTED_MEDIA_TYPE:
            refusal = UnsupportedMediaType()
        case _:
            refusal = Malformed(str(error.detail))
    return problem(request.scope, refusal)


async def refuse_unexpected(request: Request, _: Exception) -> Response:
    """Exception handler for a fault of ours. The framework raises it again, for the log."""
    return problem(request.scope, Internal(error_id=request.scope["state"]["request_id"]))


def _field_error(item: dict[str, Any]) -> dict[str, str]:
    where, *path = item["loc"]
    prefix = "" if where == "body" else f"/{where}"
    pointer = "".join(f"/{_escaped(part)}" for part in path)
    return {
        "field": prefix + pointer,
        "code": item["type"],
        "message": _readable(item["msg"]),
    }


def _escaped(part: str | int) -> str:
    """RFC 6901. What a client sent as a name is cut to a sane length and stays printable."""
    text = str(part)[:100].replace("~", "~0").replace("/", "~1")
    return text.encode("utf-8", "replace").decode()


def _readable(message: str) -> str:
    return message.removeprefix("Value error, ").encode("utf-8", "replace").decode()


def _sentence(errors: list[dict[str, str]]) -> str:
    first = errors[0]
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return f"{first['field'] or 'The body'}: {first['message']}{more}."


def problems(*refusals: type[Refusal]) -> dict[int | str, dict[str, Any]]:
    """For a route's `responses`: each refusal under its status, with its code as an example."""
    by_status: dict[int, list[type[Refusal]]] = {}
    for refusal in refusals:
        by_status.setdefault(refusal.status, []).append(refusal)
    return {status: _documented(kinds) for status, kinds in by_status.items()}


def _documented(kinds: list[type[Refusal]]) -> dict[str, Any]:
    names = ", ".join(f"`{kind.code}`" for kind in kinds)
    examples = {kind.code: {"summary": kind.title, "value": _example(kind)} for kind in kinds}
    return problem_response(f"{kinds[0].title} ({names})", examples)


def problem_response(description: str, examples: dict[str, Any]) -> dict[str, Any]:
    content = {_PROBLEM: {"schema": {"$ref": PROBLEM_REF}, "examples": examples}}
    return {"description": description, "content": content}


def _example(kind: type[Refusal]) -> dict[str, Any]:
    scope = {"path": "/…", "state": {"request_id": "0199c0de-0000-7000-8000-000000000001"}}
    return _problem_body(scope, kind())
