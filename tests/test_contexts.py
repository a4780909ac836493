"""Test that contradictory context manifests are rejected, with one line for each problem."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from markethall.contexts import BUILT_IN_CONTEXTS, context_names, topology
from markethall.shared.composition.manifest import ContextManifest, Subscription
from markethall.shared.composition.topology import InvalidManifest, Topology

USERS, INVENTORY, ORDERS, PAYMENTS = BUILT_IN_CONTEXTS
CALL = frozenset({"call"})


def changed(manifest: ContextManifest, **changes: Any) -> list[ContextManifest]:
    return [replace(each, **changes) if each is manifest else each for each in BUILT_IN_CONTEXTS]


def additional(**changes: Any) -> list[ContextManifest]:
    manifest = replace(
        INVENTORY, name="reviews", path_prefixes=("reviews",), counters=("review_count",)
    )
    return [*BUILT_IN_CONTEXTS, replace(manifest, **changes)]


PROBLEMS: dict[str, Callable[[], list[ContextManifest]]] = {
    "context users is declared 2 times": lambda: additional(name="users"),
    "path /orders is declared 2 times": lambda: additional(path_prefixes=("orders",)),
    "counter user_count is declared 2 times": lambda: additional(counters=("user_count",)),
    "exactly one context must issue access tokens": lambda: changed(
        USERS, issues_access_tokens=False
    ),
    "payments calls stores, which is not installed": lambda: changed(
        PAYMENTS, calls={"stores": CALL}
    ),
    "contexts call each other in a circle: users -> orders -> users": lambda: changed(
        USERS, calls={"orders": CALL}
    ),
    "payments subscribes to stores.opened, but stores is not installed": lambda: changed(
        PAYMENTS, subscriptions=(Subscription("stores.opened", "on_opened"),)
    ),
    "handler of payments on_paid is declared 2 times": lambda: changed(
        PAYMENTS,
        subscriptions=(
            Subscription("orders.order_paid", "on_paid"),
            Subscription("orders.order_placed", "on_paid"),
        ),
    ),
}


@pytest.mark.parametrize("problem", PROBLEMS)
def test_manifests_that_do_not_fit_are_rejected(problem: str) -> None:
    with pytest.raises(InvalidManifest) as error:
        Topology(PROBLEMS[problem]())

    assert problem in str(error.value).splitlines()


def test_additional_context_extends_the_relations() -> None:
    extended = Topology(additional(calls={"users": CALL}))

    assert extended.allowed_calls["users"] == {
        **topology().allowed_calls["users"],
        "call": {"reviews"},
    }
    assert extended.jwks_sources["users"] == {"orders", "reviews"}
    assert extended.context_by_path["reviews"] == "reviews"


def test_built_in_contexts_come_first() -> None:
    assert context_names()[:4] == ("users", "inventory", "orders", "payments")
