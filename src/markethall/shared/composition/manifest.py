"""The manifest of a context: everything that the composition root needs to know about it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from markethall import __version__
from markethall.shared.composition.settings import ContextSettings
from markethall.shared.messaging.events import publisher_of

if TYPE_CHECKING:
    from pydantic_settings import BaseSettings
    from sqlalchemy import MetaData

    from markethall.shared.composition.parts import ContextParts

_PACKAGE: Final = Path(__file__).parents[2]


@dataclass(frozen=True)
class Subscription:
    """A type of event and the method that handles it; any context may publish the event."""

    event_type: str
    handler: str

    @property
    def publisher(self) -> str:
        return publisher_of(self.event_type)


@dataclass(frozen=True, kw_only=True)
class ContextManifest:
    """Describes one context.

    The command line imports all manifests at every start, so an import must be fast. Therefore a
    manifest has functions that import the tables, the container and the routers when needed.
    """

    name: str
    # first segments of the public paths
    path_prefixes: tuple[str, ...]
    settings: type[ContextSettings]
    # returns the settings classes of all installed extensions, such as payment providers
    load_extension_settings: "Callable[[], tuple[type[BaseSettings], ...]]" = tuple
    load_parts: "Callable[[], ContextParts[Any]]"
    # the directory of the Alembic revisions; `load_metadata` returns the tables that they create
    migrations: Path
    # the version (x.y.z) of the package that contains the context; each migration records it
    release: str = __version__
    load_metadata: "Callable[[], MetaData]"
    # maps a context to the methods of its contract that this context calls
    calls: Mapping[str, frozenset[str]] = field(default_factory=dict)
    subscriptions: tuple[Subscription, ...] = ()
    # public paths that take a form instead of JSON
    form_paths: frozenset[str] = frozenset()
    # maps a path to the query parameters that turn a GET into a search; searches have a lower
    # concurrency limit than other reads
    search_parameters: Mapping[str, frozenset[str]] = field(default_factory=dict)
    # maps a path to the query parameters that make a search count facets; these searches have an
    # even lower limit
    facet_parameters: Mapping[str, frozenset[str]] = field(default_factory=dict)
    # Maps a path to the query parameters that may be repeated. A name that ends with a dot is a
    # prefix of such parameters. Other repeated parameters are rejected.
    repeatable_parameters: Mapping[str, frozenset[str]] = field(default_factory=dict)
    # regular expressions of the public paths whose responses are streamed for a long time; these
    # requests have a concurrency limit of their own
    long_paths: tuple[str, ...] = ()
    # describes each tag of the routers, for the OpenAPI document
    tags: Mapping[str, str] = field(default_factory=dict)
    # the names under which `/stats` shows the counts of this context
    counters: tuple[str, ...] = ()
    # exactly one context issues the access tokens of users; all contexts read its public keys
    issues_access_tokens: bool = False

    @property
    def settings_classes(self) -> "tuple[type[BaseSettings], ...]":
        """Return the classes of all settings that the context and its extensions may read."""
        return (self.settings, *self.load_extension_settings())


def alembic_ini_path() -> Path:
    candidates = (_PACKAGE.parents[1] / "alembic.ini", _PACKAGE / "alembic.ini")
    return next(path for path in candidates if path.exists())


def built_in_migrations(context: str) -> Path:
    """Return the directory with the revisions of a built-in context."""
    return alembic_ini_path().parent / "migrations" / context
