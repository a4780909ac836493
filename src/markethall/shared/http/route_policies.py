"""Who may do what: roles, scopes, and the policy that every route declares."""

from typing import Annotated, Any, Final

from fastapi import Depends, Request
from fastapi.security import OAuth2PasswordBearer

from markethall.shared.kernel.call_context import Actor, CallContext
from markethall.shared.kernel.errors import Forbidden, Unauthenticated, Unavailable

PROFILE: Final = "profile"
ORDERS: Final = "orders"
PAYMENTS: Final = "payments"
CATALOGUE_WRITE: Final = "catalogue:write"
STOCK_WRITE: Final = "stock:write"
ORDERS_MANAGE: Final = "orders:manage"
PAYMENTS_MANAGE: Final = "payments:manage"
STATS_READ: Final = "stats:read"
USERS_MANAGE: Final = "users:manage"

_CUSTOMER_SCOPES = {PROFILE, ORDERS, PAYMENTS}
_CATALOGUE_SCOPES = {CATALOGUE_WRITE, STOCK_WRITE, STATS_READ}
_ORDERS_SCOPES = {ORDERS_MANAGE, STATS_READ}
_PAYMENTS_SCOPES = {PAYMENTS_MANAGE, STATS_READ}
_STAFF_SCOPES = _CATALOGUE_SCOPES | _ORDERS_SCOPES | _PAYMENTS_SCOPES

SCOPES_BY_ROLE: Final[dict[str, set[str]]] = {
    "customer": _CUSTOMER_SCOPES,
    "staff:catalogue": _CATALOGUE_SCOPES,
    "staff:orders": _ORDERS_SCOPES,
    "staff:payments": _PAYMENTS_SCOPES,
    "staff": _STAFF_SCOPES,
    "admin": _STAFF_SCOPES | {USERS_MANAGE},
}
SCOPE_DESCRIPTIONS: Final[dict[str, str]] = {
    PROFILE: "read and change one's own account",
    ORDERS: "place and see one's own orders",
    PAYMENTS: "pay for one's own orders",
    CATALOGUE_WRITE: "change products",
    STOCK_WRITE: "see and change stock",
    ORDERS_MANAGE: "see and serve all orders",
    PAYMENTS_MANAGE: "see all payments, refund",
    STATS_READ: "read counts",
    USERS_MANAGE: "see all users, change roles",
}

# only for the documentation: the front has read and checked the token already
_bearer_scheme = OAuth2PasswordBearer(
    tokenUrl="/token", scopes=SCOPE_DESCRIPTIONS, auto_error=False
)


def scopes_for_roles(roles: tuple[str, ...]) -> frozenset[str]:
    return frozenset(scope for role in roles for scope in SCOPES_BY_ROLE.get(role, ()))


class RoutePolicy:
    """Marks a dependency as a route's policy; a test finds a route that has none."""

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
    """The same, with the padlock in the documentation."""

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
    if not any(actor.has_scope(enough) for enough in (scope, *alternative_scopes)):
        raise Forbidden(scope=scope)


def public() -> Any:
    """Policy: open to all. The call carries the person when there is a good token."""
    return Depends(RoutePolicy(None))


def require_scope(scope: str, *alternative_scopes: str, also_requires: str | None = None) -> Any:
    """Policy: who holds this scope or one of the others, and the one beside it.

    Raises Unauthenticated, Forbidden.
    """
    return Depends(ScopedRoutePolicy(scope, *alternative_scopes, also_requires=also_requires))
