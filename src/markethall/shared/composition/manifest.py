"""The manifest of a context: everything the composition root has to know of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markethall import __version__
from markethall.shared.composition.settings import ContextSettings

if TYPE_CHECKING:
    from sqlalchemy import MetaData

    from markethall.shared.composition.parts import ContextParts


@dataclass(frozen=True)
class Subscription:
    """An event, of this context or of another, and the method that handles it."""

    event_type: str
    handler: str

    @property
    def publisher(self) -> str:
        """The context that publishes it: an event type is `context.name_of_the_event`."""
        return self.event_type.partition(".")[0]


@dataclass(frozen=True, kw_only=True)
class ContextManifest:
    """Importing a manifest must stay cheap: the command line imports all of them at every start.

    So it loads SQLAlchemy tables, container and routers by functions, when they are needed.
    """

    name: str
    # first segments of the public paths
    path_prefixes: tuple[str, ...]
    settings: type[ContextSettings]
    load_parts: "Callable[[], ContextParts[Any]]"
    # a directory of Alembic revisions, and the tables that they create
    migrations: Path
    # x.y.z, of the distribution that contains the context; recorded by each migration
    release: str = __version__
    load_metadata: "Callable[[], MetaData]"
    # target context -> methods of its contract
    calls: Mapping[str, frozenset[str]] = field(default_factory=dict)
    subscriptions: tuple[Subscription, ...] = ()
    # public paths that take a form instead of JSON
    form_paths: frozenset[str] = frozenset()
    # names of its numbers in `/stats`
    counters: tuple[str, ...] = ()
    # exactly one context issues the access tokens of users; all contexts read its public keys
    issues_access_tokens: bool = False
