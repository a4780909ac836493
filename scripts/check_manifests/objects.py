"""Every object for itself, and with the pods that it selects, scales, guards or migrates."""

import json
from collections import Counter
from collections.abc import Iterator
from functools import cache
from itertools import product
from typing import Final

import kubernetes_validate

from scripts.check_manifests.hall import Document, Hall, Workload, fronts, matches, title, titles
from scripts.check_manifests.secrets import database_of

KUBERNETES: Final = ("1.34", "1.37")


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
            yield f"{title(service)}: selector matches {titles(pods)}, not one Deployment"
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
            yield f"{title(budget)}: selector matches {titles(pods)}, not one Deployment"
        elif not _may_evict(spec, _fewest_pods(hall, pods[0])):
            yield f"{title(budget)}: would block every drain"


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
    """Each Deployment has a Service for each context that it serves, a scaler, a budget, and a Job
    that migrates them."""
    for workload in hall.deployments:
        scalers, budgets = hall.kind("HorizontalPodAutoscaler"), hall.kind("PodDisruptionBudget")
        owned = {
            "Service": sum(fronts(each, workload) for each in hall.kind("Service")),
            "scaler": sum(_scales(each, workload) for each in scalers),
            "budget": sum(_guards(each, workload) for each in budgets),
            "migrate Job": sum(_migrates(hall, each, workload) for each in hall.workloads),
        }
        for kind, count in owned.items():
            wanted = len(hall.served(workload)) if kind == "Service" else 1
            if count != wanted:
                yield f"{title(workload.document)}: has {count} {kind}, not {wanted}"


def _guards(budget: Document, workload: Workload) -> bool:
    return matches(budget["spec"]["selector"], workload.labels)


def _migrates(hall: Hall, job: Workload, workload: Workload) -> bool:
    same_contexts = hall.served(job) == hall.served(workload)
    return job.kind == "Job" and same_contexts and database_of(job) == database_of(workload)
