"""Can the deployment that `kubectl kustomize` rendered work, and does it open only what it must?

    python -m scripts.check_manifests RENDERED.yaml...

Each file is one rendered overlay. Schemas are checked strictly, against the oldest and the newest
Kubernetes promised. The rest is what a schema cannot see: that names meet their objects, selectors
their pods, ports their containers, network policies the intended edges and Ingress paths their
owners, and that each process has the secrets that it needs and no other. Whose path, whose call and
whose keys are the tables of markethall.contexts. Exit code 1 when anything is found.
"""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import yaml

from scripts.check_manifests import contexts, network, objects, pods, secrets
from scripts.check_manifests.hall import Check, Document, Hall

CHECKS: Final[tuple[Check, ...]] = (
    objects.check_namespaces,
    objects.check_kinds,
    objects.check_names,
    objects.check_own_pods,
    objects.check_services,
    objects.check_policies_match,
    objects.check_disruption,
    objects.check_scalers,
    objects.check_completeness,
    secrets.check_references,
    secrets.check_secrets,
    secrets.check_databases,
    contexts.check_contexts,
    contexts.check_ingress,
    contexts.check_front,
    pods.check_pods,
    pods.check_serving,
    network.check_edges,
)


def findings(documents: Iterable[Document]) -> list[str]:
    """Everything wrong with one rendered overlay; only what schemas find, if they do."""
    hall = Hall(documents)
    # The other checks take the shape for granted, so it must be right first.
    of_schemas = list(objects.check_schemas(hall))
    return of_schemas or [finding for check in CHECKS for finding in check(hall)]


def main(files: list[str]) -> int:
    if not files:
        sys.stderr.write(f"{__doc__}\n")
        return 2
    found = 0
    for file in files:
        documents = [
            document
            for document in yaml.safe_load_all(Path(file).read_text(encoding="utf-8"))
            if document
        ]
        wrong = findings(documents)
        found += len(wrong)
        for line in wrong or [f"{len(documents)} documents, no finding"]:
            sys.stdout.write(f"{file}: {line}\n")
    return 1 if found else 0
