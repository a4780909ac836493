"""Who there is, who may call whom, whose path is whose: tables and nothing else.

The network policies, the documents, the settings and the checks of every call are made from these.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final


class Context(StrEnum):
    USERS = "users"
    INVENTORY = "inventory"
    ORDERS = "orders"
    PAYMENTS = "payments"


# the allow-list: who may call which method of which contract, in process and over the wire
ALLOWED_CALLS: Final[Mapping[Context, Mapping[str, frozenset[Context]]]] = {
    Context.USERS: {
        "get_active_customer": frozenset({Context.ORDERS}),
    },
    Context.INVENTORY: {
        "reserve": frozenset({Context.ORDERS}),
        "extend": frozenset({Context.ORDERS}),
        "commit": frozenset({Context.ORDERS}),
        "consume": frozenset({Context.ORDERS}),
        "release_part": frozenset({Context.ORDERS}),
        "release": frozenset({Context.ORDERS}),
    },
    Context.ORDERS: {},
    Context.PAYMENTS: {
        "open": frozenset({Context.ORDERS}),
        "cancel": frozenset({Context.ORDERS}),
        "refund": frozenset({Context.ORDERS}),
    },
}

# whom a context calls through a contract
DEPENDENCIES: Final[Mapping[Context, frozenset[Context]]] = {
    caller: frozenset(
        target
        for target, methods in ALLOWED_CALLS.items()
        if any(caller in callers for callers in methods.values())
    )
    for caller in Context
}

# whose public keys a context reads: those of users for the tokens of people, and those of its
# callers for the tokens of services
JWKS_SOURCES: Final[Mapping[Context, frozenset[Context]]] = {
    reader: frozenset(
        {Context.USERS, *(caller for caller in Context if reader in DEPENDENCIES[caller])}
        - {reader}
    )
    for reader in Context
}

# who hears of whose events; the events themselves are in EVENT_SUBSCRIPTIONS of the root container
SUBSCRIPTIONS: Final[Mapping[Context, frozenset[Context]]] = {
    Context.USERS: frozenset(),
    Context.INVENTORY: frozenset(),
    Context.ORDERS: frozenset({Context.ORDERS, Context.PAYMENTS}),
    Context.PAYMENTS: frozenset(),
}

# whose path is it: the first segment decides, for the access log, the Ingress and any front
PATHS_BY_CONTEXT: Final[Mapping[Context, tuple[str, ...]]] = {
    Context.USERS: (
        "users",
        "token",
        ".well-known",
        "password-resets",
        "api-keys",
        "audit-log",
    ),
    Context.INVENTORY: (
        "products",
        "categories",
        "families",
        "warehouses",
        "stock-transfers",
        "stocktakes",
        "imports",
        "exports",
        "reservations",
    ),
    Context.ORDERS: (
        "orders",
        "carts",
        "fulfilments",
        "returns",
        "vouchers",
        "events",
        "webhooks",
    ),
    Context.PAYMENTS: ("payments", "transactions", "ledger"),
}
CONTEXT_BY_PATH: Final[Mapping[str, Context]] = {
    segment: context for context, owned in PATHS_BY_CONTEXT.items() for segment in owned
}
