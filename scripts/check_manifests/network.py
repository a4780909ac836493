"""Checks that the network policies allow exactly the expected connections."""

import ipaddress
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import permutations, product
from typing import Final, NamedTuple

from scripts.check_manifests.manifests import COMPONENT, Document, Manifests, Workload, matches
from scripts.check_manifests.topology import NEEDED

_NAMESPACE: Final = "kubernetes.io/metadata.name"
_PEERS: Final = {"Egress": "to", "Ingress": "from"}


class Port(NamedTuple):
    number: int
    protocol: str = "TCP"


@dataclass(frozen=True)
class Endpoint:
    """A pod or an external address, with the properties that network policies select by."""

    name: str
    namespace: str
    labels: Mapping[str, str]
    address: str = "10.1.1.1"
    ports: Mapping[str, int] = field(default_factory=dict)
    is_ours: bool = False


class Connection(NamedTuple):
    source: Endpoint
    target: Endpoint
    port: Port

    def __str__(self) -> str:
        return f"{self.source.name} -> {self.target.name} {self.port.protocol} {self.port.number}"


HTTP, METRICS, DNS_UDP, DNS_TCP = Port(8000), Port(9464), Port(53, "UDP"), Port(53)
INGRESS = Endpoint("ingress controller", "ingress", {"app.kubernetes.io/name": "controller"})
PROMETHEUS = Endpoint("prometheus", "monitoring", {"app.kubernetes.io/name": "prometheus"})
POSTGRES = Endpoint("postgres", "data", {"app.kubernetes.io/name": "postgresql"})
REDIS = Endpoint("redis", "data", {"app.kubernetes.io/name": "redis"})
DNS = Endpoint("dns", "kube-system", {"k8s-app": "kube-dns"})
UNRELATED = (
    Endpoint("an unrelated pod in our namespace", "markethall", {}),
    Endpoint("an unrelated pod in another namespace", "default", {}),
    Endpoint("the internet", "", {}, address="203.0.113.1"),
)
# Every connection is checked on each of these ports, so that a policy that opens all ports is
# found.
CHECKED_PORTS: Final = (DNS_UDP, DNS_TCP, Port(443), Port(5432), Port(6379), HTTP, METRICS)


def check_edges(manifests: Manifests) -> Iterator[str]:
    ours = [(workload, _endpoint(workload)) for workload in manifests.workloads]
    others = (INGRESS, PROMETHEUS, POSTGRES, REDIS, DNS, *UNRELATED)
    endpoints = [*(endpoint for _, endpoint in ours), *others]
    policies = [policy["spec"] for policy in manifests.kind("NetworkPolicy")]
    allowed = {
        str(connection)
        for connection in map(Connection._make, product(endpoints, endpoints, CHECKED_PORTS))
        if connection.source != connection.target
        and (connection.source.is_ours or connection.target.is_ours)
        and all(_allows(policies, connection, direction) for direction in _PEERS)
    }
    expected = {str(connection) for connection in _expected(manifests, ours)}
    yield from (f"NetworkPolicy: {each} is open" for each in sorted(allowed - expected))
    yield from (f"NetworkPolicy: {each} is closed" for each in sorted(expected - allowed))


def _endpoint(workload: Workload) -> Endpoint:
    component = workload.labels.get(COMPONENT, "")
    name = (
        component if workload.kind == "Deployment" else f"{component}/{workload.labels.get('task')}"
    )
    namespace = workload.document["metadata"].get("namespace", "default")
    return Endpoint(name, namespace, workload.labels, ports=workload.ports, is_ours=True)


def _expected(manifests: Manifests, ours: list[tuple[Workload, Endpoint]]) -> Iterator[Connection]:
    """Yield the connections that must be open; every other connection must be closed."""
    for workload, endpoint in ours:
        yield Connection(endpoint, DNS, DNS_UDP)
        yield Connection(endpoint, DNS, DNS_TCP)
        yield Connection(endpoint, POSTGRES, Port(5432))
        if workload.kind == "Deployment":
            yield Connection(INGRESS, endpoint, HTTP)
            yield Connection(PROMETHEUS, endpoint, METRICS)
            yield Connection(endpoint, REDIS, Port(6379))
    serving = [each for each in ours if each[0].kind == "Deployment"]
    for (one, source), (other, target) in permutations(serving, 2):
        needed = {c for context in manifests.served(one) for c in NEEDED.get(context, frozenset())}
        if needed & set(manifests.served(other)):
            yield Connection(source, target, HTTP)


def _allows(policies: list[Document], connection: Connection, direction: str) -> bool:
    """Tell whether the policies allow the connection in this direction.

    If no policy selects the pod, everything is allowed; otherwise one rule must allow it.
    """
    pod = connection.source if direction == "Egress" else connection.target
    governing = [
        policy
        for policy in policies
        if pod.is_ours
        and direction in policy["policyTypes"]
        and matches(policy["podSelector"], pod.labels)
    ]
    rules = [rule for policy in governing for rule in policy.get(direction.lower()) or []]
    return not governing or any(_rule_allows(rule, connection, direction) for rule in rules)


def _rule_allows(rule: Document, connection: Connection, direction: str) -> bool:
    pod, peer = connection.source, connection.target
    if direction == "Ingress":
        pod, peer = peer, pod
    peers, ports = rule.get(_PEERS[direction]), rule.get("ports")
    is_peer = not peers or any(_is_peer(each, pod, peer) for each in peers)
    return is_peer and (not ports or any(_is_port(each, connection) for each in ports))


def _is_peer(entry: Document, pod: Endpoint, peer: Endpoint) -> bool:
    if block := entry.get("ipBlock"):
        address = ipaddress.ip_address(peer.address)
        excluded = [ipaddress.ip_network(cidr) for cidr in block.get("except", [])]
        inside = address in ipaddress.ip_network(block["cidr"])
        return inside and not any(address in network for network in excluded)
    if "namespaceSelector" in entry:
        labels = {_NAMESPACE: peer.namespace}
        is_near = bool(peer.namespace) and matches(entry["namespaceSelector"], labels)
    else:
        is_near = peer.namespace == pod.namespace
    return is_near and matches(entry.get("podSelector") or {}, peer.labels)


def _is_port(entry: Document, connection: Connection) -> bool:
    tried, first = connection.port, entry.get("port", 0)
    if entry.get("protocol", "TCP") != tried.protocol:
        return False
    if isinstance(first, str):
        return connection.target.ports.get(first) == tried.number
    last: int = entry.get("endPort") or first
    return not first or first <= tried.number <= last
