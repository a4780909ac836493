"""Checks a rendered Kustomize overlay.

kubernetes-validate checks the schemas, for the oldest and the newest supported Kubernetes. The
other checks compare objects: selectors with pods, ports with containers, probes with the grace
period, secrets with processes, Ingress paths and network policies with the manifests of the
contexts. Pod Security "restricted" is not checked, because the API server checks it.
"""

from collections.abc import Iterable
from typing import Final

from scripts.check_manifests import network, objects, topology
from scripts.check_manifests.manifests import Check, Document, Manifests

CHECKS: Final[tuple[Check, ...]] = (
    objects.check_namespaces,
    objects.check_selectors,
    objects.check_scaling,
    objects.check_pods,
    topology.check_contexts,
    topology.check_ingress,
    topology.check_references,
    topology.check_secrets,
    network.check_edges,
)


def findings(documents: Iterable[Document]) -> list[str]:
    """Return all findings.

    The other checks rely on valid schemas, so they are skipped if a document violates its schema.
    """
    manifests = Manifests(documents)
    return list(objects.check_schemas(manifests)) or [
        finding for check in CHECKS for finding in check(manifests)
    ]
