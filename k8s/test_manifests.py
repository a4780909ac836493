"""Both overlays pass the check, and the check sees every kind of mistake it promises to see."""

import copy
import os
import shutil
import string
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from markethall.settings import Settings, read_settings
from markethall.topology import NEEDS
from scripts.check_manifests import NEIGHBOURS, Hall, Workload, findings, main

REPOSITORY = Path(__file__).parents[1]
OVERLAYS = ("together", "apart")

Document = dict[str, Any]


@cache
def rendered(overlay: str) -> str:
    kubectl = shutil.which("kubectl")
    assert kubectl, "kubectl must be on PATH: these tests render the overlays as a deployment would"
    command = [kubectl, "kustomize", str(REPOSITORY / "k8s" / overlay)]
    return subprocess.run(command, capture_output=True, check=True, text=True).stdout


@cache
def _parsed(overlay: str) -> list[Document]:
    return list(yaml.safe_load_all(rendered(overlay)))


class Manifests:
    """A copy of one rendered overlay, to be spoilt."""

    def __init__(self, overlay: str) -> None:
        self.documents = copy.deepcopy(_parsed(overlay))

    def get(self, kind: str, name: str) -> Document:
        return next(
            each
            for each in self.documents
            if (each["kind"], each["metadata"]["name"]) == (kind, name)
        )

    def all(self, kind: str) -> Iterator[Document]:
        return (each for each in self.documents if each["kind"] == kind)

    def settings(self, name: str) -> Document:
        """A generated config map, by its name without the hash."""
        data: Document = next(
            each["data"]
            for each in self.all("ConfigMap")
            if each["metadata"]["name"].startswith(name)
        )
        return data

    def drop(self, kind: str, name: str) -> None:
        self.documents.remove(self.get(kind, name))

    def spec(self, kind: str, name: str = "markethall") -> Document:
        spec: Document = self.get(kind, name)["spec"]
        return spec

    def pod(self, name: str = "markethall", kind: str = "Deployment") -> Document:
        pod: Document = self.spec(kind, name)["template"]["spec"]
        return pod

    def container(self, name: str = "markethall", kind: str = "Deployment") -> Document:
        container: Document = self.pod(name, kind)["containers"][0]
        return container

    def variable(self, variable: str, name: str = "markethall") -> Document:
        """The reference to the secret that one environment variable comes from."""
        found = next(each for each in self.container(name)["env"] if each["name"] == variable)
        reference: Document = found["valueFrom"]["secretKeyRef"]
        return reference

    def paths(self) -> list[Document]:
        paths: list[Document] = self.spec("Ingress")["rules"][0]["http"]["paths"]
        return paths


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_has_no_finding(overlay: str) -> None:
    assert findings(_parsed(overlay)) == []


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_image_is_the_version_of_the_project(overlay: str) -> None:
    version = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["version"]

    images = {
        container["image"]
        for each in _parsed(overlay)
        if each["kind"] in ("Deployment", "Job")
        for container in each["spec"]["template"]["spec"]["containers"]
    }

    assert images == {f"markethall:{version}"}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_secret_is_rendered(overlay: str) -> None:
    assert not [each for each in _parsed(overlay) if each["kind"] == "Secret"]


def test_a_first_run_can_leave_the_serving_part_out() -> None:
    """docs/deployment.md migrates with `-l 'task != serve'` before anything is served."""
    kinds = {
        each["kind"]
        for each in _parsed("apart")
        if each["metadata"]["labels"].get("task") != "serve"
    }

    assert kinds == {"Namespace", "ServiceAccount", "ConfigMap", "NetworkPolicy", "Job"}


