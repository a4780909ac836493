"""The Job for `markethall relocate` fits the overlays, and the command accepts its settings."""

import copy
from pathlib import Path

import pytest

from k8s.tests.rendered import REPOSITORY, Document, changed, parsed, relocation_job
from k8s.tests.test_manifests import secrets_of, settings_of
from scripts.check_manifests import findings
from scripts.check_manifests.manifests import Manifests, Workload


def container_of(job: Document) -> Document:
    container: Document = job["spec"]["template"]["spec"]["containers"][0]
    return container


@pytest.mark.parametrize("overlay", ["relocation", "split"])
def test_the_job_has_no_finding_beside_an_overlay(overlay: str) -> None:
    assert findings([*parsed(overlay), relocation_job()]) == []


def test_a_mistake_in_the_job_is_found() -> None:
    job = copy.deepcopy(relocation_job())
    container_of(job)["args"][1] = "orders"
    container_of(job)["env"][0]["valueFrom"]["secretKeyRef"]["name"] = "database"

    found = findings([*parsed("relocation"), job])

    assert [each.partition(": ")[2][:28] for each in found] == [
        "has the secrets [('database'",
        "does not relocate inventory",
    ]


def test_the_job_needs_the_policies_of_the_overlay() -> None:
    overlay = changed("relocation", {"NetworkPolicy/all-to-postgres": None})

    found = findings([*overlay, relocation_job()])

    assert "NetworkPolicy: inventory/relocate -> postgres TCP 5432 is closed" in found


def test_image_is_the_target_of_the_dockerfile_with_the_version_of_the_overlays() -> None:
    (job, serving) = (
        Workload(relocation_job()),
        Manifests(parsed("relocation")).deployments[0],
    )
    name, tag = job.containers[0]["image"].split(":")
    dockerfile = (REPOSITORY / "Dockerfile").read_text()

    assert name == "markethall-relocate"
    assert tag == serving.containers[0]["image"].split(":")[1]
    assert "\nFROM base AS relocate\n" in dockerfile
    assert (
        f"--target relocate --tag {name}:{tag} ."
        in (REPOSITORY / "docs" / "deployment.md").read_text()
    )


def test_pod_has_the_restrictions_of_the_other_pods() -> None:
    pod, other = Workload(relocation_job()).pod, Manifests(parsed("relocation")).deployments[0].pod

    for field in ("securityContext", "serviceAccountName", "automountServiceAccountToken"):
        assert pod[field] == other[field]
    for field in ("securityContext", "resources", "volumeMounts"):
        assert pod["containers"][0][field] == other["containers"][0][field]


def test_the_command_accepts_the_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    job = Workload(relocation_job())
    given = secrets_of(job)
    del given["RELOCATION_TARGET"]  # not a setting: Kubernetes inserts the variable into `args`

    settings = settings_of(given, tmp_path / "home", monkeypatch)

    assert settings.database_url_of("inventory") == given["MARKETHALL_DATABASE_URL"]
