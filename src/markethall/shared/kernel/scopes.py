"""Scopes of access tokens, and the roles that grant them."""

from typing import Final

PROFILE: Final = "profile"
ORDERS: Final = "orders"
# only order tokens have this scope; no role grants it
ONE_ORDER: Final = "orders:one"
PAYMENTS: Final = "payments"
CATALOGUE_WRITE: Final = "catalogue:write"
STOCK_WRITE: Final = "stock:write"
ORDERS_MANAGE: Final = "orders:manage"
SHOP_MANAGE: Final = "shop:manage"
PAYMENTS_MANAGE: Final = "payments:manage"
STATS_READ: Final = "stats:read"
USERS_MANAGE: Final = "users:manage"
INTEGRITY_READ: Final = "integrity:read"

CUSTOMER_SCOPES: Final = frozenset({PROFILE, ORDERS, PAYMENTS})
# these give access to the caller's own data; every other scope is a staff scope
OWNER_SCOPES: Final = CUSTOMER_SCOPES | {ONE_ORDER}
# without `profile`, because a guest has no account
GUEST_SCOPES: Final = frozenset({ORDERS, PAYMENTS})
_CATALOGUE_SCOPES = {CATALOGUE_WRITE, STOCK_WRITE, STATS_READ}
_ORDERS_SCOPES = {ORDERS_MANAGE, STATS_READ}
_PAYMENTS_SCOPES = {PAYMENTS_MANAGE, STATS_READ}
_STAFF_SCOPES = _CATALOGUE_SCOPES | _ORDERS_SCOPES | _PAYMENTS_SCOPES

SCOPES_BY_ROLE: Final[dict[str, set[str]]] = {
    "customer": set(CUSTOMER_SCOPES),
    "staff:catalogue": _CATALOGUE_SCOPES,
    "staff:orders": _ORDERS_SCOPES,
    "staff:payments": _PAYMENTS_SCOPES,
    "staff": _STAFF_SCOPES,
    "admin": _STAFF_SCOPES | {SHOP_MANAGE, USERS_MANAGE, INTEGRITY_READ},
}
SCOPE_DESCRIPTIONS: Final[dict[str, str]] = {
    PROFILE: "read and change one's own account",
    ORDERS: "place and see one's own orders",
    ONE_ORDER: "see, pay, cancel and return the one order of an order token",
    PAYMENTS: "pay for one's own orders",
    CATALOGUE_WRITE: "change products",
    STOCK_WRITE: "see and change stock",
    ORDERS_MANAGE: "see and serve all orders",
    SHOP_MANAGE: "change the settings of the shop",
    PAYMENTS_MANAGE: "see all payments, refund",
    STATS_READ: "read counts",
    USERS_MANAGE: "see all users, change roles",
    INTEGRITY_READ: "check the integrity of the data",
}


def scopes_for_roles(roles: tuple[str, ...]) -> frozenset[str]:
    """Return the union of the scopes of these roles; an unknown role grants nothing."""
    return frozenset(scope for role in roles for scope in SCOPES_BY_ROLE.get(role, ()))
