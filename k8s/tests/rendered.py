"""The overlays as `kubectl kustomize` renders them."""

import copy
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).parents[1]
OVERLAYS = ("together", "moving", "apart")

Document = dict[str, Any]


@cache
def rendered(overlay: str) -> str:
    kubectl = shutil.which("kubectl")
    assert kubectl, "kubectl must be on PATH: these tests render the overlays as a deployment would"
    command = [kubectl, "kustomize", str(REPOSITORY / "k8s" / overlay)]
    return subprocess.run(command, capture_output=True, check=True, text=True).stdout


@cache
def parsed(overlay: str) -> list[Document]:
    return list(yaml.safe_load_all(rendered(overlay)))


class Manifests:
    """A copy of one rendered overlay, to be spoilt."""

    def __init__(self, overlay: str) -> None:
        self.documents = copy.deepcopy(parsed(overlay))

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
            if each["metadata"]["name"].rpartition("-")[0] == name
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

    def give(self, name: str, variable: str, secret: str) -> None:
        """One variable more for a Deployment; `secret` is name/key."""
        secret, _, key = secret.partition("/")
        source = {"secretKeyRef": {"name": secret, "key": key}}
        self.container(name)["env"].append({"name": variable, "valueFrom": source})

    def paths(self) -> list[Document]:
        paths: list[Document] = self.spec("Ingress")["rules"][0]["http"]["paths"]
        return paths

    def rule(self, policy: str, direction: str) -> Document:
        """The one rule of a network policy in that direction."""
        rule: Document = self.spec("NetworkPolicy", policy)[direction][0]
        return rule

    def open_everything(self) -> None:
        for policy in self.all("NetworkPolicy"):
            policy["spec"] |= {
                "ingress": [{}],
                "egress": [{}],
                "policyTypes": ["Ingress", "Egress"],
            }
