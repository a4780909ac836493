"""Can the deployment that `kubectl kustomize` rendered work, and does it open only what it must?

    python scripts/check_manifests.py RENDERED.yaml...

Each file is one rendered overlay. Schemas are checked strictly, against the oldest and the newest
Kubernetes promised. The rest is what a schema cannot see: that names meet their objects, selectors
their pods, ports their containers, network policies the intended edges and Ingress paths their
owners. Exit code 1 when anything is found.
"""

import ipaddress
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import kubernetes_validate
import yaml

Document = dict[str, Any]

KUBERNETES = ("1.34", "1.37")
PORT = 8000
COMPONENT = "app.kubernetes.io/component"
NAMESPACE_NAME = "kubernetes.io/metadata.name"
PROBES = {"startupProbe": "/health", "livenessProbe": "/health", "readinessProbe": "/ready"}
SLOWEST_STOP_SECONDS = 20

OWNED_PATHS = {
    "users": ["/users", "/token", "/.well-known", "/password-resets", "/api-keys", "/audit-log"],
    "inventory": [
        *("/products", "/categories", "/warehouses", "/stock-transfers"),
        *("/imports", "/exports", "/reservations"),
    ],
    "orders": [
        "/orders",
        "/carts",
        "/fulfilments",
        "/returns",
        "/vouchers",
        "/events",
        "/webhooks",
    ],
    "payments": ["/payments", "/transactions", "/ledger"],
}
NEIGHBOURS = {
    "users": set[str](),
    "inventory": {"users"},
    "orders": {"users", "inventory", "payments"},
    "payments": {"users"},
}
# Made by hand, docs/deployment.md says how: name -> keys.
KNOWN_SECRETS = {
    "database": {"url"},
    **{f"database-{context}": {"url"} for context in OWNED_PATHS},
    "redis": {"url"},
    "application": {"secret", "signing-key"},
    "admin": {"email", "password"},
    "tls": {"tls.crt", "tls.key"},
}
DATABASE_URL = "MARKETHALL_DATABASE_URL"
SIGNING_KEY = "MARKETHALL_SIGNING_KEY"
RESTRICTED_VOLUMES = {
    *("configMap", "csi", "downwardAPI", "emptyDir"),
    *("ephemeral", "persistentVolumeClaim", "projected", "secret"),
}
KIND_OF_REFERENCE = {
    "configMapRef": "ConfigMap",
    "configMapKeyRef": "ConfigMap",
    "secretRef": "Secret",
    "secretKeyRef": "Secret",
}
REQUIRED_SECRETS = {DATABASE_URL, "MARKETHALL_REDIS_URL", "MARKETHALL_SECRET"}


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


@dataclass(frozen=True)
class Workload:
    """A Deployment or a Job with the pod it makes."""

    document: Document

    @property
    def kind(self) -> str:
        return str(self.document["kind"])

    @property
    def name(self) -> str:
        return str(self.document["metadata"]["name"])

    @property
    def labels(self) -> dict[str, str]:
        return self.document["spec"]["template"]["metadata"].get("labels") or {}

    @property
    def pod(self) -> Document:
        pod: Document = self.document["spec"]["template"]["spec"]
        return pod

    @property
    def containers(self) -> list[Document]:
        return [*self.pod.get("initContainers", []), *self.pod["containers"]]

    @property
    def variables(self) -> list[Document]:
        return [variable for container in self.containers for variable in container.get("env", [])]

    @property
    def ports(self) -> dict[str, int]:
        """Port by name; a port without a name goes by its number."""
        declared = [port for container in self.containers for port in container.get("ports", [])]
        numbers = [(port, port["containerPort"]) for port in declared]
        return {str(port.get("name", number)): number for port, number in numbers}

    @property
    def place_name(self) -> str:
        component = self.labels.get(COMPONENT, self.name)
        return component if self.kind == "Deployment" else f"{component}/migrate"


class Reference(NamedTuple):
    kind: str
    name: str
    key: str | None = None  # None: all keys


