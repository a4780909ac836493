"""Authorization of routes: every route declares a policy as a FastAPI dependency."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from fastapi import Depends, Request
from fastapi.dependencies.models import Dependant
from fastapi.routing import iter_route_contexts
from starlette.routing import compile_path
from starlette.types import Scope

from markethall.shared.http.route_index import methods_of
from markethall.shared.kernel.call_context import Actor, CallContext
from markethall.shared.kernel.errors import Forbidden, Unauthenticated, Unavailable


@dataclass(frozen=True)
class BodyLimits:
    """The maximum size of a body. Members are the names in objects and the elements of arrays."""

    max_bytes: int
    max_members: int


DEFAULT_BODY_LIMITS: Final = BodyLimits(max_bytes=64 * 1024, max_members=5000)
# smaller, because parsing a form takes longer than parsing JSON
FORM_BODY_LIMITS: Final = BodyLimits(max_bytes=32 * 1024, max_members=20)
# for bodies with long texts in many languages
LONG_TEXT_BODY_LIMITS: Final = BodyLimits(max_bytes=1024 * 1024, max_members=5000)
# for bodies with many lines
BULK_BODY_LIMITS: Final = BodyLimits(max_bytes=1024 * 1024, max_members=50_000)


@dataclass(frozen=True)
class CardCheck:
    """Configures the card number check for the JSON bodies of a route.

    `unchecked_fields` are members of the body that may have the form of a card number. If
    `is_enabled` is false, the route itself must ensure that no card number is stored.
    """

    is_enabled: bool = True
    unchecked_fields: frozenset[str] = frozenset()


_DEFAULT_CARD_CHECK: Final = CardCheck()


class RoutePolicy:
    """The scopes that a route requires, the limits of its body, and the check for card numbers.

    A test checks that every route has a policy. The gateway checks the policy before it reads the
    body. `optional_scope` is not checked here. It documents that a public route returns more to a
    caller with this scope.
    """

    def __init__(
        self,
        scope: str | None,
        *alternative_scopes: str,
        also_requires: str | None = None,
        optional_scope: str | None = None,
        body_limits: BodyLimits = DEFAULT_BODY_LIMITS,
        card_check: CardCheck = _DEFAULT_CARD_CHECK,
    ) -> None:
        self.body_limits = body_limits
        self.card_check = card_check
        self.scope = scope
        self.alternative_scopes = alternative_scopes
        self.also_requires = also_requires
        self.optional_scope = optional_scope

    async def __call__(self, request: Request) -> CallContext:
        """Return the call context. Raises Unauthenticated, Forbidden.

        Raises Unavailable if the gateway could not fetch the keys to verify the token.
        """
        ctx: CallContext = request.scope["state"]["get_call_context"]()
        if self.scope is not None:
            _check_scope(request, ctx.actor, self.scope, *self.alternative_scopes)
        if self.also_requires is not None:
            _check_scope(request, ctx.actor, self.also_requires)
        return ctx


def _check_scope(request: Request, actor: Actor, scope: str, *alternative_scopes: str) -> None:
    authentication_error: Unauthenticated | Unavailable | None = request.scope["state"].get(
        "authentication_error"
    )
    if authentication_error:
        raise authentication_error
    if not actor.is_authenticated:
        raise Unauthenticated(reason="missing")
    if not any(actor.has_scope(accepted) for accepted in (scope, *alternative_scopes)):
        raise Forbidden(scope=scope)


def public(
    *,
    optional_scope: str | None = None,
    body_limits: BodyLimits = DEFAULT_BODY_LIMITS,
    card_check: CardCheck = _DEFAULT_CARD_CHECK,
) -> Any:
    """Policy: no token required. A valid token still sets the actor of the call context.

    `optional_scope` documents the scope with which the route returns more.
    """
    return Depends(
        RoutePolicy(
            None, optional_scope=optional_scope, body_limits=body_limits, card_check=card_check
        )
    )


def require_scope(
    scope: str,
    *alternative_scopes: str,
    also_requires: str | None = None,
    body_limits: BodyLimits = DEFAULT_BODY_LIMITS,
    card_check: CardCheck = _DEFAULT_CARD_CHECK,
) -> Any:
    """Policy: the token must have one of these scopes, and also `also_requires` if it is given.

    Raises Unauthenticated, Forbidden, Unavailable.
    """
    return Depends(
        RoutePolicy(
            scope,
            *alternative_scopes,
            also_requires=also_requires,
            body_limits=body_limits,
            card_check=card_check,
        )
    )


def find_policy(scope: Scope) -> RoutePolicy | None:
    """Return the policy of the matched route, or None if there is no route or no policy."""
    return policy_of_route(matched_route(scope))


def policy_of_route(route: Any) -> RoutePolicy | None:
    """Return the policy of a route or route context, or None if it has none."""
    dependant: Dependant | None = getattr(route, "dependant", None)
    return next(_policies(dependant), None) if dependant else None


def matched_route(scope: Scope) -> Any:
    """Return the route that FastAPI has matched, or None. Its path includes all prefixes."""
    return scope.get("fastapi", {}).get("effective_route_context") or scope.get("route")


def allowed_methods(scope: Scope) -> list[str]:
    """Return the methods of all routes with the template of this path.

    FastAPI has a route for each method, and the error that it raises names the methods of only one
    route.
    """
    found = (
        (context.path, context.methods)
        for context in iter_route_contexts(scope["app"].routes)
        if context.path and _path_pattern(context.path).match(scope["path"])
    )
    return sorted(methods_of(found))


@lru_cache(maxsize=1024)
def _path_pattern(path: str) -> re.Pattern[str]:
    pattern, _, _ = compile_path(path)
    return pattern


def _policies(dependant: Dependant) -> Iterator[RoutePolicy]:
    if isinstance(dependant.call, RoutePolicy):
        yield dependant.call
    for child in dependant.dependencies:
        yield from _policies(child)
