"""Where each context is served, and how it is reached: by its neighbours and by the world."""

import json
from collections import Counter
from collections.abc import Iterator
from typing import Final
from urllib.parse import urlsplit

from markethall.contexts import topology
from scripts.check_manifests.hall import NEIGHBOURS, Document, Hall, Workload, title
from scripts.check_manifests.secrets import KNOWN_SECRETS

OWNED_PATHS: Final = {
    str(context): [f"/{segment}" for segment in owned]
    for context, owned in topology().paths_by_context.items()
}
# words in the annotations of Ingress controllers that give a path another meaning
REWRITING: Final = ("rewrite", "regex", "snippet", "app-root")


def check_contexts(hall: Hall) -> Iterator[str]:
    """Each context is served by one Deployment, which finds its neighbours here or there."""
    serving = Counter(context for workload in hall.deployments for context in hall.served(workload))
    for context in sorted(OWNED_PATHS.keys() | serving.keys()):
        if serving[context] != 1 or context not in OWNED_PATHS:
            yield f"context {context}: served by {serving[context]} Deployments"
    for workload in hall.deployments:
        where, served = title(workload.document), set(hall.served(workload))
        remotes = json.loads(hall.settings(workload).get("MARKETHALL_CONTEXT_URLS", "{}"))
        needed = set().union(*(NEIGHBOURS.get(context, set()) for context in served)) - served
        if remotes.keys() != needed:
            yield f"{where}: remotes {sorted(remotes)}, but it needs {sorted(needed)}"
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
    routes = [path for rule in rules for path in rule.get("http", {}).get("paths", [])]
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


def check_front(hall: Hall) -> Iterator[str]:
    """There is one way in, and the table of paths is all that it knows."""
    for service in hall.kind("Service"):
        if service["spec"].get("type", "ClusterIP") != "ClusterIP":
            yield f"{title(service)}: is open to the world, past the Ingress"
    for ingress in hall.kind("Ingress"):
        for annotation in ingress["metadata"].get("annotations", {}):
            if any(word in annotation for word in REWRITING):
                yield f"{title(ingress)}: {annotation} may make any path public"
        if "defaultBackend" in ingress["spec"]:
            yield f"{title(ingress)}: a default backend makes every path public"
        if not ingress["spec"].get("tls"):
            yield f"{title(ingress)}: no TLS"
        for entry in ingress["spec"].get("tls", []):
            if entry.get("secretName") not in KNOWN_SECRETS:
                yield f"{title(ingress)}: Secret {entry.get('secretName')} does not exist"
