"""The OpenAPI document, completed: what every route may answer is said on every route."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from fastapi import FastAPI

from markethall.shared.errors import (
    Forbidden,
    HeadersTooLarge,
    Internal,
    Invalid,
    Malformed,
    Refusal,
    RequestTimeout,
    TooLarge,
    TooManyRequests,
    Unauthenticated,
    Unavailable,
    UnsupportedMediaType,
)
from markethall.shared.http import PROBLEM_REF, Problem, problems

ALWAYS: Final = (Invalid, TooManyRequests, HeadersTooLarge, Internal, Unavailable)
WITH_BODY: Final = (Malformed, TooLarge, UnsupportedMediaType, RequestTimeout)
WITH_TOKEN: Final = (Unauthenticated, Forbidden)

_DEFAULTS: Final = ("HTTPValidationError", "ValidationError")
_TEXT: Final = {"type": "string"}
_LOCATION: Final = {"description": "The path of what was made", "schema": _TEXT}
_ETAG: Final = {
    "description": "Its version, for `If-Match`",
    "schema": _TEXT | {"examples": ['"v1"']},
}
_IF_MATCH: Final = {
    "name": "If-Match",
    "in": "header",
    "description": "The `ETag` that was read, a list of them, or `*` to take it as it is",
    "schema": _TEXT | {"examples": ['"v1"']},
}


def completing(app: FastAPI) -> Callable[[], dict[str, Any]]:
    """What to put in the place of `app.openapi`; it makes the document once."""
    made = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _completed(made())
        return app.openapi_schema

    return openapi


def _completed(document: dict[str, Any]) -> dict[str, Any]:
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for name in _DEFAULTS:
        schemas.pop(name, None)
    schemas["Problem"] = _problem_schema()
    for operation in _operations(document):
        for refusal in _common(operation):
            _add(operation["responses"], refusal)
        if "412" in operation["responses"]:
            required = "428" in operation["responses"]
            operation.setdefault("parameters", []).append(_IF_MATCH | {"required": required})
        if made := operation["responses"].get("201"):
            made["headers"] = _headers_of(made, schemas)
    return document


def _headers_of(made: Mapping[str, Any], schemas: Mapping[str, Any]) -> dict[str, Any]:
    """Of a 201: as http.created answers it."""
    name = made["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
    tagged = "version" in schemas[name]["properties"]
    return {"Location": _LOCATION} | ({"ETag": _ETAG} if tagged else {})


def _operations(document: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for operations in document["paths"].values():
        yield from operations.values()


def _common(operation: Mapping[str, Any]) -> tuple[type[Refusal], ...]:
    common: tuple[type[Refusal], ...] = ALWAYS
    if "requestBody" in operation:
        common += WITH_BODY
    if operation.get("security"):
        common += WITH_TOKEN
    return common


def _add(responses: dict[str, Any], refusal: type[Refusal]) -> None:
    """Beside what the route says itself; FastAPI's own 422 gives way."""
    status = str(refusal.status)
    known = responses.get(status)
    ours = problems(refusal)[refusal.status]
    if known is None or "application/problem+json" not in known.get("content", {}):
        responses[status] = ours
        return
    examples = known["content"]["application/problem+json"]["examples"]
    for code, example in ours["content"]["application/problem+json"]["examples"].items():
        examples.setdefault(code, example)


def _problem_schema() -> dict[str, Any]:
    schema = Problem.model_json_schema(ref_template=PROBLEM_REF.replace("Problem", "{model}"))
    definitions = schema.pop("$defs")
    schema["properties"]["errors"]["anyOf"][0]["items"] = definitions["FieldError"]
    return schema
