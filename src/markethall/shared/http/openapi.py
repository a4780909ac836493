"""Additions to FastAPI's OpenAPI document: security requirements, common errors and headers."""

import json
from collections.abc import Callable, Iterator, Mapping
from hashlib import sha256
from typing import Any, Final

from fastapi import FastAPI
from fastapi.routing import iter_route_contexts

from markethall.shared.http.common_errors import (
    AUTHENTICATED_ERRORS,
    BODY_ERRORS,
    COMMON_ERRORS,
    PUBLIC_ERRORS,
)
from markethall.shared.http.openapi_headers import HEADERS, add_headers
from markethall.shared.http.openapi_schemas import correct_schemas
from markethall.shared.http.problem_details import (
    PROBLEM_MEDIA_TYPE,
    PROBLEM_SCHEMA_REF,
    Problem,
    problems,
)
from markethall.shared.http.query_parameters import document_query_parameters
from markethall.shared.http.route_policies import RoutePolicy, policy_of_route
from markethall.shared.kernel.errors import DomainError
from markethall.shared.kernel.scopes import SCOPE_DESCRIPTIONS

_SCHEME_NAME: Final = "oauth2"
_SCHEME: Final = {
    "type": "oauth2",
    "description": "Sign in with a user name or e-mail address, and the password.",
    "flows": {
        "password": {"tokenUrl": "/token", "refreshUrl": "/token", "scopes": SCOPE_DESCRIPTIONS}
    },
}


def document_security(app: FastAPI, document: dict[str, Any]) -> None:
    """Write the policy of each route into its operation.

    If the list has several requirements, a request must meet one of them. An empty requirement
    means that the token is optional. An empty list means that the operation needs no token.
    """
    for context in iter_route_contexts(app.routes):
        policy = policy_of_route(context)
        operations = document["paths"].get(context.path_format, {})
        for method in context.methods or ():
            operation = operations.get(method.lower())
            if policy is not None and operation is not None:
                operation["security"] = list(_requirements(policy))
    if any(any(operation.get("security", ())) for _, operation in _operations(document)):
        schemes = document["components"].setdefault("securitySchemes", {})
        schemes[_SCHEME_NAME] = _SCHEME


def _requirements(policy: RoutePolicy) -> Iterator[dict[str, list[str]]]:
    if policy.optional_scope is not None:
        yield {}
        yield {_SCHEME_NAME: [policy.optional_scope]}
    if policy.scope is not None:
        others = [] if policy.also_requires is None else [policy.also_requires]
        for scope in (policy.scope, *policy.alternative_scopes):
            yield {_SCHEME_NAME: [scope, *others]}


def requires_token(operation: Mapping[str, Any]) -> bool:
    """Tell whether a request without a token is refused."""
    security = operation.get("security", ())
    return bool(security) and {} not in security


_RESPONSES_REF: Final = "#/components/responses/"
_EXAMPLES_REF: Final = "#/components/examples/"


def share_errors(document: dict[str, Any]) -> None:
    """Move the examples of errors, and their responses, to the components."""
    components = document["components"]
    examples = components.setdefault("examples", {})
    for responses, status in _places_of_errors(document):
        of_problem = responses[status]["content"][PROBLEM_MEDIA_TYPE]["examples"]
        for code, example in of_problem.items():
            examples[code] = example
            of_problem[code] = {"$ref": _EXAMPLES_REF + code}
    shared = components.setdefault("responses", {})
    for responses, status in _places_of_errors(document):
        name = _name_of(responses[status])
        shared[name] = responses[status]
        responses[status] = {"$ref": _RESPONSES_REF + name}
    for kind in ("examples", "responses"):
        components[kind] = dict(sorted(components[kind].items()))


def _places_of_errors(document: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    for operations in document["paths"].values():
        for operation in operations.values():
            responses = operation["responses"]
            for status, response in responses.items():
                if PROBLEM_MEDIA_TYPE in response.get("content", {}):
                    yield responses, status


def _name_of(response: dict[str, Any]) -> str:
    """Return the first code of the response, and a digest of its content.

    The digest gives different responses different names, also in the documents of two processes,
    which a local cluster merges.
    """
    # errors of another context have no examples
    code = next(iter(response["content"][PROBLEM_MEDIA_TYPE]["examples"]), "problem")
    text = json.dumps(response, sort_keys=True)
    return f"{code}-{sha256(text.encode()).hexdigest()[:8]}"


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
