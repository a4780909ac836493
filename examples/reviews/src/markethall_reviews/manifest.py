"""The manifest of reviews. The entry point in pyproject.toml refers to it."""

from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Final

from markethall.shared.composition.manifest import ContextManifest, Subscription
from markethall.shared.composition.settings import ContextSettings

if TYPE_CHECKING:
    from sqlalchemy import MetaData

    from markethall.shared.composition.parts import ContextParts
    from markethall_reviews.container import ReviewsContainer


def _load_parts() -> "ContextParts[ReviewsContainer]":
    from markethall.shared.composition.parts import ContextParts, InternalApi
    from markethall_reviews.container import ReviewsContainer
    from markethall_reviews.contract import Ratings
    from markethall_reviews.remote import GuardedRatings, RemoteRatings, routes
    from markethall_reviews.router import router

    internal_api: InternalApi[ReviewsContainer, Ratings] = InternalApi(
        routes=routes,
        local=lambda container: container.ratings(),
        remote=RemoteRatings,
        guarded=GuardedRatings,
    )
    return ContextParts(ReviewsContainer, router, internal_api)


def _load_metadata() -> "MetaData":
    from markethall_reviews.sql import metadata

    return metadata


MANIFEST: Final = ContextManifest(
    name="reviews",
    path_prefixes=("reviews",),
    settings=ContextSettings,
    load_parts=_load_parts,
    migrations=Path(__file__).parent / "migrations",
    release=version("markethall-reviews"),
    load_metadata=_load_metadata,
    tags={"reviews": "Reviews of products by their buyers."},
    counters=("review_count",),
    calls={"users": frozenset({"get_active_customer"})},
    subscriptions=(
        Subscription("orders.order_placed", "on_order_placed"),
        Subscription("orders.order_fulfilled", "on_order_fulfilled"),
        Subscription("orders.order_completed", "on_order_completed"),
    ),
)