def references(workload: Workload) -> Iterator[Reference]:
    """Every config map and secret the pod reads."""
    whole = [source for each in workload.containers for source in each.get("envFrom", [])]
    single = [variable.get("valueFrom", {}) for variable in workload.variables]
    for source in (*whole, *single):
        for word, reference in source.items():
            if word in KIND_OF_REFERENCE:
                yield Reference(KIND_OF_REFERENCE[word], reference["name"], reference.get("key"))
    for volume in workload.pod.get("volumes", []):
        if "configMap" in volume:
            yield Reference("ConfigMap", volume["configMap"]["name"])
        if "secret" in volume:
            yield Reference("Secret", volume["secret"]["secretName"])


class Hall:
    """The rendered documents of one overlay, and the questions the checks ask of them."""

    def __init__(self, documents: Iterable[Document]) -> None:
        self.documents = [document for document in documents if document]

    def kind(self, *kinds: str) -> list[Document]:
        return [document for document in self.documents if document["kind"] in kinds]

    def named(self, kind: str, name: str) -> Document | None:
        return next((each for each in self.kind(kind) if each["metadata"]["name"] == name), None)

    @cached_property
    def workloads(self) -> list[Workload]:
        return [Workload(document) for document in self.kind("Deployment", "Job")]

    @cached_property
    def deployments(self) -> list[Workload]:
        return [workload for workload in self.workloads if workload.kind == "Deployment"]

    def behind(self, service: Document) -> list[Workload]:
        return [workload for workload in self.workloads if _fronts(service, workload)]

    def settings(self, workload: Workload) -> dict[str, str]:
        """What the workload reads from config maps by envFrom."""
        whole = [each for each in references(workload) if each.kind == "ConfigMap" and not each.key]
        maps = [self.named("ConfigMap", each.name) or {} for each in whole]
        return {key: value for each in maps for key, value in each.get("data", {}).items()}

    def served(self, workload: Workload) -> list[str]:
        value = self.settings(workload).get("MARKETHALL_SERVE", ",".join(OWNED_PATHS))
        served: list[str] = json.loads(value) if value.startswith("[") else value.split(",")
        return served


Check = Callable[[Hall], Iterator[str]]


def findings(documents: Iterable[Document]) -> list[str]:
    """Everything wrong with one rendered overlay; only what schemas find, if they do."""
    hall = Hall(documents)
    # The other checks take the shape for granted, so it must be right first.
    return list(check_schemas(hall)) or [finding for check in CHECKS for finding in check(hall)]


def title(document: Document) -> str:
    return f"{document['kind']}/{document['metadata']['name']}"


# --- every object for itself


def check_schemas(hall: Hall) -> Iterator[str]:
    for document, version in product(hall.documents, KUBERNETES):
        fault = _schema_fault(json.dumps(document, default=str), version)
        if fault:
            yield f"{title(document)}: Kubernetes {version} {fault}"


@cache  # by content, because the tests check the same documents again and again
def _schema_fault(document_json: str, version: str) -> str | None:
    document = json.loads(document_json)
    try:
        kubernetes_validate.validate(document, version, strict=True)
    except kubernetes_validate.SchemaNotFoundError:
        return f"has no {document['apiVersion']} {document['kind']}"
    except kubernetes_validate.ValidationError as error:
        where = ".".join(str(step) for step in error.path)
        return f"schema: {where}: {error.message[:150]}"
    return None


def check_namespaces(hall: Hall) -> Iterator[str]:
    for document in hall.documents:
        metadata = document["metadata"]
        if document["kind"] == "Namespace":
            if metadata.get("labels", {}).get("pod-security.kubernetes.io/enforce") != "restricted":
                yield f"{title(document)}: does not enforce Pod Security restricted"
        elif not hall.named("Namespace", metadata.get("namespace", "default")):
            yield f"{title(document)}: its namespace is not in the rendering"


def check_kinds(hall: Hall) -> Iterator[str]:
    for document in hall.kind("Pod", "ReplicaSet", "StatefulSet", "DaemonSet", "CronJob"):
        yield f"{title(document)}: pods of this kind are not checked; teach Workload about them"


