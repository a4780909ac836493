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

from markethall.shared.idempotency.service import (
    IdempotencyKeyInvalid,
    IdempotencyKeyMissing,
    IdempotencyService,
    IdempotentCommand,
    IdempotentRequest,
    StoredResponse,
)
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.errors import (
    BodyTooLarge,
    DomainError,
    InternalError,
    MalformedRequest,
    MethodNotAllowed,
    PreconditionRequired,
    RouteNotFound,
    UnsupportedMediaType,
    ValidationFailed,
)
from markethall.shared.kernel.etags import ExpectedVersions, content_digest, etag, parse_if_match
from markethall.shared.kernel.ids import new_id

D = TypeVar("D", bound=BaseModel)

IDEMPOTENCY_RETENTION_DEFAULT: Final = timedelta(days=1)
IDEMPOTENCY_RETENTION_EXTENDED: Final = timedelta(days=30)

PROBLEM_SCHEMA_REF: Final = "#/components/schemas/Problem"

_JSON_TYPE: Final = "application/json"
_PROBLEM_TYPE: Final = "application/problem+json"
_KEY_PATTERN: Final = re.compile(r'"([\x21\x23-\x7e]{1,255})"|([\x21\x23-\x7e]{1,255})')
_MAX_FIELD_ERRORS: Final = 50


def from_container(name: str) -> Callable[[Request], Awaitable[Any]]:
    """A dependency that asks this app's own container, so two apps may share a process."""

    async def provide(request: Request) -> Any:
        return getattr(request.app.state.container, name)()

    return provide


# Answers


