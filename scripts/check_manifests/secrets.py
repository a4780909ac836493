"""Who gets which secret, and whether what a pod reads is there."""

from collections import Counter
from collections.abc import Iterator
from typing import Final

from markethall.contexts import context_names
from scripts.check_manifests.hall import CALLED, Document, Hall, Workload, references, title

# made by hand, docs/deployment.md says how: name -> keys
KNOWN_SECRETS: Final = {
    "database": {"url"},
    **{f"database-{context}": {"url"} for context in context_names()},
    "redis": {"url"},
    "application": {"secret", "access-token-private-key", "service-token-private-key"},
    "admin": {"email", "password"},
    "tls": {"tls.crt", "tls.key"},
}
DATABASE_URL: Final = "MARKETHALL_DATABASE_URL"
ACCESS_TOKEN_PRIVATE_KEY: Final = "MARKETHALL_ACCESS_TOKEN_PRIVATE_KEY"
SERVICE_TOKEN_PRIVATE_KEY: Final = "MARKETHALL_SERVICE_TOKEN_PRIVATE_KEY"
REDIS_URL: Final = "MARKETHALL_REDIS_URL"
OF_ALL: Final = frozenset({DATABASE_URL, REDIS_URL, "MARKETHALL_SECRET_KEY"})
OF_ADMIN: Final = frozenset({"MARKETHALL_ADMIN_EMAIL", "MARKETHALL_ADMIN_PASSWORD"})
# where each comes from: one key for two purposes would let a token of one kind pass for the other
SOURCES: Final = {
    DATABASE_URL: ("database", "url"),
    REDIS_URL: ("redis", "url"),
    "MARKETHALL_SECRET_KEY": ("application", "secret"),
    ACCESS_TOKEN_PRIVATE_KEY: ("application", "access-token-private-key"),
    SERVICE_TOKEN_PRIVATE_KEY: ("application", "service-token-private-key"),
    "MARKETHALL_ADMIN_EMAIL": ("admin", "email"),
    "MARKETHALL_ADMIN_PASSWORD": ("admin", "password"),
}


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
        where, served = title(workload.document), set(hall.served(workload))
        for wrong in (*_wrong_secrets(workload, served), *_in_the_clear(hall, workload)):
            yield f"{where}: {wrong}"


def _wrong_secrets(workload: Workload, served: set[str]) -> Iterator[str]:
    given = {each["name"]: _secret(each) for each in workload.variables}
    needed = _needed(served)
    for variable in sorted(needed):
        if variable not in given or given[variable].get("optional"):
            yield f"{variable} is not given"
    for variable, source in given.items():
        secret, key = _source(variable, served)
        if source and variable not in needed | (OF_ADMIN if "users" in served else set()):
            yield f"is given {variable}, which it does not need"
        elif source and (source["name"], source["key"]) != (secret, key):
            yield f"{variable} comes from {source['name']}/{source['key']}, not from {secret}/{key}"


def _needed(served: set[str]) -> set[str]:
    needed = set(OF_ALL)
    if "users" in served:
        needed.add(ACCESS_TOKEN_PRIVATE_KEY)
    if any(target not in served for context in served for target in CALLED.get(context, ())):
        needed.add(SERVICE_TOKEN_PRIVATE_KEY)
    return needed


def _source(variable: str, served: set[str]) -> tuple[str, str]:
    """Secret and key. A context of its own has a database of its own."""
    if variable == DATABASE_URL and len(served) == 1:
        return f"database-{min(served)}", "url"
    return SOURCES.get(variable, ("nowhere", ""))


def _in_the_clear(hall: Hall, workload: Workload) -> Iterator[str]:
    """A secret is one key of one Secret, for one variable: nothing written down, no bundles."""
    literal = {each["name"] for each in workload.variables if not _secret(each)}
    for variable in sorted(SOURCES.keys() & (literal | hall.settings(workload).keys())):
        yield f"{variable} is written in the manifest"
    for kind, name, key in references(workload):
        if kind == "Secret" and key is None:
            yield f"reads all of Secret {name}"


def _secret(variable: Document) -> Document:
    reference: Document = variable.get("valueFrom", {}).get("secretKeyRef", {})
    return reference


def check_databases(hall: Hall) -> Iterator[str]:
    for database, count in Counter(map(database_of, hall.deployments)).items():
        if count > 1:
            yield f"Secret {database}: {count} Deployments share one database"


def database_of(workload: Workload) -> str | None:
    """The name of the Secret with its address."""
    urls = [each for each in workload.variables if each["name"] == DATABASE_URL]
    return _secret(urls[0]).get("name") if urls else None