def check_names(hall: Hall) -> Iterator[str]:
    for name, count in Counter(title(document) for document in hall.documents).items():
        if count > 1:
            yield f"{name}: {count} objects have this name"


# --- selectors meet pods


def matches(selector: Document, labels: Mapping[str, str]) -> bool:
    """The label selector of Kubernetes; an empty one matches everything."""
    equal = (selector.get("matchLabels") or {}).items() <= labels.items()
    return equal and all(_holds(each, labels) for each in selector.get("matchExpressions") or [])


def _holds(expression: Document, labels: Mapping[str, str]) -> bool:
    value, values = labels.get(expression["key"]), expression.get("values", [])
    verdicts = {
        "In": value in values,
        "NotIn": value not in values,
        "Exists": value is not None,
        "DoesNotExist": value is None,
    }
    return verdicts[expression["operator"]]


def check_own_pods(hall: Hall) -> Iterator[str]:
    for workload in hall.deployments:
        if not matches(workload.document["spec"]["selector"], workload.labels):
            yield f"{title(workload.document)}: selector does not match its own pods"
        for constraint in workload.pod.get("topologySpreadConstraints", []):
            if not matches(constraint["labelSelector"], workload.labels):
                yield f"{title(workload.document)}: topology spread does not match its own pods"
        if not workload.pod.get("topologySpreadConstraints"):
            yield f"{title(workload.document)}: no topology spread"


def check_services(hall: Hall) -> Iterator[str]:
    for service in hall.kind("Service"):
        pods = hall.behind(service)
        if len(pods) != 1 or pods[0].kind != "Deployment":
            yield f"{title(service)}: selector matches {_titles(pods)}, not one Deployment"
            continue
        for port in service["spec"]["ports"]:
            target = str(port.get("targetPort", port["port"]))
            if target not in pods[0].ports and target not in map(str, pods[0].ports.values()):
                yield f"{title(service)}: target port {target} is no port of {pods[0].name}"


def check_policies_match(hall: Hall) -> Iterator[str]:
    for policy in hall.kind("NetworkPolicy"):
        selector = policy["spec"]["podSelector"]
        if not any(matches(selector, workload.labels) for workload in hall.workloads):
            yield f"{title(policy)}: selector matches no pod"


def check_disruption(hall: Hall) -> Iterator[str]:
    for budget in hall.kind("PodDisruptionBudget"):
        spec = budget["spec"]
        pods = [each for each in hall.workloads if _guards(budget, each)]
        if len(spec.keys() & {"minAvailable", "maxUnavailable"}) != 1:
            yield f"{title(budget)}: give exactly one of minAvailable and maxUnavailable"
        elif len(pods) != 1 or pods[0].kind != "Deployment":
            yield f"{title(budget)}: selector matches {_titles(pods)}, not one Deployment"
        elif not _may_evict(spec, _fewest_pods(hall, pods[0])):
            yield f"{title(budget)}: would block every drain"


def _titles(workloads: list[Workload]) -> str:
    return " and ".join(title(workload.document) for workload in workloads) or "no pod"


def _fewest_pods(hall: Hall, workload: Workload) -> int:
    scalers = [each for each in hall.kind("HorizontalPodAutoscaler") if _scales(each, workload)]
    least = [int(each["spec"].get("minReplicas", 1)) for each in scalers]
    return min([*least, int(workload.document["spec"].get("replicas", 1))])


def _may_evict(spec: Document, pods: int) -> bool:
    """Percentages are rounded up, as the disruption controller does."""
    if "maxUnavailable" in spec:
        return _share(spec["maxUnavailable"], pods) > 0
    return _share(spec["minAvailable"], pods) < pods


