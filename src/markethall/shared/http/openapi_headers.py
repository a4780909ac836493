"""The request and response headers of each operation, derived from its documented responses."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from markethall.shared.http.problem_details import PROBLEM_MEDIA_TYPE
from markethall.shared.idempotency.records import (
    IdempotencyKeyInvalid,
    IdempotencyKeyMissing,
    InFlight,
)
from markethall.shared.kernel.errors import DomainError

_TEXT: Final = {"type": "string"}
_TAG: Final = _TEXT | {"examples": ['"v1"']}
# a list of entity tags, or `*` (RFC 9110, section 13.1.1)
_TAG_LIST: Final = _TEXT | {
    "pattern": r'^(\*|(W/)?"[\x21\x23-\x7e]*"(\s*,\s*(W/)?"[\x21\x23-\x7e]*")*)$',
    "examples": ['"v1"'],
}
# a key of `openapi_extra`: the route needs If-Match only from some callers
IF_MATCH_IS_OPTIONAL: Final = "x-if-match-is-optional"
# error responses with these statuses are not stored for an idempotency key, so never replayed
_NEVER_STORED: Final = frozenset({"401", "408", "429", "500", "503"})
HEADERS: Final[dict[str, dict[str, Any]]] = {
    "ETag": {"description": "Its version, for `If-Match` and `If-None-Match`", "schema": _TAG},
    "Content-Language": {
        "description": "The language of names and descriptions, if they are translations",
        "schema": _TEXT | {"examples": ["de"]},
    },
    "Location": {"description": "The path of the resource", "schema": _TEXT},
    "Idempotency-Replayed": {
        "description": "The response of an earlier request with this key is repeated",
        "schema": _TEXT | {"const": "true"},
    },
    "Retry-After": {
        "description": "Seconds after which the same request may succeed",
        "schema": {"type": "integer", "minimum": 1},
    },
    "WWW-Authenticate": {
        "description": "The way to authenticate, and whether the token was rejected (RFC 6750)",
        "schema": _TEXT | {"examples": ["Bearer"]},
    },
    "X-Request-ID": {
        "description": "The id of the request, sent by the client or made by the server",
        "schema": _TEXT | {"examples": ["0199c0de-0000-7000-8000-000000000001"]},
    },
    "RateLimit-Policy": {
        "description": "The limits of this request: quota and window in seconds",
        "schema": _TEXT | {"examples": ['"requests";q=600;w=60']},
    },
    "RateLimit": {
        "description": "Of each limit, the requests that remain and the seconds until it resets",
        "schema": _TEXT | {"examples": ['"requests";r=599;t=60']},
    },
}
PARAMETERS: Final[dict[str, dict[str, Any]]] = {
    "If-Match": {
        "description": "The `ETag` that was read, a list of them, or `*` to take it as it is",
        "schema": _TAG_LIST,
    },
    "If-None-Match": {
        "description": "Entity tags that the client has; 304 if one of them is current",
        # no pattern, because any text is accepted: a text that is no entity tag matches none
        "schema": _TAG,
    },
    "Idempotency-Key": {
        "description": "A repeated request with this key gets the stored response",
        "schema": _TEXT
        | {
            "pattern": r'^("[\x21\x23-\x7e]{1,255}"|[\x21\x23-\x7e]{1,255})$',
            "examples": ["0199c0de-0000-7000-8000-000000000001"],
        },
    },
}


def add_headers(operation: dict[str, Any], schemas: Mapping[str, Any]) -> None:
    """Document the request headers that an operation reads and the headers of its responses."""
    responses = operation["responses"]
    is_optional = operation.pop(IF_MATCH_IS_OPTIONAL, False)
    for name, is_needed in _request_headers(responses):
        is_required = is_needed and not (is_optional and name == "If-Match")
        parameter = {"name": name, "in": "header", "required": is_required} | PARAMETERS[name]
        operation.setdefault("parameters", []).append(parameter)
    for status, response in responses.items():
        names = [
            *_response_headers(status, response, responses, schemas),
            *(["Content-Language"] if status == "200" and _reads_language(operation) else []),
            "RateLimit-Policy",
            "RateLimit",
            "X-Request-ID",
        ]
        response.setdefault("headers", {}).update(
            {name: {"$ref": f"#/components/headers/{name}"} for name in names}
        )


def _request_headers(responses: Mapping[str, Any]) -> Iterable[tuple[str, bool]]:
    codes = {code for response in responses.values() for code in _codes(response)}
    if IdempotencyKeyInvalid.code in codes:
        yield "Idempotency-Key", IdempotencyKeyMissing.code in codes
    if "412" in responses:
        yield "If-Match", "428" in responses
    if "304" in responses:
        yield "If-None-Match", False


def _reads_language(operation: Mapping[str, Any]) -> bool:
    parameters = operation.get("parameters", ())
    return any(parameter["name"].lower() == "accept-language" for parameter in parameters)


def _response_headers(
    status: str,
    response: Mapping[str, Any],
    responses: Mapping[str, Any],
    schemas: Mapping[str, Any],
) -> Iterable[str]:
    codes = list(_codes(response))
    if any(DomainError.by_code[code].retryable for code in codes if code in DomainError.by_code):
        yield "Retry-After"
    if status == "401":
        yield "WWW-Authenticate"
    if status == "301" or _creates_resource(status, responses):
        yield "Location"
    if _has_etag(status, response, responses, schemas):
        yield "ETag"
    if status not in _NEVER_STORED and InFlight.code in _codes(responses.get("409", {})):
        yield "Idempotency-Replayed"


def _creates_resource(status: str, responses: Mapping[str, Any]) -> bool:
    """Tell whether the response has the URL of a new resource.

    Tokens (201 without Idempotency-Key, because they are not stored) have no URL.
    """
    has_key = any(name == "Idempotency-Key" for name, _ in _request_headers(responses))
    is_job = status == "202" and "200" not in responses and "content" in responses[status]
    return (status == "201" and has_key) or is_job


def _has_etag(
    status: str,
    response: Mapping[str, Any],
    responses: Mapping[str, Any],
    schemas: Mapping[str, Any],
) -> bool:
    if status == "201":
        reference = response["content"]["application/json"]["schema"]["$ref"]
        return "version" in schemas[reference.rpartition("/")[2]]["properties"]
    return status == "304" or (status == "200" and bool({"304", "412"} & set(responses)))


def _codes(response: Mapping[str, Any]) -> Iterable[str]:
    """Return the codes of the errors that the response may have."""
    problem = response.get("content", {}).get(PROBLEM_MEDIA_TYPE, {})
    return list(problem.get("examples", ()))
