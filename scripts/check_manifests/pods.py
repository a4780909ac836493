"""What a pod may do, and how it is started, asked and stopped."""

from collections.abc import Iterator
from itertools import product
from typing import Final

from scripts.check_manifests.hall import Document, Hall, Workload, title

PROBES: Final = {"startupProbe": "/health", "livenessProbe": "/health", "readinessProbe": "/ready"}
SLOWEST_STOP_SECONDS: Final = 20
RESTRICTED_VOLUMES: Final = {
    *("configMap", "csi", "downwardAPI", "emptyDir"),
    *("ephemeral", "persistentVolumeClaim", "projected", "secret"),
}


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