def _share(amount: int | str, pods: int) -> int:
    return -(-int(amount[:-1]) * pods // 100) if isinstance(amount, str) else amount


# --- targets and references exist


def _scales(scaler: Document, workload: Workload) -> bool:
    target = scaler["spec"]["scaleTargetRef"]
    return (target["kind"], target["name"]) == (workload.kind, workload.name)


def check_scalers(hall: Hall) -> Iterator[str]:
    for scaler in hall.kind("HorizontalPodAutoscaler"):
        spec = scaler["spec"]
        if not any(_scales(scaler, workload) for workload in hall.workloads):
            yield f"{title(scaler)}: target {spec['scaleTargetRef']['name']} does not exist"
        if spec.get("minReplicas", 1) > spec["maxReplicas"]:
            yield f"{title(scaler)}: more pods at least than at most"


def check_completeness(hall: Hall) -> Iterator[str]:
    """Each Deployment has a Service, a scaler, a budget, and a Job that migrates what it serves."""
    for workload in hall.deployments:
        scalers, budgets = hall.kind("HorizontalPodAutoscaler"), hall.kind("PodDisruptionBudget")
        owned = {
            "Service": sum(_fronts(each, workload) for each in hall.kind("Service")),
            "scaler": sum(_scales(each, workload) for each in scalers),
            "budget": sum(_guards(each, workload) for each in budgets),
            "migrate Job": sum(_migrates(hall, each, workload) for each in hall.workloads),
        }
        for kind, count in owned.items():
            if count != 1:
                yield f"{title(workload.document)}: has {count} {kind}, not one"


def _fronts(service: Document, workload: Workload) -> bool:
    return matches({"matchLabels": service["spec"]["selector"]}, workload.labels)


def _guards(budget: Document, workload: Workload) -> bool:
    return matches(budget["spec"]["selector"], workload.labels)


def _migrates(hall: Hall, job: Workload, workload: Workload) -> bool:
    same_contexts = hall.served(job) == hall.served(workload)
    return job.kind == "Job" and same_contexts and _database(job) == _database(workload)


def check_references(hall: Hall) -> Iterator[str]:
    for workload in hall.workloads:
        where, account = title(workload.document), workload.pod.get("serviceAccountName", "default")
        if not hall.named("ServiceAccount", account):
            yield f"{where}: service account {account} does not exist"
        for kind, name, key in references(workload):
            known = _known_keys(hall, kind, name)
            if known is None:
                yield f"{where}: {kind} {name} does not exist"
            elif key is not None and key not in known:
                yield f"{where}: {kind} {name} has no key {key}"
        volumes = {volume["name"] for volume in workload.pod.get("volumes", [])}
        mounts = [mount for each in workload.containers for mount in each.get("volumeMounts", [])]
        for name in sorted({mount["name"] for mount in mounts} - volumes):
            yield f"{where}: volume {name} does not exist"


def _known_keys(hall: Hall, kind: str, name: str) -> set[str] | None:
    if kind == "Secret":
        return KNOWN_SECRETS.get(name)
    found = hall.named(kind, name)
    return set(found.get("data", {})) if found else None


def check_secrets(hall: Hall) -> Iterator[str]:
    """In production a missing secret stops the start; one too many is a risk for nothing."""
    for workload in hall.workloads:
        needed = REQUIRED_SECRETS | ({SIGNING_KEY} if "users" in hall.served(workload) else set())
        given = {each["name"] for each in workload.variables if not _secret(each).get("optional")}
        for variable in sorted(needed - given):
            yield f"{title(workload.document)}: {variable} is not given"
        if SIGNING_KEY in given - needed:
            yield f"{title(workload.document)}: does not serve users, but may sign tokens"
    for database, count in Counter(_database(workload) for workload in hall.deployments).items():
        if count > 1:
            yield f"Secret {database}: {count} Deployments share one database"


def _secret(variable: Document) -> Document:
    reference: Document = variable.get("valueFrom", {}).get("secretKeyRef", {})
    return reference


def _database(workload: Workload) -> str | None:
    urls = [each for each in workload.variables if each["name"] == DATABASE_URL]
    return _secret(urls[0]).get("name") if urls else None


def check_contexts(hall: Hall) -> Iterator[str]:
    """Each context is served by one Deployment, which finds its neighbours here or there."""
    serving = Counter(context for workload in hall.deployments for context in hall.served(workload))
    for context in sorted(OWNED_PATHS.keys() | serving.keys()):
        if serving[context] != 1 or context not in OWNED_PATHS:
            yield f"context {context}: served by {serving[context]} Deployments"
    for workload in hall.deployments:
        where, served = title(workload.document), set(hall.served(workload))
        remotes = json.loads(hall.settings(workload).get("MARKETHALL_REMOTES", "{}"))
        needed = set().union(*(NEIGHBOURS.get(context, set()) for context in served)) - served
        if remotes.keys() != needed:
            yield f"{where}: remotes {sorted(remotes)}, but it calls {sorted(needed)}"
        for context, url in remotes.items():
            if not _reaches(hall, url, context):
                yield f"{where}: remote {context} at {url} is no Service of that context"


def _reaches(hall: Hall, url: str, context: str) -> bool:
    address = urlsplit(url)
    service = hall.named("Service", address.hostname or "")
    if not service or address.port not in [port["port"] for port in service["spec"]["ports"]]:
        return False
    return any(context in hall.served(workload) for workload in hall.behind(service))


def check_ingress(hall: Hall) -> Iterator[str]:
    rules = [rule for ingress in hall.kind("Ingress") for rule in ingress["spec"].get("rules", [])]
    routes = [path for rule in rules for path in rule["http"]["paths"]]
    for route in routes:
        for wrong in _wrong_route(hall, route):
            yield f"Ingress: {route['path']} {wrong}"
    routed = Counter(route["path"] for route in routes)
    public = {path for paths in OWNED_PATHS.values() for path in paths}
    for path in sorted(routed.keys() | public):
        if path not in public:
            yield f"Ingress: {path} must not be public"
        elif routed[path] != 1:
            yield f"Ingress: {path} is routed {routed[path]} times"
    yield from _wrong_front(hall)


def _wrong_route(hall: Hall, path: Document) -> Iterator[str]:
    target = path["backend"]["service"]
    service = hall.named("Service", target["name"])
    if path["pathType"] != "Prefix":
        yield f"is {path['pathType']}, not Prefix"
    if not service:
        yield f"goes to Service {target['name']}, which does not exist"
    elif not any(target["port"] in _addresses(port) for port in service["spec"]["ports"]):
        yield f"goes to port {target['port']}, which Service {target['name']} does not have"
    elif not any(path["path"] in _owned_paths(hall, pod) for pod in hall.behind(service)):
        yield f"goes to {target['name']}, which does not own it"


def _addresses(port: Document) -> list[Document]:
    """The two ways in which an Ingress may name the port of a Service."""
    return [{"number": port["port"]}, {"name": port.get("name")}]


def _owned_paths(hall: Hall, workload: Workload) -> set[str]:
    return {path for context in hall.served(workload) for path in OWNED_PATHS.get(context, [])}


def _wrong_front(hall: Hall) -> Iterator[str]:
    for ingress in hall.kind("Ingress"):
        if "defaultBackend" in ingress["spec"]:
            yield f"{title(ingress)}: a default backend makes every path public"
        if not ingress["spec"].get("tls"):
            yield f"{title(ingress)}: no TLS"
        for entry in ingress["spec"].get("tls", []):
            if entry.get("secretName") not in KNOWN_SECRETS:
                yield f"{title(ingress)}: Secret {entry.get('secretName')} does not exist"


# --- how the pods run


def check_pods(hall: Hall) -> Iterator[str]:
    for workload in hall.workloads:
        for wrong in _wrong_pod(workload.pod):
            yield f"{title(workload.document)}: {wrong}"
        for container in workload.containers:
            for wrong in _wrong_container(workload.pod, container):
                yield f"{title(workload.document)}: {wrong}"


def _wrong_pod(pod: Document) -> Iterator[str]:
    if pod.get("enableServiceLinks") is not False:
        yield "service links are on: a Service would inject variables that read like our settings"
    if pod.get("automountServiceAccountToken") is not False:
        yield "mounts a service account token"
    for sharing in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(sharing):
            yield f"restricted: {sharing}"
    for volume in pod.get("volumes", []):
        if not volume.keys() - {"name"} <= RESTRICTED_VOLUMES:
            yield f"restricted: volume {volume['name']}"


def _wrong_container(pod: Document, container: Document) -> Iterator[str]:
    of_pod, of_container = pod.get("securityContext", {}), container.get("securityContext", {})
    yield from _wrong_security(of_pod | of_container)
    tag = container["image"].rpartition("/")[2].partition(":")[2]
    if "@sha256:" not in container["image"] and tag in ("", "latest"):
        yield f"image {container['image']} is not pinned"
    resources = container.get("resources", {})
    for part, resource in (("requests", "cpu"), ("requests", "memory"), ("limits", "memory")):
        if resource not in resources.get(part, {}):
            yield f"no {resource} in resource {part}"


def _wrong_security(security: Document) -> Iterator[str]:
    """Pod Security "restricted", and a read-only root; a container overrides its pod."""
    if security.get("privileged"):
        yield "restricted: privileged"
    if security.get("allowPrivilegeEscalation") is not False:
        yield "restricted: allowPrivilegeEscalation"
    if security.get("runAsNonRoot") is not True or security.get("runAsUser") == 0:
        yield "restricted: may run as root"
    if security.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"):
        yield "restricted: no seccomp profile"
    capabilities = security.get("capabilities", {})
    if "ALL" not in capabilities.get("drop", []) or set(capabilities.get("add", [])) - {
        "NET_BIND_SERVICE"
    }:
        yield "restricted: capabilities"
    if security.get("readOnlyRootFilesystem") is not True:
        yield "root file system is writable"


def check_serving(hall: Hall) -> Iterator[str]:
    for workload in hall.deployments:
        for wrong in (*_wrong_probes(workload), *_wrong_stop(workload.pod)):
            yield f"{title(workload.document)}: {wrong}"


def _wrong_probes(workload: Workload) -> Iterator[str]:
    for (probe, path), container in product(PROBES.items(), workload.pod["containers"]):
        asked = container.get(probe, {}).get("httpGet")
        if not asked:
            yield f"no {probe}"
        elif asked["path"] != path:
            yield f"{probe} asks {asked['path']}, not {path}"
        elif str(asked["port"]) not in {*workload.ports, *map(str, workload.ports.values())}:
            yield f"{probe} asks port {asked['port']}, which is no port of the container"


def _wrong_stop(pod: Document) -> Iterator[str]:
    for container in pod["containers"]:
        pause = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        if not pause:
            yield "no preStop pause: the server refuses connections before the load balancers know"
        if pod.get("terminationGracePeriodSeconds", 30) < pause + SLOWEST_STOP_SECONDS:
            yield "grace period is shorter than preStop and the slowest stop"


# --- who may talk to whom

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
    contexts = {workload.place_name for workload in hall.deployments} & NEIGHBOURS.keys()
    return edges | {
        Edge(caller, callee, Port(PORT)) for caller in contexts for callee in NEIGHBOURS[caller]
    }


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


CHECKS: tuple[Check, ...] = (
    check_namespaces,
    check_kinds,
    check_names,
    check_own_pods,
    check_services,
    check_policies_match,
    check_disruption,
    check_scalers,
    check_completeness,
    check_references,
    check_secrets,
    check_contexts,
    check_ingress,
    check_pods,
    check_serving,
    check_edges,
)


def main(files: list[str]) -> int:
    if not files:
        sys.stderr.write(f"{__doc__}\n")
        return 2
    found = 0
    for file in files:
        documents = [
            document
            for document in yaml.safe_load_all(Path(file).read_text(encoding="utf-8"))
            if document
        ]
        wrong = findings(documents)
        found += len(wrong)
        for line in wrong or [f"{len(documents)} documents, no finding"]:
            sys.stdout.write(f"{file}: {line}\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
