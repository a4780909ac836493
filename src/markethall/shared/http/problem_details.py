"""Errors as problem details (RFC 9457): responses, exception handlers and OpenAPI entries."""

import json
from collections.abc import Mapping
from functools import cache
from http import HTTPStatus
from itertools import islice
from typing import Any, Final

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict
from starlette.exceptions import HTTPException

from markethall.shared.http.route_policies import allowed_methods
from markethall.shared.kernel.card_numbers import redact_card_numbers
from markethall.shared.kernel.errors import (
    BodyTooLarge,
    DomainError,
    InternalError,
    MalformedRequest,
    MethodNotAllowed,
    RouteNotFound,
    UnsupportedMediaType,
    ValidationFailed,
)
from markethall.shared.kernel.model import MAX_ERRORS, OMITS_NULL

PROBLEM_MEDIA_TYPE: Final = "application/problem+json"
PROBLEM_SCHEMA_REF: Final = "#/components/schemas/Problem"

_MAX_POINTER_TOKEN_LENGTH: Final = 100


class FieldError(BaseModel):
    field: str
    code: str
    message: str


class Problem(BaseModel):
    """RFC 9457 problem details with the extension members of this API."""

    model_config = ConfigDict(json_schema_extra={OMITS_NULL: True})

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
    """Return the error as a problem response to the request of this ASGI scope."""
    body = _problem_body(scope, error)
    headers = _problem_headers(scope, error)
    content = json.dumps(body, separators=(",", ":")).encode()
    return Response(content, error.status, headers, PROBLEM_MEDIA_TYPE)


def _problem_body(scope: Any, error: DomainError) -> dict[str, Any]:
    details = dict(error.details)
    errors = details.pop("errors", None)
    body = {
        "type": f"urn:markethall:problem:{error.code}",
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        "instance": redact_card_numbers(scope["path"]),
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
    """Return the value of WWW-Authenticate.

    It names an error only if the request had a token (RFC 6750, section 3.1).
    """
    is_token_rejected = error.details.get("reason") in {"invalid", "expired", "revoked"}
    return 'Bearer error="invalid_token"' if is_token_rejected else "Bearer"


async def problem_handler(request: Request, error: Exception) -> Response:
    """Exception handler for DomainError."""
    assert isinstance(error, DomainError)
    return problem_response(request.scope, error)


async def validation_handler(request: Request, error: Exception) -> Response:
    """Exception handler for requests that do not fit the models of their route."""
    assert isinstance(error, RequestValidationError)
    errors = [_field_error(item) for item in islice(error.errors(), MAX_ERRORS)]
    return problem_response(
        request.scope, ValidationFailed(_summarize_errors(errors), errors=errors)
    )


async def http_exception_handler(request: Request, error: Exception) -> Response:
    """Exception handler for errors that FastAPI raises itself, such as an unknown path."""
    assert isinstance(error, HTTPException)
    if isinstance(error.__cause__, DomainError):
        # FastAPI raises an HTTPException if reading the body raises; its cause is the real error
        return problem_response(request.scope, error.__cause__)
    match error.status_code:
        case HTTPStatus.NOT_FOUND:
            problem_error: DomainError = RouteNotFound()
        case HTTPStatus.METHOD_NOT_ALLOWED:
            problem_error = MethodNotAllowed(allow=", ".join(allowed_methods(request.scope)))
        case HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            problem_error = BodyTooLarge()
        case HTTPStatus.UNSUPPORTED_MEDIA_TYPE:
            problem_error = UnsupportedMediaType()
        case _:
            problem_error = MalformedRequest(str(error.detail))
    return problem_response(request.scope, problem_error)


async def unexpected_handler(request: Request, _: Exception) -> Response:
    """Exception handler for all other exceptions, which are bugs.

    Starlette raises the exception again after this response; the gateway logs it then.
    """
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
    """Escape a part of a JSON pointer (RFC 6901).

    A client may have chosen the name, so it is shortened and lone surrogates are replaced.
    """
    text = str(part)[:_MAX_POINTER_TOKEN_LENGTH].replace("~", "~0").replace("/", "~1")
    return text.encode("utf-8", "replace").decode()


def _clean_message(message: str) -> str:
    return message.removeprefix("Value error, ").encode("utf-8", "replace").decode()


def _summarize_errors(errors: list[dict[str, str]]) -> str:
    first = errors[0]
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return f"{first['field'] or 'The body'}: {first['message']}{more}."


def problems(*error_types: type[DomainError]) -> dict[int | str, dict[str, Any]]:
    """Return the `responses` of a route for these errors: one entry per status code.

    Each entry has one example per error code.
    """
    by_status: dict[int, list[type[DomainError]]] = {}
    for error_type in error_types:
        by_status.setdefault(error_type.status, []).append(error_type)
    return {status: _document_status(kinds) for status, kinds in by_status.items()}


def _document_status(error_types: list[type[DomainError]]) -> dict[str, Any]:
    names = ", ".join(f"`{kind.code}`" for kind in error_types)
    examples = {kind.code: _document_example(kind.code) for kind in error_types}
    return openapi_problem_response(f"{error_types[0].title} ({names})", examples)


def openapi_problem_response(description: str, examples: dict[str, Any]) -> dict[str, Any]:
    """Return the OpenAPI response object for a problem response."""
    content = {PROBLEM_MEDIA_TYPE: {"schema": {"$ref": PROBLEM_SCHEMA_REF}, "examples": examples}}
    return {"description": description, "content": content}


@cache
def _document_example(code: str) -> dict[str, Any]:
    """Return the OpenAPI example of an error, one object for all routes."""
    error_type = DomainError.by_code[code]
    scope = {"path": "/…", "state": {"request_id": "0199c0de-0000-7000-8000-000000000001"}}
    return {"summary": error_type.title, "value": _problem_body(scope, error_type())}


def with_upstream_errors(
    codes_by_status: Mapping[int, tuple[str, ...]], *errors: type[DomainError]
) -> dict[int | str, dict[str, Any]]:
    """Return OpenAPI responses for these errors and for these codes of other contexts."""
    responses = problems(*errors)
    for status, codes in codes_by_status.items():
        entry = responses.setdefault(status, openapi_problem_response("Refused", {}))
        entry["description"] += ", " + ", ".join(f"`{code}`" for code in codes)
    return responses
