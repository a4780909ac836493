"""The objects of one rendered overlay, its pods, and their settings and secrets."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, NamedTuple

from markethall.contexts import context_names

Document = dict[str, Any]

COMPONENT: Final = "app.kubernetes.io/component"


@dataclass(frozen=True)
class Workload:
    """A Deployment or a Job, and the pod that it creates."""

    document: Document

    @property
    def kind(self) -> str:
        return str(self.document["kind"])

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
        """Map the name and the number (as text) of each container port to its number."""
        declared = [port for container in self.containers for port in container.get("ports", [])]
        keys = [(key, port["containerPort"]) for port in declared for key in port.values()]
        return {str(key): number for key, number in keys}


class Reference(NamedTuple):
    kind: str
    name: str
    key: str | None = None  # None means all keys


def references(workload: Workload) -> Iterator[Reference]:
    """Yield the ConfigMaps and Secrets that the pod reads."""
    sources = [source for each in workload.containers for source in each.get("envFrom", [])]
    sources += [variable.get("valueFrom", {}) for variable in workload.variables]
    for volume in workload.pod.get("volumes", []):
        sources += [volume, *volume.get("projected", {}).get("sources", [])]
    for source in sources:
        for word, target in source.items():
            if word.startswith(("configMap", "secret")):
                kind = "Secret" if word.startswith("secret") else "ConfigMap"
                yield Reference(kind, target.get("name") or target["secretName"], target.get("key"))


class Manifests:
    """The rendered documents of one overlay."""

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

    def selected(self, selector: Document) -> list[Workload]:
        return [workload for workload in self.workloads if matches(selector, workload.labels)]

    def behind(self, service: Document) -> list[Workload]:
        return self.selected({"matchLabels": service["spec"]["selector"]})

    def settings(self, workload: Workload) -> dict[str, str]:
        """Return the values of the ConfigMaps that the pod reads by envFrom."""
        whole = [each for each in references(workload) if each.kind == "ConfigMap" and not each.key]
        maps = [self.named("ConfigMap", each.name) or {} for each in whole]
        return {key: value for each in maps for key, value in each.get("data", {}).items()}

    def served(self, workload: Workload) -> list[str]:
        value = self.settings(workload).get("MARKETHALL_CONTEXTS", ",".join(context_names()))
        served: list[str] = json.loads(value) if value.startswith("[") else value.split(",")
        return served


Check = Callable[[Manifests], Iterator[str]]


def title(document: Document) -> str:
    return f"{document['kind']}/{document['metadata']['name']}"


def matches(selector: Document, labels: Mapping[str, str]) -> bool:
    """Tell whether a label selector matches the labels. An empty selector matches everything."""
    if selector.get("matchExpressions"):
        raise NotImplementedError("these checks understand matchLabels only")
    return (selector.get("matchLabels") or {}).items() <= labels.items()
