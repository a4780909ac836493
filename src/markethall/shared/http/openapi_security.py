"""The scopes that each operation requires, as `security` in the OpenAPI document."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from fastapi import FastAPI
from fastapi.routing import iter_route_contexts

from markethall.shared.http.route_policies import RoutePolicy, policy_of_route
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
    if any(map(_needs_scheme, _operations(document))):
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


def _operations(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for operations in document["paths"].values():
        yield from operations.values()


def _needs_scheme(operation: dict[str, Any]) -> bool:
    return any(operation.get("security", ()))
