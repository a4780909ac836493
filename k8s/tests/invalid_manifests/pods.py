"""Pods that may too much, or start and stop badly."""

from k8s.mistakes.kind import Mistake

MISTAKES = [
    # pods
    Mistake("service links", lambda m: m.pod().pop("enableServiceLinks"), "service links are on"),
    Mistake(
        "service account token",
        lambda m: m.pod().update(automountServiceAccountToken=True),
        "mounts a service account token",
    ),
    Mistake("host network", lambda m: m.pod().update(hostNetwork=True), "restricted: hostNetwork"),
    Mistake(
        "host path",
        lambda m: m.pod().update(volumes=[{"name": "tmp", "hostPath": {"path": "/srv"}}]),
        "restricted: volume tmp",
    ),
    Mistake(
        "privileged",
        lambda m: m.container()["securityContext"].update(privileged=True),
        "restricted: privileged",
    ),
    Mistake(
        "privilege escalation",
        lambda m: m.container()["securityContext"].pop("allowPrivilegeEscalation"),
        "restricted: allowPrivilegeEscalation",
    ),
    Mistake(
        "root allowed",
        lambda m: m.pod()["securityContext"].pop("runAsNonRoot"),
        "restricted: may run as root",
    ),
    Mistake(
        "root again by the container",
        lambda m: m.container()["securityContext"].update(runAsUser=0),
        "restricted: may run as root",
    ),
    Mistake(
        "no seccomp profile",
        lambda m: m.pod("markethall-migrate", "Job")["securityContext"].pop("seccompProfile"),
        "Job/markethall-migrate: restricted: no seccomp profile",
    ),
    Mistake(
        "capabilities kept",
        lambda m: m.container()["securityContext"]["capabilities"].update(drop=["NET_RAW"]),
        "restricted: capabilities",
    ),
    Mistake(
        "capability added",
        lambda m: m.container()["securityContext"]["capabilities"].update(add=["SYS_ADMIN"]),
        "restricted: capabilities",
    ),
    Mistake(
        "writable root",
        lambda m: m.container()["securityContext"].pop("readOnlyRootFilesystem"),
        "root file system is writable",
    ),
    Mistake(
        "image without tag",
        lambda m: m.container().update(image="markethall"),
        "image markethall is not pinned",
    ),
    Mistake(
        "latest image behind a port",
        lambda m: m.container().update(image="images.example:5000/markethall:latest"),
        "image images.example:5000/markethall:latest is not pinned",
    ),
    Mistake(
        "no memory limit",
        lambda m: m.container()["resources"]["limits"].pop("memory"),
        "no memory in resource limits",
    ),
    Mistake(
        "no CPU request",
        lambda m: m.container()["resources"]["requests"].pop("cpu"),
        "no cpu in resource requests",
    ),
    # serving
    Mistake("no readiness", lambda m: m.container().pop("readinessProbe"), "no readinessProbe"),
    Mistake(
        "liveness asks what is outside",
        lambda m: m.container()["livenessProbe"]["httpGet"].update(path="/ready"),
        "livenessProbe asks /ready, not /health",
    ),
    Mistake(
        "probe of another port",
        lambda m: m.container()["startupProbe"]["httpGet"].update(port=8080),
        "startupProbe asks port 8080, which is no port of the container",
    ),
    Mistake(
        "no pause before stopping", lambda m: m.container().pop("lifecycle"), "no preStop pause"
    ),
    Mistake(
        "killed while answering",
        lambda m: m.pod().update(terminationGracePeriodSeconds=20),
        "grace period is shorter than preStop and the slowest stop",
    ),
]
