"""Checks the contexts, URLs, paths and secrets of each process."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Final
from urllib.parse import urlsplit

from markethall.contexts import context_names, topology
from markethall.payments.settings import PaymentsSettings, installed_gateways
from scripts.check_manifests.manifests import (
    COMPONENT,
    Document,
    Manifests,
    Workload,
    references,
    title,
)

CALLED: Final = {str(c): frozenset(map(str, topology().dependencies[c])) for c in context_names()}
# maps each context to the contexts that handle its events
SUBSCRIBERS: Final = {
    str(c): frozenset(str(s) for p, s in topology().event_pairs if p == c) for c in context_names()
}
# maps each context to the contexts that it calls or whose public keys it reads
NEEDED: Final = {
    str(c): frozenset(map(str, topology().dependencies[c] | topology().jwks_sources[c]))
    for c in context_names()
}
PATHS: Final = {
    str(c): [f"/{segment}" for segment in owned] for c, owned in topology().paths_by_context.items()
}
# Secret and key with the URL of the database into which a Job moves the data of a context
RELOCATION: Final = ("relocation", "target")
# maps each payment provider to its secret variables, each with its key in the Secret `payments`
PROVIDER_SECRETS: Final = {
    provider: {
        f"MARKETHALL_{setting.upper()}": setting.replace("_", "-")
        for setting in manifest.secret_settings
    }
    for provider, manifest in installed_gateways().items()
}
# the Secrets that an operator creates by hand (docs/deployment.md), each with its keys
SECRETS: Final = {
    "database": {"url"},
    **{f"database-{context}": {"url"} for context in context_names()},
    "redis": {"url"},
    "application": {"secret", "access-token-private-key"},
    "service-token": {"private-key"},
    **{f"service-token-{context}": {"private-key"} for context in context_names()},
    RELOCATION[0]: {RELOCATION[1]},
    "payments": {key for secrets in PROVIDER_SECRETS.values() for key in secrets.values()},
    "admin": {"email", "password"},
    "tls": {"tls.crt", "tls.key"},
}
DATABASE_URL: Final = "MARKETHALL_DATABASE_URL"
ACCESS_TOKEN_PRIVATE_KEY: Final = "MARKETHALL_ACCESS_TOKEN_PRIVATE_KEY"
SERVICE_TOKEN_PRIVATE_KEY: Final = "MARKETHALL_SERVICE_TOKEN_PRIVATE_KEY"
PAYMENT_PROVIDERS: Final = "MARKETHALL_PAYMENT_PROVIDERS"
# a process that serves a single context reads these from a Secret of that context, such as
# `database-orders`, so that one service cannot act as another
OWN: Final = frozenset({DATABASE_URL, SERVICE_TOKEN_PRIVATE_KEY})
ADMIN: Final = frozenset({"MARKETHALL_ADMIN_EMAIL", "MARKETHALL_ADMIN_PASSWORD"})
# maps each secret variable to its Secret and key; two variables must not have the same source,
# because then a token of one kind would be accepted as the other kind
SOURCES: Final = {
    DATABASE_URL: ("database", "url"),
    "MARKETHALL_REDIS_URL": ("redis", "url"),
    "MARKETHALL_SECRET_KEY": ("application", "secret"),
    ACCESS_TOKEN_PRIVATE_KEY: ("application", "access-token-private-key"),
    SERVICE_TOKEN_PRIVATE_KEY: ("service-token", "private-key"),
    **{
        variable: ("payments", key)
        for secrets in PROVIDER_SECRETS.values()
        for variable, key in secrets.items()
    },
    "MARKETHALL_ADMIN_EMAIL": ("admin", "email"),
    "MARKETHALL_ADMIN_PASSWORD": ("admin", "password"),
}


def check_contexts(manifests: Manifests) -> Iterator[str]:
    """Check that one Deployment serves each context, and has the URLs of the needed contexts."""
    serving = Counter(c for workload in manifests.deployments for c in manifests.served(workload))
    for context in sorted(PATHS.keys() | serving.keys()):
        if serving[context] != 1 or context not in PATHS:
            yield f"context {context}: served by {serving[context]} Deployments"
    for workload in manifests.deployments:
        name, served = title(workload.document), set(manifests.served(workload))
        remotes = json.loads(manifests.settings(workload).get("MARKETHALL_CONTEXT_URLS", "{}"))
        needed = set().union(*(NEEDED.get(context, set()) for context in served)) - served
        if remotes.keys() != needed:
            yield f"{name}: remotes {sorted(remotes)}, but it needs {sorted(needed)}"
        for context, url in remotes.items():
            if not _reaches(manifests, url, context):
                yield f"{name}: {url} is no Service of {context}"


def _reaches(manifests: Manifests, url: str, context: str) -> bool:
    address = urlsplit(url)
    service = manifests.named("Service", address.hostname or "")
    if not service or address.port not in [port["port"] for port in service["spec"]["ports"]]:
        return False
    return any(context in manifests.served(workload) for workload in manifests.behind(service))


def check_ingress(manifests: Manifests) -> Iterator[str]:
    """Check that only the Ingress is public, and that it routes each path to its context."""
    for service in manifests.kind("Service"):
        if service["spec"].get("type", "ClusterIP") != "ClusterIP":
            yield f"{title(service)}: is reachable without the Ingress"
    specs = [ingress["spec"] for ingress in manifests.kind("Ingress")]
    if any("defaultBackend" in spec for spec in specs):
        yield "Ingress: a default backend makes every path public"
    routes = [path for spec in specs for rule in spec["rules"] for path in rule["http"]["paths"]]
    for route in routes:
        path, target = route["path"], route["backend"]["service"]
        if not _serves(manifests, target["name"], path):
            yield f"Ingress: {path} goes to {target['name']}, which does not serve it"
    count = Counter(route["path"] for route in routes)
    owned = {path for each in PATHS.values() for path in each}
    for path in sorted(count.keys() | owned):
        if path not in owned:
            yield f"Ingress: {path} must not be public"
        elif count[path] != 1:
            yield f"Ingress: {path} is routed {count[path]} times"


def _serves(manifests: Manifests, service: str, path: str) -> bool:
    found = manifests.named("Service", service)
    pods = manifests.behind(found) if found else []
    return any(path in PATHS[context] for pod in pods for context in manifests.served(pod))


def check_references(manifests: Manifests) -> Iterator[str]:
    for workload in manifests.workloads:
        name, account = title(workload.document), workload.pod.get("serviceAccountName", "default")
        if not manifests.named("ServiceAccount", account):
            yield f"{name}: ServiceAccount {account} does not exist"
        for kind, target, key in references(workload):
            config_map = manifests.named(kind, target) or {}
            keys = SECRETS.get(target) if kind == "Secret" else config_map.get("data")
            if keys is None or (key and key not in keys):
                yield f"{name}: {' '.join((kind, target, key or '')).strip()} does not exist"


def check_secrets(manifests: Manifests) -> Iterator[str]:
    """Check that each process gets exactly the secrets that it needs, from the right sources."""
    for workload in manifests.workloads:
        served = set(manifests.served(workload))
        wrong = (*_wrong_secrets(manifests, workload, served), *_exposed(manifests, workload))
        yield from (f"{title(workload.document)}: {each}" for each in wrong)
    for database, count in Counter(map(_database, manifests.deployments)).items():
        if count > 1:
            yield f"Secret {database}: {count} Deployments share one database"


def _database(workload: Workload) -> str | None:
    """Return the name of the Secret with the database URL."""
    urls = [
        _secret(each).get("name") for each in workload.variables if each["name"] == DATABASE_URL
    ]
    return urls[0] if urls else None


def _wrong_secrets(manifests: Manifests, workload: Workload, served: set[str]) -> Iterator[str]:
    given = {each["name"]: _secret(each) for each in workload.variables}
    if workload.labels.get("task") == "relocate":
        yield from _wrong_relocation_secrets(workload, given)
        return
    needed = _needed_secrets(served, _payment_providers(manifests, workload))
    for variable in sorted(needed):
        if variable not in given or given[variable].get("optional"):
            yield f"{variable} is not given"
    for variable, source in given.items():
        secret, key = SOURCES.get(variable, ("", ""))
        if variable in OWN and len(served) == 1:
            secret = f"{secret}-{min(served)}"
        if source and variable not in needed | (ADMIN if "users" in served else set()):
            yield f"is given {variable}, which it does not need"
        elif source and (source["name"], source["key"]) != (secret, key):
            yield f"{variable} comes from {source['name']}/{source['key']}, not from {secret}/{key}"


def _payment_providers(manifests: Manifests, workload: Workload) -> Sequence[str]:
    """Return the installed payment providers that the process uses."""
    default = PaymentsSettings.model_fields["payment_providers"].default
    value = manifests.settings(workload).get(PAYMENT_PROVIDERS, ",".join(default))
    return [name.strip() for name in value.split(",") if name.strip() in PROVIDER_SECRETS]


def _needed_secrets(served: set[str], payment_providers: Sequence[str]) -> set[str]:
    needed = {DATABASE_URL, "MARKETHALL_REDIS_URL", "MARKETHALL_SECRET_KEY"}
    if "users" in served:
        needed.add(ACCESS_TOKEN_PRIVATE_KEY)
    if "payments" in served:
        needed.update(*(PROVIDER_SECRETS[provider] for provider in payment_providers))
    if any(
        (CALLED.get(context, frozenset()) | SUBSCRIBERS.get(context, frozenset())) - served
        for context in served
    ):
        needed.add(SERVICE_TOKEN_PRIVATE_KEY)
    return needed


def _wrong_relocation_secrets(workload: Workload, given: Mapping[str, Document]) -> Iterator[str]:
    """Check that the Job reads only the URLs of the source and of the target database."""
    context = workload.labels.get(COMPONENT, "")
    expected = {DATABASE_URL: (f"database-{context}", "url"), "RELOCATION_TARGET": RELOCATION}
    found = {name: (source.get("name"), source.get("key")) for name, source in given.items()}
    if found != expected:
        yield f"has the secrets {sorted(found.values(), key=str)}, not {sorted(expected.values())}"
    if workload.containers[0].get("args") != ["relocate", context, "--to", "$(RELOCATION_TARGET)"]:
        yield f"does not relocate {context}"


def _exposed(manifests: Manifests, workload: Workload) -> Iterator[str]:
    literal = {each["name"] for each in workload.variables if not _secret(each)}
    for variable in sorted(SOURCES.keys() & (literal | manifests.settings(workload).keys())):
        yield f"{variable} is written in the manifest"
    for kind, name, key in references(workload):
        if kind == "Secret" and key is None:
            yield f"reads all of Secret {name}"


def _secret(variable: Document) -> Document:
    reference: Document = variable.get("valueFrom", {}).get("secretKeyRef", {})
    return reference
