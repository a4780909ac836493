"""Additions to FastAPI's OpenAPI document: common errors and headers."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from fastapi import FastAPI

from markethall.shared.http.common_errors import (
    AUTHENTICATED_ERRORS,
    BODY_ERRORS,
    COMMON_ERRORS,
    PUBLIC_ERRORS,
)
from markethall.shared.http.openapi_headers import HEADERS, add_headers
from markethall.shared.http.problem_details import PROBLEM_SCHEMA_REF, Problem, problems
from markethall.shared.http.query_parameters import document_query_parameters
from markethall.shared.kernel.errors import DomainError

_FRAMEWORK_ERROR_SCHEMAS: Final = ("HTTPValidationError", "ValidationError")


def extend_openapi(app: FastAPI) -> Callable[[], dict[str, Any]]:
    """Return a replacement for `app.openapi` that extends the document and builds it only once."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _extend(app, generate())
        return app.openapi_schema

    return openapi


def _extend(app: FastAPI, document: dict[str, Any]) -> dict[str, Any]:
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    document_query_parameters(app, document)
    for name in _FRAMEWORK_ERROR_SCHEMAS:
        schemas.pop(name, None)
    schemas["Problem"] = _problem_schema()
    _close_maps(schemas)
    for path, operation in _operations(document):
        for error_type in _error_types_of(path, operation):
            _add_response(operation["responses"], error_type)
        add_headers(operation, schemas)
    document["components"]["headers"] = HEADERS
    return document


def _operations(document: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, operations in document["paths"].items():
        for operation in operations.values():
            yield path, operation


def _error_types_of(path: str, operation: Mapping[str, Any]) -> tuple[type[DomainError], ...]:
    error_types: tuple[type[DomainError], ...] = COMMON_ERRORS
    if not path.startswith("/internal/"):
        error_types += PUBLIC_ERRORS
    if "requestBody" in operation:
        error_types += BODY_ERRORS
    if operation.get("security"):
        error_types += AUTHENTICATED_ERRORS
    return error_types


def _add_response(responses: dict[str, Any], error_type: type[DomainError]) -> None:
    """Add the error to the documented responses of a route.

    An entry that FastAPI has generated for the same status, such as 422, is replaced.
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


def _close_maps(schema: Any) -> None:
    """Forbid members whose names do not match `patternProperties`.

    Pydantic rejects such members, but the schemas that it generates do not say so.
    """
    if isinstance(schema, dict):
        if "patternProperties" in schema:
            schema.setdefault("additionalProperties", False)
        for value in schema.values():
            _close_maps(value)
    elif isinstance(schema, list):
        for value in schema:
            _close_maps(value)


def _problem_schema() -> dict[str, Any]:
    schema = Problem.model_json_schema(
        ref_template=PROBLEM_SCHEMA_REF.replace("Problem", "{model}")
    )
    definitions = schema.pop("$defs")
    schema["properties"]["errors"]["anyOf"][0]["items"] = definitions["FieldError"]
    return schema