def json_response(
    dto: BaseModel, status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    """Serialised once, here; FastAPI does not look at it again."""
    return Response(dto.model_dump_json().encode(), status, headers, _JSON_TYPE)


def json_with_etag(request: Request, dto: BaseModel) -> Response:
    """200 with a strong entity tag of the very bytes, or 304: for what has no version."""
    response = json_response(dto)
    response.headers["etag"] = f'"{content_digest(response.body)}"'
    return apply_if_none_match(request, response)


def ok_response(dto: BaseModel) -> StoredResponse:
    return StoredResponse(status=200, body=dto.model_dump_json())


def created_response(path: Callable[[Any], str]) -> Callable[[Any], StoredResponse]:
    """201 with the Location of what was made, and its entity tag where it has a version."""

    def to_response(dto: BaseModel) -> StoredResponse:
        version = getattr(dto, "version", None)
        tag = None if version is None else etag(version)
        return StoredResponse(status=201, body=dto.model_dump_json(), location=path(dto), etag=tag)

    return to_response


def accepted_response(path: Callable[[Any], str]) -> Callable[[Any], StoredResponse]:
    """202 with the Location of the job that goes on."""

    def to_response(dto: BaseModel) -> StoredResponse:
        return StoredResponse(status=202, body=dto.model_dump_json(), location=path(dto))

    return to_response


class RawJsonResponse(Response):
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


async def run_idempotent(
    request: Request,
    ctx: CallContext,
    body: BaseModel | None,
    service: IdempotencyService,
    command: Callable[[IdempotentCommand], Awaitable[D]],
    to_response: Callable[[Any], StoredResponse],
    *,
    required: bool = False,
    retention: timedelta = IDEMPOTENCY_RETENTION_DEFAULT,
) -> Response:
    """Run the effect once per Idempotency-Key, or answer again what it answered.

    Raises IdempotencyKeyMissing, IdempotencyKeyInvalid, InFlight, PayloadMismatch, and what the effect raises.
    """
    key = _read_idempotency_key(request, required=required)
    if key is None:
        attempt = IdempotentCommand("", new_id(), retention, to_response)
        return _to_http_response(attempt.build_response(await command(attempt)))
    idempotent_request = IdempotentRequest(
        principal=_principal(request, ctx),
        method=request.method,
        # an id in capitals is the same id
        path=request.url.path.lower().rstrip("/"),
        key=key,
        payload=body.model_dump(mode="json") if body else None,
    )
    stored_response, is_replay = await service.run(
        idempotent_request, retention, to_response, command
    )
    return (
        _to_http_response(stored_response)
        if not is_replay
        else _replay_response(request, stored_response)
    )


def _principal(request: Request, ctx: CallContext) -> str:
    """Strangers do not share their keys: each address has its own."""
    if ctx.actor.user_id:
        return ctx.actor.audit_name
    return f"{ctx.actor.audit_name} {request.scope['state'].get('client_ip', '')}"


def _read_idempotency_key(request: Request, *, required: bool) -> str | None:
    header = request.headers.get("idempotency-key")
    if header is None:
        if required:
            raise IdempotencyKeyMissing
        return None
    match = _KEY_PATTERN.fullmatch(header)
    if not match:
        raise IdempotencyKeyInvalid
    return match[1] or match[2]


def _to_http_response(stored_response: StoredResponse) -> Response:
    optional_headers = {"location": stored_response.location, "etag": stored_response.etag}
    headers = {name: value for name, value in optional_headers.items() if value is not None}
    return Response(
        stored_response.body.encode(), stored_response.status, headers, stored_response.content_type
    )


def _replay_response(request: Request, stored_response: StoredResponse) -> Response:
    request.scope["state"]["is_idempotent_replay"] = True
    if stored_response.content_type == _PROBLEM_TYPE:
        stored = json.loads(stored_response.body)
        raise DomainError.by_code[stored["code"]](stored["detail"], **stored["details"])
    response = _to_http_response(stored_response)
    response.headers["idempotency-replayed"] = "true"
    return response


# Conditions


async def if_match(request: Request) -> ExpectedVersions:
    """Dependency: the versions that the client has seen.

    Raises PreconditionRequired, PreconditionFailed.
    """
    if "if-match" not in request.headers:
        raise PreconditionRequired
    # several lines are one list (RFC 9110, section 5.3)
    return parse_if_match(", ".join(request.headers.getlist("if-match")))


async def if_match_optional(request: Request) -> ExpectedVersions:
    """Dependency: as if_match, for resources that one may change without having read them."""
    return await if_match(request) if "if-match" in request.headers else None


def apply_if_none_match(request: Request, response: Response) -> Response:
    """The response, or 304 when the client has it already (RFC 9110, section 13.1.2)."""
    header = request.headers.get("if-none-match")
    if header is None:
        return response
    tag = response.headers.get("etag")
    if tag is None or not etag_matches(header, tag):
        return response
    retained_headers = ("etag", "cache-control", "vary")
    headers = {name: value for name, value in response.headers.items() if name in retained_headers}
    return Response(status_code=304, headers=headers)


def etag_matches(if_none_match: str, tag: str) -> bool:
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


def problem_response(scope: Any, error: DomainError) -> Response:
    """The refusal as the client sees it."""
    body = _problem_body(scope, error)
    headers = _problem_headers(scope, error)
    content = json.dumps(body, separators=(",", ":")).encode()
    return Response(content, error.status, headers, _PROBLEM_TYPE)


def _problem_body(scope: Any, error: DomainError) -> dict[str, Any]:
    details = dict(error.details)
    errors = details.pop("errors", None)
    body = {
        "type": f"urn:markethall:problem:{error.code}",
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        "instance": scope["path"],
        "code": error.code,
        "request_id": scope["state"]["request_id"],
        "retryable": error.retryable,
        "details": details,
    }
    return body if errors is None else body | {"errors": errors}


def _problem_headers(scope: Any, error: DomainError) -> dict[str, str]:
    headers = {"cache-control": "no-store"}
    if error.status == HTTPStatus.UNAUTHORIZED:
        headers["www-authenticate"] = _www_authenticate(error)
    if error.retry_after is not None:
        headers["retry-after"] = str(error.retry_after)
    if scope["state"].get("is_idempotent_replay"):
        headers["idempotency-replayed"] = "true"
    if allowed := error.details.get("allow"):
        headers["allow"] = allowed
    return headers


def _www_authenticate(error: DomainError) -> str:
    """RFC 6750: an error is named only where a token was sent."""
    bad_token = error.details.get("reason") in {"invalid", "expired"}
    return 'Bearer error="invalid_token"' if bad_token else "Bearer"


async def problem_handler(request: Request, error: Exception) -> Response:
    """Exception handler for DomainError."""
    assert isinstance(error, DomainError)
    return problem_response(request.scope, error)


async def validation_handler(request: Request, error: Exception) -> Response:
    """Exception handler for what does not fit a route's models."""
    assert isinstance(error, RequestValidationError)
    # a body of a thousand unknown fields need not be answered with a thousand errors
    errors = [_field_error(item) for item in islice(error.errors(), _MAX_FIELD_ERRORS)]
    return problem_response(
        request.scope, ValidationFailed(_summarize_errors(errors), errors=errors)
    )


async def http_exception_handler(request: Request, error: Exception) -> Response:
    """Exception handler for what the framework refuses by itself."""
    assert isinstance(error, HTTPException)
    match error.status_code:
        case HTTPStatus.NOT_FOUND:
            problem_error: DomainError = RouteNotFound()
        case HTTPStatus.METHOD_NOT_ALLOWED:
            headers = {name.lower(): value for name, value in (error.headers or {}).items()}
            problem_error = MethodNotAllowed(allow=headers.get("allow", ""))
        case HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            problem_error = BodyTooLarge()
        case HTTPStatus.UNSUPPORTED_MEDIA_TYPE:
            problem_error = UnsupportedMediaType()
        case _:
            problem_error = MalformedRequest(str(error.detail))
    return problem_response(request.scope, problem_error)


async def unexpected_handler(request: Request, _: Exception) -> Response:
    """Exception handler for a fault of ours. The framework raises it again, for the log."""
    return problem_response(
        request.scope, InternalError(error_id=request.scope["state"]["request_id"])
    )


def _field_error(item: dict[str, Any]) -> dict[str, str]:
    location, *path = item["loc"]
    prefix = "" if location == "body" else f"/{location}"
    pointer = "".join(f"/{_escape_pointer_token(part)}" for part in path)
    return {
        "field": prefix + pointer,
        "code": item["type"],
        "message": _clean_message(item["msg"]),
    }


def _escape_pointer_token(part: str | int) -> str:
    """RFC 6901. What a client sent as a name is cut to a sane length and stays printable."""
    text = str(part)[:100].replace("~", "~0").replace("/", "~1")
    return text.encode("utf-8", "replace").decode()


def _clean_message(message: str) -> str:
    return message.removeprefix("Value error, ").encode("utf-8", "replace").decode()


def _summarize_errors(errors: list[dict[str, str]]) -> str:
    first = errors[0]
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return f"{first['field'] or 'The body'}: {first['message']}{more}."


def problems(*error_types: type[DomainError]) -> dict[int | str, dict[str, Any]]:
    """For a route's `responses`: each refusal under its status, with its code as an example."""
    by_status: dict[int, list[type[DomainError]]] = {}
    for error_type in error_types:
        by_status.setdefault(error_type.status, []).append(error_type)
    return {status: _document_status(kinds) for status, kinds in by_status.items()}


def _document_status(error_types: list[type[DomainError]]) -> dict[str, Any]:
    names = ", ".join(f"`{kind.code}`" for kind in error_types)
    examples = {
        kind.code: {"summary": kind.title, "value": _example_problem(kind)} for kind in error_types
    }
    return openapi_problem_response(f"{error_types[0].title} ({names})", examples)


def openapi_problem_response(description: str, examples: dict[str, Any]) -> dict[str, Any]:
    content = {_PROBLEM_TYPE: {"schema": {"$ref": PROBLEM_SCHEMA_REF}, "examples": examples}}
    return {"description": description, "content": content}


def _example_problem(error_type: type[DomainError]) -> dict[str, Any]:
    scope = {"path": "/…", "state": {"request_id": "0199c0de-0000-7000-8000-000000000001"}}
    return _problem_body(scope, error_type())
