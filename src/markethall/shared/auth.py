"""Who may do what: roles, scopes, and the policy that every route declares."""

from typing import Annotated, Any, Final

from fastapi import Depends, Request
from fastapi.security import OAuth2PasswordBearer

from markethall.shared.call import Actor, Call
from markethall.shared.errors import Forbidden, Unauthenticated, Unavailable

PROFILE: Final = "profile"
ORDERS: Final = "orders"
PAYMENTS: Final = "payments"
CATALOGUE_WRITE: Final = "catalogue:write"
STOCK_WRITE: Final = "stock:write"
ORDERS_MANAGE: Final = "orders:manage"
PAYMENTS_MANAGE: Final = "payments:manage"
STATS_READ: Final = "stats:read"
USERS_MANAGE: Final = "users:manage"

_CUSTOMER = {PROFILE, ORDERS, PAYMENTS}
_CATALOGUE = {CATALOGUE_WRITE, STOCK_WRITE, STATS_READ}
_ORDERS = {ORDERS_MANAGE, STATS_READ}
_PAYMENTS = {PAYMENTS_MANAGE, STATS_READ}
_STAFF = _CATALOGUE | _ORDERS | _PAYMENTS

SCOPES_OF_ROLE: Final[dict[str, set[str]]] = {
    "customer": _CUSTOMER,
    "staff:catalogue": _CATALOGUE,
    "staff:orders": _ORDERS,
    "staff:payments": _PAYMENTS,
    "staff": _STAFF,
    "admin": _STAFF | {USERS_MANAGE},
}
SCOPE_MEANS: Final[dict[str, str]] = {
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
_bearer = OAuth2PasswordBearer(tokenUrl="/token", scopes=SCOPE_MEANS, auto_error=False)


def scopes_of(roles: tuple[str, ...]) -> frozenset[str]:
    return frozenset(scope for role in roles for scope in SCOPES_OF_ROLE.get(role, ()))


class Policy:
    """Marks a dependency as a route's policy; a test finds a route that has none."""

    def __init__(self, scope: str | None, *others: str, beside: str | None = None) -> None:
        self.scope = scope
        self.others = others
        self.beside = beside

    async def __call__(self, request: Request) -> Call:
        """Raises Unauthenticated, Forbidden."""
        call: Call = request.scope["state"]["call"]
        if self.scope is not None:
            _check(request, call.actor, self.scope, *self.others)
        if self.beside is not None:
            _check(request, call.actor, self.beside)
        return call


class ScopedPolicy(Policy):
    """The same, with the padlock in the documentation."""

    async def __call__(
        self, request: Request, _: Annotated[str | None, Depends(_bearer)] = None
    ) -> Call:
        return await super().__call__(request)


def _check(request: Request, actor: Actor, scope: str, *others: str) -> None:
    refusal: Unauthenticated | Unavailable | None = request.scope["state"].get("unauthenticated")
    if refusal:
        raise refusal
    if actor.user_id is None:
        raise Unauthenticated(reason="missing")
    if not any(actor.may(enough) for enough in (scope, *others)):
        raise Forbidden(scope=scope)


def anyone() -> Any:
    """Policy: open to all. The call carries the person when there is a good token."""
    return Depends(Policy(None))


def allow(scope: str, *others: str, beside: str | None = None) -> Any:
    """Policy: who holds this scope or one of the others, and the one beside it.

    Raises Unauthenticated, Forbidden.
    """
    return Depends(ScopedPolicy(scope, *others, beside=beside))
