"""Additions to FastAPI's OpenAPI document: common errors, If-Match and response headers."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from fastapi import FastAPI

from markethall.shared.http.common_errors import AUTHENTICATED_ERRORS, BODY_ERRORS, COMMON_ERRORS
from markethall.shared.http.problem_details import PROBLEM_SCHEMA_REF, Problem, problems
from markethall.shared.kernel.errors import DomainError

_FRAMEWORK_ERROR_SCHEMAS: Final = ("HTTPValidationError", "ValidationError")
_STRING_SCHEMA: Final = {"type": "string"}
_LOCATION_HEADER: Final = {"description": "The path of the new resource", "schema": _STRING_SCHEMA}
_ETAG_HEADER: Final = {
    "description": "Its version, for `If-Match`",
    "schema": _STRING_SCHEMA | {"examples": ['"v1"']},
}
_IF_MATCH_PARAMETER: Final = {
    "name": "If-Match",
    "in": "header",
    "description": "The `ETag` that was read, a list of them, or `*` to take it as it is",
    "schema": _STRING_SCHEMA | {"examples": ['"v1"']},
}


def extend_openapi(app: FastAPI) -> Callable[[], dict[str, Any]]:
    """Return a replacement for `app.openapi` that adds to the document and builds it once."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _extend(generate())
        return app.openapi_schema

    return openapi


def _extend(document: dict[str, Any]) -> dict[str, Any]:
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for name in _FRAMEWORK_ERROR_SCHEMAS:
        schemas.pop(name, None)
    schemas["Problem"] = _problem_schema()
    for operation in _operations(document):
        for error_type in _error_types_of(operation):
            _add_response(operation["responses"], error_type)
        if "412" in operation["responses"]:
            required = "428" in operation["responses"]
            operation.setdefault("parameters", []).append(
                _IF_MATCH_PARAMETER | {"required": required}
            )
        if created_response := operation["responses"].get("201"):
            created_response["headers"] = _created_headers(created_response, schemas)
    return document


def _created_headers(
    created_response: Mapping[str, Any], schemas: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the OpenAPI description of the headers of a 201."""
    name = created_response["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
    has_etag = "version" in schemas[name]["properties"]
    return {"Location": _LOCATION_HEADER} | ({"ETag": _ETAG_HEADER} if has_etag else {})


def _operations(document: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for operations in document["paths"].values():
        yield from operations.values()


def _error_types_of(operation: Mapping[str, Any]) -> tuple[type[DomainError], ...]:
    error_types: tuple[type[DomainError], ...] = COMMON_ERRORS
    if "requestBody" in operation:
        error_types += BODY_ERRORS
    if operation.get("security"):
        error_types += AUTHENTICATED_ERRORS
    return error_types


def _add_response(responses: dict[str, Any], error_type: type[DomainError]) -> None:
    """Add the error to the documented responses of a route.

    An entry of FastAPI for the same status, such as its 422, is replaced.
    """
    status = str(error_type.status)
    existing = responses.get(status)
    generated = problems(error_type)[error_type.status]
    if existing is None or "application/problem+json" not in existing.get("content", {}):
        responses[status] = generated
        return
    examples = existing["content"]["application/problem+json"]["examples"]
    for code, example in generated["content"]["application/problem+json"]["examples"].items():
        examples.setdefault(code, example)


def _problem_schema() -> dict[str, Any]:
    schema = Problem.model_json_schema(
        ref_template=PROBLEM_SCHEMA_REF.replace("Problem", "{model}")
    )
    definitions = schema.pop("$defs")
    schema["properties"]["errors"]["anyOf"][0]["items"] = definitions["FieldError"]
    return schema
