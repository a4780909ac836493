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
from markethall.shared.http.openapi_schemas import correct_schemas
from markethall.shared.http.openapi_security import document_security, requires_token
from markethall.shared.http.openapi_sharing import share_errors
from markethall.shared.http.problem_details import PROBLEM_SCHEMA_REF, Problem, problems
from markethall.shared.http.query_parameters import document_query_parameters
from markethall.shared.kernel.errors import DomainError

_FRAMEWORK_ERROR_SCHEMAS: Final = ("HTTPValidationError", "ValidationError")


def extend_openapi(app: FastAPI, *, shares_errors: bool = False) -> Callable[[], dict[str, Any]]:
    """Return a replacement for `app.openapi` that extends the document and builds it only once.

    With `shares_errors`, operations refer to the responses of common errors.
    """
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _extend(app, generate())
            if shares_errors:
                share_errors(app.openapi_schema)
        return app.openapi_schema

    return openapi


def _extend(app: FastAPI, document: dict[str, Any]) -> dict[str, Any]:
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    document_query_parameters(app, document)
    document_security(app, document)
    for name in _FRAMEWORK_ERROR_SCHEMAS:
        schemas.pop(name, None)
    schemas.update(_problem_schemas())
    for path, operation in _operations(document):
        for error_type in _error_types_of(path, operation):
            _add_response(operation["responses"], error_type)
        add_headers(operation, schemas)
    document["components"]["headers"] = HEADERS
    correct_schemas(document)
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
    if requires_token(operation):
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


def _problem_schemas() -> dict[str, Any]:
    """Return the schema of problems, and those that it references, by name."""
    schema = Problem.model_json_schema(
        ref_template=PROBLEM_SCHEMA_REF.replace("Problem", "{model}")
    )
    return {**schema.pop("$defs"), "Problem": schema}
