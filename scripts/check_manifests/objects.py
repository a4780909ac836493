"""Checks schemas, selectors, probes and the shutdown of pods."""

import json
from collections.abc import Iterator
from functools import cache
from itertools import product
from typing import Final

import kubernetes_validate

from scripts.check_manifests.manifests import Document, Manifests, Workload, matches, title

KUBERNETES: Final = ("1.34", "1.37")
PROBES: Final = {"startupProbe": "/health", "livenessProbe": "/health", "readinessProbe": "/ready"}
MAX_SHUTDOWN_SECONDS: Final = 20


def check_schemas(manifests: Manifests) -> Iterator[str]:
    for document, version in product(manifests.documents, KUBERNETES):
        fault = _schema_fault(json.dumps(document, default=str), version)
        if fault:
            yield f"{title(document)}: Kubernetes {version} {fault}"


@cache  # cached, because the tests check the same documents many times
def _schema_fault(document_json: str, version: str) -> str | None:
    document = json.loads(document_json)
    try:
        kubernetes_validate.validate(document, version, strict=True)
    except kubernetes_validate.SchemaNotFoundError:
        return f"has no {document['apiVersion']} {document['kind']}"
    except kubernetes_validate.ValidationError as error:
        path = ".".join(str(step) for step in error.path)
        return f"schema: {path}: {error.message[:150]}"
    return None


def check_namespaces(manifests: Manifests) -> Iterator[str]:
    for document in manifests.documents:
        metadata = document["metadata"]
        if document["kind"] == "Namespace":
            if metadata.get("labels", {}).get("pod-security.kubernetes.io/enforce") != "restricted":
                yield f"{title(document)}: does not enforce Pod Security restricted"
        elif not manifests.named("Namespace", metadata.get("namespace", "default")):
            yield f"{title(document)}: its namespace is not in the rendering"


def check_selectors(manifests: Manifests) -> Iterator[str]:
    for workload in manifests.deployments:
        spreads = workload.pod.get("topologySpreadConstraints", [])
        selectors = [workload.document["spec"]["selector"], *(s["labelSelector"] for s in spreads)]
        if not all(matches(selector, workload.labels) for selector in selectors):
            yield f"{title(workload.document)}: a selector does not match its own pods"
    for service in manifests.kind("Service"):
        pods = manifests.behind(service)
        yield from _not_one_deployment(service, pods)
        for port in service["spec"]["ports"]:
            target = str(port.get("targetPort", port["port"]))
            if any(target not in pod.ports for pod in pods):
                yield f"{title(service)}: target port {target} is no port of its pods"
    for policy in manifests.kind("NetworkPolicy"):
        if not manifests.selected(policy["spec"]["podSelector"]):
            yield f"{title(policy)}: selector matches no pod"


def check_scaling(manifests: Manifests) -> Iterator[str]:
    for budget in manifests.kind("PodDisruptionBudget"):
        yield from _not_one_deployment(budget, manifests.selected(budget["spec"]["selector"]))
        if str(budget["spec"].get("maxUnavailable", 0)).rstrip("%") == "0":
            yield f"{title(budget)}: maxUnavailable must allow a drain"
    for scaler in manifests.kind("HorizontalPodAutoscaler"):
        target = scaler["spec"]["scaleTargetRef"]
        if not manifests.named(target["kind"], target["name"]):
            yield f"{title(scaler)}: target {target['name']} does not exist"


def _not_one_deployment(document: Document, pods: list[Workload]) -> Iterator[str]:
    if [pod.kind for pod in pods] != ["Deployment"]:
        names = " and ".join(title(pod.document) for pod in pods) or "no pod"
        yield f"{title(document)}: selector matches {names}, not one Deployment"


def check_pods(manifests: Manifests) -> Iterator[str]:
    for workload in manifests.workloads:
        if workload.pod.get("enableServiceLinks") is not False:
            yield f"{title(workload.document)}: a Service would inject variables like our settings"
    for workload in manifests.deployments:
        for container in workload.pod["containers"]:
            wrong = (*_wrong_probes(workload, container), *_wrong_grace(workload.pod, container))
            yield from (f"{title(workload.document)}: {each}" for each in wrong)


def _wrong_probes(workload: Workload, container: Document) -> Iterator[str]:
    for probe, path in PROBES.items():
        request = container.get(probe, {}).get("httpGet", {})
        if request.get("path") != path:
            yield f"{probe} requests {request.get('path')}, not {path}"
        elif str(request["port"]) not in workload.ports:
            yield f"{probe} requests port {request['port']}, which is no port of the container"


def _wrong_grace(pod: Document, container: Document) -> Iterator[str]:
    pause = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    if not pause:
        yield "no preStop pause: connections are refused before the load balancers know"
    if pod.get("terminationGracePeriodSeconds", 30) < pause + MAX_SHUTDOWN_SECONDS:
        yield "grace period is shorter than preStop and the slowest shutdown"
