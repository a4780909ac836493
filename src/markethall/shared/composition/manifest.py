"""The manifest of a context: everything the composition root has to know of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlalchemy import MetaData


@dataclass(frozen=True)
class Subscription:
    """An event of another context, or of this one, and the method that handles it."""

    event_type: str
    handler: str

    @property
    def publisher(self) -> str:
        """The context that publishes it: an event type is `context.name_of_the_event`."""
        return self.event_type.partition(".")[0]


@dataclass(frozen=True, kw_only=True)
class ContextManifest:
    """Importing a manifest must stay cheap: the command line reads all of them at every start.

    `load_metadata` therefore imports SQLAlchemy only when a migration runs.
    """

    name: str
    # first segments of the public paths
    path_prefixes: tuple[str, ...]
    # a directory of Alembic revisions
    migrations: Path
    load_metadata: "Callable[[], MetaData]"
    # target context -> methods of its contract
    calls: Mapping[str, frozenset[str]] = field(default_factory=dict)
    subscriptions: tuple[Subscription, ...] = ()
    # at most one context issues the access tokens of users; all contexts read its public keys
    issues_access_tokens: bool = False