def test_together_serves_three_pods_and_scales_from_two_to_ten() -> None:
    manifests = Manifests("together")

    scaler = manifests.spec("HorizontalPodAutoscaler")

    assert manifests.spec("Deployment")["replicas"] == 3
    assert (scaler["minReplicas"], scaler["maxReplicas"]) == (2, 10)
    assert scaler["metrics"][0]["resource"]["target"]["averageUtilization"] == 70


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_application_understands_what_each_pod_is_told(
    overlay: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hall = Hall(_parsed(overlay))

    for workload in hall.workloads:
        told = hall.settings(workload) | secrets_of(workload)
        known = {f"MARKETHALL_{name.upper()}" for name in Settings.model_fields}
        with monkeypatch.context() as environment:
            for name in os.environ.keys() & known:
                environment.delenv(name)
            for name, value in told.items():
                environment.setenv(name, value)
            settings = read_settings()

        assert told.keys() <= known
        assert settings.environment == "production"
        assert sorted(settings.serve) == sorted(hall.served(workload))
        assert settings.drain_seconds == 0, "preStop pauses already"


def secrets_of(workload: Workload) -> dict[str, str]:
    """Something fit for production in place of each secret."""
    addresses = {
        "MARKETHALL_DATABASE_URL": "postgresql://markethall:secret@database/markethall",
        "MARKETHALL_REDIS_URL": "redis://redis:6379/0",
        "MARKETHALL_ADMIN_EMAIL": "admin@example.com",
    }
    return {
        each["name"]: addresses.get(each["name"], string.ascii_letters)
        for each in workload.variables
    }


def test_the_edges_cover_whom_each_context_needs() -> None:
    assert NEIGHBOURS.keys() == NEEDS.keys()
    assert all(NEEDS[context] <= NEIGHBOURS[context] for context in NEEDS)


class Mistake(NamedTuple):
    name: str
    plant: Callable[[Manifests], object]
    expected: str
    overlay: str = "together"


def open_everything(manifests: Manifests) -> None:
    for policy in manifests.all("NetworkPolicy"):
        policy["spec"] |= {"ingress": [{}], "egress": [{}], "policyTypes": ["Ingress", "Egress"]}


def policy_rule(manifests: Manifests, policy: str, direction: str) -> Document:
    rule: Document = manifests.spec("NetworkPolicy", policy)[direction][0]
    return rule


MISTAKES = [
    # schemas
    Mistake(
        "unknown API version",
        lambda m: m.get("HorizontalPodAutoscaler", "markethall").update(
            apiVersion="autoscaling/v2beta2"
        ),
        "has no autoscaling/v2beta2 HorizontalPodAutoscaler",
    ),
    Mistake(
        "unknown field",
        lambda m: m.spec("Deployment").update(replica=3),
        "Deployment/markethall: Kubernetes 1.34 schema: spec",
    ),
    Mistake(
        "wrong type",
        lambda m: m.spec("Deployment").update(replicas="3"),
        "Deployment/markethall: Kubernetes 1.37 schema: spec",
    ),
    # namespaces, kinds and names
    Mistake(
        "a kind the check does not know",
        lambda m: m.get("Job", "markethall-migrate").update(
            kind="CronJob",
            spec={
                "schedule": "@daily",
                "jobTemplate": {"spec": m.spec("Job", "markethall-migrate")},
            },
        ),
        "CronJob/markethall-migrate: pods of this kind are not checked",
    ),
    Mistake(
        "namespace not restricted",
        lambda m: m.get("Namespace", "markethall")["metadata"]["labels"].pop(
            "pod-security.kubernetes.io/enforce"
        ),
        "Namespace/markethall: does not enforce",
    ),
    Mistake(
        "other namespace",
        lambda m: m.get("Service", "markethall")["metadata"].update(namespace="elsewhere"),
        "Service/markethall: its namespace is not in the rendering",
    ),
    Mistake(
        "same name twice",
        lambda m: m.documents.append(m.get("Service", "markethall")),
        "Service/markethall: 2 objects have this name",
    ),
    # selectors
    Mistake(
        "deployment misses its pods",
        lambda m: m.spec("Deployment")["selector"]["matchLabels"].update(task="other"),
        "Deployment/markethall: selector does not match its own pods",
    ),
    Mistake(
        "topology spread misses its pods",
        lambda m: m.pod()["topologySpreadConstraints"][0]["labelSelector"]["matchLabels"].update(
            task="other"
        ),
        "topology spread does not match its own pods",
    ),
    Mistake(
        "no topology spread",
        lambda m: m.pod().pop("topologySpreadConstraints"),
        "no topology spread",
    ),
    Mistake(
        "service selects nothing",
        lambda m: m.spec("Service")["selector"].update(task="other"),
        "Service/markethall: selector matches no pod",
    ),
    Mistake(
        "service selects the migrating pods too",
        lambda m: m.spec("Service")["selector"].pop("task"),
        "Service/markethall: selector matches Deployment/markethall and Job/markethall-migrate",
    ),
    Mistake(
        "service selects another context too",
        lambda m: m.spec("Service", "markethall-users")["selector"].pop(
            "app.kubernetes.io/component"
        ),
        "Service/markethall-users: selector matches",
        "apart",
    ),
    Mistake(
        "budget selects nothing",
        lambda m: m.spec("PodDisruptionBudget")["selector"]["matchLabels"].update(task="other"),
        "PodDisruptionBudget/markethall: selector matches no pod",
    ),
    Mistake(
        "policy selects nothing",
        lambda m: m.spec("NetworkPolicy", "front-to-serve")["podSelector"]["matchLabels"].update(
            task="other"
        ),
        "NetworkPolicy/front-to-serve: selector matches no pod",
    ),
    # targets
    Mistake(
        "service port without container port",
        lambda m: m.spec("Service")["ports"][0].update(targetPort="web"),
        "target port web is no port of markethall",
    ),
    Mistake(
        "scaler of nothing",
        lambda m: m.spec("HorizontalPodAutoscaler")["scaleTargetRef"].update(name="hall"),
        "HorizontalPodAutoscaler/markethall: target hall does not exist",
    ),
    Mistake(
        "scaler upside down",
        lambda m: m.spec("HorizontalPodAutoscaler").update(minReplicas=20),
        "more pods at least than at most",
    ),
    Mistake(
        "no scaler",
        lambda m: m.drop("HorizontalPodAutoscaler", "markethall-orders"),
        "Deployment/markethall-orders: has 0 scaler",
        "apart",
    ),
    Mistake(
        "no budget",
        lambda m: m.drop("PodDisruptionBudget", "markethall-orders"),
        "Deployment/markethall-orders: has 0 budget",
        "apart",
    ),
    Mistake(
        "no service",
        lambda m: m.drop("Service", "markethall"),
        "Deployment/markethall: has 0 Service",
    ),
    Mistake(
        "nobody migrates",
        lambda m: m.drop("Job", "markethall-migrate-users"),
        "Deployment/markethall-users: has 0 migrate Job",
        "apart",
    ),
    Mistake(
        "migrates another database",
        lambda m: m.variable("MARKETHALL_DATABASE_URL", "markethall-users").update(
            name="database-orders"
        ),
        "Deployment/markethall-users: has 0 migrate Job",
        "apart",
    ),
    Mistake(
        "budget blocks every drain",
        lambda m: (
            m.spec("PodDisruptionBudget").pop("maxUnavailable"),
            m.spec("PodDisruptionBudget").update(minAvailable=2),
        ),
        "PodDisruptionBudget/markethall: would block every drain",
    ),
    Mistake(
        "budget blocks by percent",
        lambda m: (
            m.spec("PodDisruptionBudget").pop("maxUnavailable"),
            m.spec("PodDisruptionBudget").update(minAvailable="51%"),
        ),
        "PodDisruptionBudget/markethall: would block every drain",
    ),
    Mistake(
        "budget with two minds",
        lambda m: m.spec("PodDisruptionBudget").update(minAvailable=1),
        "give exactly one of minAvailable and maxUnavailable",
    ),
    # references
    Mistake(
        "no service account",
        lambda m: m.drop("ServiceAccount", "markethall"),
        "service account markethall does not exist",
    ),
    Mistake(
        "config map without its hash",
        lambda m: m.container()["envFrom"][0]["configMapRef"].update(name="markethall-settings"),
        "ConfigMap markethall-settings does not exist",
    ),
    Mistake(
        "unknown secret",
        lambda m: m.variable("MARKETHALL_REDIS_URL").update(name="valkey"),
        "Secret valkey does not exist",
    ),
    Mistake(
        "unknown key of a secret",
        lambda m: m.variable("MARKETHALL_REDIS_URL").update(key="address"),
        "Secret redis has no key address",
    ),
    Mistake("no such volume", lambda m: m.pod().pop("volumes"), "volume tmp does not exist"),
    Mistake(
        "unknown certificate",
        lambda m: m.spec("Ingress")["tls"][0].update(secretName="certificate"),
        "Ingress/markethall: Secret certificate does not exist",
    ),
    # secrets
    Mistake(
        "secret not given",
        lambda m: m.container("markethall-migrate", "Job").update(env=[]),
        "Job/markethall-migrate: MARKETHALL_SECRET is not given",
    ),
    Mistake(
        "needed secret optional",
        lambda m: m.variable("MARKETHALL_SIGNING_KEY").update(optional=True),
        "Deployment/markethall: MARKETHALL_SIGNING_KEY is not given",
    ),
    Mistake(
        "orders may sign tokens",
        lambda m: m.container("markethall-orders").update(
            env=m.container("markethall-users")["env"]
        ),
        "Deployment/markethall-orders: does not serve users, but may sign tokens",
        "apart",
    ),
    Mistake(
        "two contexts in one database",
        lambda m: m.variable("MARKETHALL_DATABASE_URL", "markethall-orders").update(
            name="database-users"
        ),
        "Secret database-users: 2 Deployments share one database",
        "apart",
    ),
    # contexts
    Mistake(
        "a context nobody serves",
        lambda m: m.settings("markethall-contexts").update(
            MARKETHALL_SERVE="users,inventory,orders"
        ),
        "context payments: served by 0 Deployments",
    ),
    Mistake(
        "a context that is none",
        lambda m: m.settings("markethall-contexts").update(MARKETHALL_SERVE='["users", "stock"]'),
        "context stock: served by 1 Deployments",
    ),
    Mistake(
        "a neighbour nobody told orders of",
        lambda m: m.settings("markethall-contexts-orders").pop("MARKETHALL_REMOTES"),
        "Deployment/markethall-orders: remotes [], but it calls ['inventory', 'payments', 'users']",
        "apart",
    ),
    Mistake(
        "a neighbour at a Service that is not there",
        lambda m: m.settings("markethall-contexts-payments").update(
            MARKETHALL_REMOTES='{"users":"http://users:8000"}'
        ),
        "remote users at http://users:8000 is no Service of that context",
        "apart",
    ),
    Mistake(
        "a neighbour on the wrong port",
        lambda m: m.settings("markethall-contexts-payments").update(
            MARKETHALL_REMOTES='{"users":"http://markethall-users"}'
        ),
        "remote users at http://markethall-users is no Service of that context",
        "apart",
    ),
    Mistake(
        "a neighbour taken for another",
        lambda m: m.settings("markethall-contexts-payments").update(
            MARKETHALL_REMOTES='{"users":"http://markethall-orders:8000"}'
        ),
        "remote users at http://markethall-orders:8000 is no Service of that context",
        "apart",
    ),
    # ingress
    Mistake("path forgotten", lambda m: m.paths().pop(), "Ingress: /ledger is routed 0 times"),
    Mistake(
        "path twice", lambda m: m.paths().append(m.paths()[0]), "Ingress: /users is routed 2 times"
    ),
    Mistake(
        "internal path public",
        lambda m: m.paths().append({**m.paths()[0], "path": "/internal"}),
        "Ingress: /internal must not be public",
    ),
    Mistake(
        "path of another context",
        lambda m: m.paths()[0]["backend"]["service"].update(name="markethall-orders"),
        "Ingress: /users goes to markethall-orders, which does not own it",
        "apart",
    ),
    Mistake(
        "path to no Service",
        lambda m: m.paths()[0]["backend"]["service"].update(name="hall"),
        "Ingress: /users goes to Service hall, which does not exist",
    ),
    Mistake(
        "path to no port",
        lambda m: m.paths()[0]["backend"]["service"].update(port={"number": 80}),
        "Ingress: /users goes to port {'number': 80}, which Service markethall does not have",
    ),
    Mistake(
        "path matched exactly",
        lambda m: m.paths()[0].update(pathType="Exact"),
        "/users is Exact, not Prefix",
    ),
    Mistake(
        "everything else public",
        lambda m: m.spec("Ingress").update(defaultBackend=m.paths()[0]["backend"]),
        "a default backend makes every path public",
    ),
    Mistake("no TLS", lambda m: m.spec("Ingress").pop("tls"), "Ingress/markethall: no TLS"),
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
    # network
    Mistake(
        "no default deny",
        lambda m: m.drop("NetworkPolicy", "default-deny"),
        "NetworkPolicy: a stranger in our namespace -> all/migrate TCP 8000 is open",
    ),
    Mistake(
        "everything open",
        open_everything,
        "NetworkPolicy: the internet -> orders TCP 8000 is open",
        "apart",
    ),
    Mistake(
        "the leaves call each other",
        lambda m: (
            policy_rule(m, "orders-to-leaves", "egress").pop("to"),
            m.spec("NetworkPolicy", "orders-to-leaves").update(podSelector={}),
            policy_rule(m, "leaves-from-orders", "ingress").pop("from"),
        ),
        "NetworkPolicy: inventory -> payments TCP 8000 is open",
        "apart",
    ),
    Mistake(
        "callee not told",
        lambda m: m.drop("NetworkPolicy", "leaves-from-orders"),
        "NetworkPolicy: orders -> inventory TCP 8000 is closed",
        "apart",
    ),
    Mistake(
        "caller not told",
        lambda m: m.drop("NetworkPolicy", "neighbours-to-users"),
        "NetworkPolicy: payments -> users TCP 8000 is closed",
        "apart",
    ),
    Mistake(
        "the migration is left out of DNS",
        lambda m: m.spec("NetworkPolicy", "all-to-dns")["podSelector"]["matchLabels"].update(
            task="serve"
        ),
        "NetworkPolicy: all/migrate -> dns UDP 53 is closed",
    ),
    Mistake(
        "the migration reaches Redis",
        lambda m: m.spec("NetworkPolicy", "serve-to-redis")["podSelector"]["matchLabels"].pop(
            "task"
        ),
        "NetworkPolicy: all/migrate -> redis TCP 6379 is open",
    ),
    Mistake(
        "all ports of Postgres",
        lambda m: policy_rule(m, "all-to-postgres", "egress").pop("ports"),
        "NetworkPolicy: all -> postgres TCP 443 is open",
    ),
    Mistake(
        "a range of ports",
        lambda m: policy_rule(m, "all-to-postgres", "egress").update(
            ports=[{"port": 5432, "endPort": 6400}]
        ),
        "NetworkPolicy: all -> postgres TCP 6379 is open",
    ),
    Mistake(
        "the whole namespace of the data",
        lambda m: policy_rule(m, "all-to-postgres", "egress")["to"][0].pop("podSelector"),
        "NetworkPolicy: all -> redis TCP 5432 is open",
    ),
    Mistake(
        "the wrong named port",
        lambda m: policy_rule(m, "front-to-serve", "ingress").update(ports=[{"port": "metrics"}]),
        "NetworkPolicy: ingress controller -> all TCP 8000 is closed",
    ),
    Mistake(
        "the internet by address",
        lambda m: policy_rule(m, "all-to-dns", "egress").update(
            to=[{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8"]}}]
        ),
        "NetworkPolicy: all -> the internet TCP 53 is open",
    ),
    Mistake(
        "strangers let in",
        lambda m: policy_rule(m, "front-to-serve", "ingress")["from"].append(
            {
                "namespaceSelector": {
                    "matchExpressions": [
                        {"key": "kubernetes.io/metadata.name", "operator": "Exists"}
                    ]
                }
            }
        ),
        "NetworkPolicy: a stranger elsewhere -> all TCP 8000 is open",
    ),
]


@pytest.mark.parametrize("mistake", MISTAKES, ids=[mistake.name for mistake in MISTAKES])
def test_a_planted_mistake_is_found(mistake: Mistake) -> None:
    manifests = Manifests(mistake.overlay)

    mistake.plant(manifests)

    found = findings(manifests.documents)
    assert any(mistake.expected in finding for finding in found), found


def test_the_command_says_what_it_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spoilt = Manifests("together")
    spoilt.pod().pop("enableServiceLinks")
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text(rendered("apart"))
    bad.write_text(yaml.safe_dump_all(spoilt.documents))

    code = main([str(good), str(bad)])

    assert code == 1
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert lines[0].endswith("no finding")
    assert "Deployment/markethall: service links are on" in lines[1]


def test_the_command_is_content_with_both_overlays(tmp_path: Path) -> None:
    files = [tmp_path / f"{overlay}.yaml" for overlay in OVERLAYS]
    for overlay, file in zip(OVERLAYS, files, strict=True):
        file.write_text(rendered(overlay))

    assert main([str(file) for file in files]) == 0


def test_the_command_without_files_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "RENDERED.yaml" in capsys.readouterr().err
