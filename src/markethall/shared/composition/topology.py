"""The relations between contexts, derived from their manifests."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from graphlib import CycleError, TopologicalSorter

from markethall.shared.composition.manifest import ContextManifest, Subscription


class InvalidManifest(Exception):
    """The manifests contradict each other; the message has one line for each problem."""


@dataclass(frozen=True)
class Topology:
    """The calls, events and paths of all contexts.

    Raises InvalidManifest if the manifests contradict each other.
    """

    manifests: Sequence[ContextManifest]

    def __post_init__(self) -> None:
        if problems := list(_problems(self.manifests)):
            raise InvalidManifest("\n".join(problems))

    @cached_property
    def contexts(self) -> Mapping[str, ContextManifest]:
        return {manifest.name: manifest for manifest in self.manifests}

    @cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(self.contexts)

    @cached_property
    def allowed_calls(self) -> Mapping[str, Mapping[str, frozenset[str]]]:
        """Map each context and each method of its contract to the contexts that may call it."""
        callers: dict[str, dict[str, frozenset[str]]] = {name: {} for name in self.names}
        for manifest in self.manifests:
            for target, methods in manifest.calls.items():
                for method in sorted(methods):
                    known = callers[target].get(method, frozenset())
                    callers[target][method] = known | {manifest.name}
        return callers

    @cached_property
    def dependencies(self) -> Mapping[str, frozenset[str]]:
        """Map each context to the contexts that it calls."""
        return {manifest.name: frozenset(manifest.calls) for manifest in self.manifests}

    @cached_property
    def callers(self) -> Mapping[str, frozenset[str]]:
        """Map each context to the contexts that call it."""
        return {
            target: frozenset(name for name in self.names if target in self.dependencies[name])
            for target in self.names
        }

    @cached_property
    def token_issuer(self) -> str:
        """Return the context that issues the access tokens of users."""
        return next(m.name for m in self.manifests if m.issues_access_tokens)

    @cached_property
    def jwks_sources(self) -> Mapping[str, frozenset[str]]:
        """Map each context to the contexts whose public keys it needs.

        These are the token issuer (it signs access tokens), the contexts that call this one (they
        sign service tokens), and the publishers of the events that it handles (they sign events).
        """
        issuer = {self.token_issuer}
        return {
            name: (self.callers[name] | issuer | set(self.publishers_of(name))) - {name}
            for name in self.names
        }

    @cached_property
    def subscriptions(self) -> Mapping[str, tuple[Subscription, ...]]:
        """Map each context to its subscriptions."""
        return {manifest.name: manifest.subscriptions for manifest in self.manifests}

    @cached_property
    def event_pairs(self) -> Sequence[tuple[str, str]]:
        """Return all pairs (publisher, subscriber) of contexts."""
        return [
            (publisher, subscriber)
            for subscriber, subscriptions in self.subscriptions.items()
            for publisher in sorted({s.publisher for s in subscriptions})
        ]

    def publishers_of(self, subscriber: str) -> Sequence[str]:
        return [publisher for publisher, name in self.event_pairs if name == subscriber]

    def event_types(self, publisher: str, subscriber: str) -> frozenset[str]:
        """Return the types of the publisher's events that the subscriber handles."""
        subscriptions = self.subscriptions[subscriber]
        return frozenset(s.event_type for s in subscriptions if s.publisher == publisher)

    def handler_keys(self, subscriber: str) -> Mapping[str, Sequence[str]]:
        """Map each event type to the names of its handlers in the subscriber's inbox."""
        keys: dict[str, list[str]] = {}
        for subscription in self.subscriptions[subscriber]:
            keys.setdefault(subscription.event_type, []).append(
                handler_key(subscriber, subscription)
            )
        return keys

    @cached_property
    def paths_by_context(self) -> Mapping[str, tuple[str, ...]]:
        return {manifest.name: manifest.path_prefixes for manifest in self.manifests}

    @cached_property
    def context_by_path(self) -> Mapping[str, str]:
        """Map the first segment of each public path to the context that serves it."""
        return {
            prefix: name for name, prefixes in self.paths_by_context.items() for prefix in prefixes
        }


def handler_key(context: str, subscription: Subscription) -> str:
    """Return the name of a handler, as used in the inbox, in logs and in metrics."""
    return f"{context}.{subscription.handler}"


def _problems(manifests: Sequence[ContextManifest]) -> Iterator[str]:
    names = {manifest.name for manifest in manifests}
    yield from _duplicates("context", (m.name for m in manifests))
    yield from _duplicates("counter", (counter for m in manifests for counter in m.counters))
    yield from _duplicates("path", (f"/{p}" for m in manifests for p in m.path_prefixes))
    if sum(m.issues_access_tokens for m in manifests) != 1:
        yield "exactly one context must issue access tokens"
    try:
        TopologicalSorter({m.name: m.calls.keys() for m in manifests}).prepare()
    except CycleError as error:
        yield f"contexts call each other in a circle: {' -> '.join(error.args[1])}"
    for manifest in manifests:
        for target in sorted(set(manifest.calls) - names):
            yield f"{manifest.name} calls {target}, which is not installed"
        for subscription in manifest.subscriptions:
            if subscription.publisher not in names:
                yield (
                    f"{manifest.name} subscribes to {subscription.event_type}, "
                    f"but {subscription.publisher} is not installed"
                )
        yield from _duplicates(
            f"handler of {manifest.name}", (s.handler for s in manifest.subscriptions)
        )


def _duplicates(kind: str, values: Iterable[str]) -> Iterator[str]:
    for value, count in Counter(values).items():
        if count > 1:
            yield f"{kind} {value} is declared {count} times"
