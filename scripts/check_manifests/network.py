"""Who may talk to whom: every pair of pods, against every network policy."""

import ipaddress
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import permutations, product
from typing import Final, NamedTuple

from scripts.check_manifests.hall import NEIGHBOURS, Document, Hall, Workload, matches

PORT: Final = 8000
NAMESPACE_NAME: Final = "kubernetes.io/metadata.name"


class Port(NamedTuple):
    number: int
    protocol: str = "TCP"


class Edge(NamedTuple):
    source: str
    target: str
    port: Port

    def __str__(self) -> str:
        return f"{self.source} -> {self.target} {self.port.protocol} {self.port.number}"


@dataclass(frozen=True)
class Place:
    """A pod, or an address, as network policies see it: one end of an edge."""

    name: str
    namespace: Mapping[str, str]
    labels: Mapping[str, str]
    address: str = "10.1.1.1"
    ports: Mapping[str, int] = field(default_factory=dict)
    ours: bool = False


INGRESS, POSTGRES, REDIS, DNS = "ingress controller", "postgres", "redis", "dns"
OUTSIDE = (
    Place(INGRESS, {NAMESPACE_NAME: "ingress"}, {"app.kubernetes.io/name": "controller"}),
    Place(POSTGRES, {NAMESPACE_NAME: "data"}, {"app.kubernetes.io/name": "postgresql"}),
    Place(REDIS, {NAMESPACE_NAME: "data"}, {"app.kubernetes.io/name": "redis"}),
    Place(DNS, {NAMESPACE_NAME: "kube-system"}, {"k8s-app": "kube-dns"}),
    Place("a stranger in our namespace", {NAMESPACE_NAME: "markethall"}, {}),
    Place("a stranger elsewhere", {NAMESPACE_NAME: "default"}, {}),
    Place("the internet", {}, {}, address="203.0.113.1"),
)
PEERS = {"Egress": "to", "Ingress": "from"}
# Every pair is asked on each of these, so that a policy which opens all ports is seen.
PROBED = (Port(53, "UDP"), Port(53), Port(443), Port(5432), Port(6379), Port(PORT))


def expected_edges(hall: Hall) -> set[Edge]:
    """The whole truth: what is not here is closed."""
    edges = set[Edge]()
    for workload in hall.workloads:
        name = workload.place_name
        edges |= {
            Edge(name, DNS, Port(53, "UDP")),
            Edge(name, DNS, Port(53)),
            Edge(name, POSTGRES, Port(5432)),
        }
        if workload.kind == "Deployment":
            edges |= {Edge(INGRESS, name, Port(PORT)), Edge(name, REDIS, Port(6379))}
    return edges | {
        Edge(one.place_name, other.place_name, Port(PORT))
        for one, other in permutations(hall.deployments, 2)
        if _asks(hall.served(one), hall.served(other))
    }


def _asks(here: list[str], there: list[str]) -> bool:
    return any(NEIGHBOURS.get(context, frozenset()) & set(there) for context in here)


class Attempt(NamedTuple):
    """One pod tries to reach another; both of them may object."""

    source: Place
    target: Place
    port: Port

    def seen_from(self, direction: str) -> tuple[Place, Place]:
        """The pod whose policies are asked, and its peer."""
        return (self.source, self.target) if direction == "Egress" else (self.target, self.source)

    @property
    def edge(self) -> Edge:
        return Edge(self.source.name, self.target.name, self.port)


def check_edges(hall: Hall) -> Iterator[str]:
    places = [*(_place(workload) for workload in hall.workloads), *OUTSIDE]
    attempts = [Attempt(*each) for each in product(places, places, PROBED)]
    foreign = [
        each
        for each in attempts
        if each.source != each.target and (each.source.ours or each.target.ours)
    ]
    policies = [policy["spec"] for policy in hall.kind("NetworkPolicy")]
    opened = {
        each.edge
        for each in foreign
        if all(_admits(policies, each, direction) for direction in PEERS)
    }
    expected = expected_edges(hall)
    yield from (f"NetworkPolicy: {edge} is open" for edge in sorted(opened - expected))
    yield from (f"NetworkPolicy: {edge} is closed" for edge in sorted(expected - opened))


def _place(workload: Workload) -> Place:
    namespace = {NAMESPACE_NAME: workload.document["metadata"].get("namespace", "default")}
    return Place(workload.place_name, namespace, workload.labels, ports=workload.ports, ours=True)


def _admits(policies: list[Document], attempt: Attempt, direction: str) -> bool:
    """A pod that no policy governs in this direction admits all; else one rule must."""
    me, _ = attempt.seen_from(direction)
    mine = [policy for policy in policies if _governs(policy, me, direction)]
    rules = [rule for policy in mine for rule in policy.get(direction.lower()) or []]
    return not mine or any(_passes(rule, attempt, direction) for rule in rules)


def _governs(policy: Document, place: Place, direction: str) -> bool:
    return (
        place.ours
        and direction in policy["policyTypes"]
        and matches(policy["podSelector"], place.labels)
    )


def _passes(rule: Document, attempt: Attempt, direction: str) -> bool:
    me, other = attempt.seen_from(direction)
    peers, ports = rule.get(PEERS[direction]), rule.get("ports")
    peer_fits = not peers or any(_is_peer(peer, me, other) for peer in peers)
    return peer_fits and (not ports or any(_is_port(entry, attempt) for entry in ports))


def _is_peer(peer: Document, me: Place, other: Place) -> bool:
    if "ipBlock" in peer:
        return _in_block(peer["ipBlock"], other.address)
    if "namespaceSelector" in peer:
        near = bool(other.namespace) and matches(peer["namespaceSelector"], other.namespace)
    else:
        near = other.namespace == me.namespace
    return near and matches(peer.get("podSelector") or {}, other.labels)


def _in_block(block: Document, address: str) -> bool:
    networks = [ipaddress.ip_network(cidr) for cidr in (block["cidr"], *block.get("except", []))]
    inside, *excepted = (ipaddress.ip_address(address) in network for network in networks)
    return inside and not any(excepted)


def _is_port(entry: Document, attempt: Attempt) -> bool:
    probed = attempt.port
    if entry.get("protocol", "TCP") != probed.protocol:
        return False
    if "port" not in entry:
        return True
    first, last = entry["port"], entry.get("endPort")
    if isinstance(first, str):
        return attempt.target.ports.get(first) == probed.number
    return bool(first <= probed.number <= (last or first))
