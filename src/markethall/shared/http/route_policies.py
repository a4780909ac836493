"""Authorization of routes: every route declares a policy as a FastAPI dependency."""

from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.security import OAuth2PasswordBearer

from markethall.shared.kernel.call_context import Actor, CallContext
from markethall.shared.kernel.errors import Forbidden, Unauthenticated, Unavailable
from markethall.shared.kernel.scopes import SCOPE_DESCRIPTIONS

# only for the OpenAPI document, because the gateway verifies the token
_bearer_scheme = OAuth2PasswordBearer(
    tokenUrl="/token", scopes=SCOPE_DESCRIPTIONS, auto_error=False
)


class RoutePolicy:
    """The scopes that a route requires. A test fails for a route without a policy."""

    def __init__(
        self, scope: str | None, *alternative_scopes: str, also_requires: str | None = None
    ) -> None:
        self.scope = scope
        self.alternative_scopes = alternative_scopes
        self.also_requires = also_requires

    async def __call__(self, request: Request) -> CallContext:
        """Raises Unauthenticated, Forbidden."""
        ctx: CallContext = request.scope["state"]["call_context"]
        if self.scope is not None:
            _check_scope(request, ctx.actor, self.scope, *self.alternative_scopes)
        if self.also_requires is not None:
            _check_scope(request, ctx.actor, self.also_requires)
        return ctx


class ScopedRoutePolicy(RoutePolicy):
    """A policy that also adds the security scheme to the OpenAPI document."""

    async def __call__(
        self, request: Request, _: Annotated[str | None, Depends(_bearer_scheme)] = None
    ) -> CallContext:
        return await super().__call__(request)


def _check_scope(request: Request, actor: Actor, scope: str, *alternative_scopes: str) -> None:
    authentication_error: Unauthenticated | Unavailable | None = request.scope["state"].get(
        "authentication_error"
    )
    if authentication_error:
        raise authentication_error
    if actor.user_id is None:
        raise Unauthenticated(reason="missing")
    if not any(actor.has_scope(accepted) for accepted in (scope, *alternative_scopes)):
        raise Forbidden(scope=scope)


def public() -> Any:
    """Policy: no token required. A valid token still sets the actor of the call context."""
    return Depends(RoutePolicy(None))


def require_scope(scope: str, *alternative_scopes: str, also_requires: str | None = None) -> Any:
    """Policy: the token must have one of these scopes, and also `also_requires` if it is given.

    Raises Unauthenticated, Forbidden.
    """
    return Depends(ScopedRoutePolicy(scope, *alternative_scopes, also_requires=also_requires))
