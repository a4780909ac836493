"""One rendered overlay, and the questions that the checks ask of it."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, NamedTuple

from markethall.contexts import context_names, topology

Document = dict[str, Any]

COMPONENT: Final = "app.kubernetes.io/component"
CALLED: Final[Mapping[str, frozenset[str]]] = {
    context: topology().dependencies[context] for context in context_names()
}
# whom a context asks anything: it calls them, or reads their public keys
NEIGHBOURS: Final[Mapping[str, frozenset[str]]] = {
    context: CALLED[context] | topology().jwks_sources[context] for context in context_names()
}
KIND_OF_REFERENCE: Final = {
    "configMapRef": "ConfigMap",
    "configMapKeyRef": "ConfigMap",
    "secretRef": "Secret",
    "secretKeyRef": "Secret",
}


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
        for source in volume.get("projected", {}).get("sources", []):
            if "secret" in source:
                yield Reference("Secret", source["secret"]["name"])


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
        return [workload for workload in self.workloads if fronts(service, workload)]

    def settings(self, workload: Workload) -> dict[str, str]:
        """What the workload reads from config maps by envFrom."""
        whole = [each for each in references(workload) if each.kind == "ConfigMap" and not each.key]
        maps = [self.named("ConfigMap", each.name) or {} for each in whole]
        return {key: value for each in maps for key, value in each.get("data", {}).items()}

    def served(self, workload: Workload) -> list[str]:
        value = self.settings(workload).get("MARKETHALL_CONTEXTS", ",".join(context_names()))
        served: list[str] = json.loads(value) if value.startswith("[") else value.split(",")
        return served


Check = Callable[[Hall], Iterator[str]]


def title(document: Document) -> str:
    return f"{document['kind']}/{document['metadata']['name']}"


def titles(workloads: list[Workload]) -> str:
    return " and ".join(title(workload.document) for workload in workloads) or "no pod"


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


def fronts(service: Document, workload: Workload) -> bool:
    return matches({"matchLabels": service["spec"]["selector"]}, workload.labels)
