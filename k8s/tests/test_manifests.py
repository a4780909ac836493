"""The overlays pass scripts/check_manifests, and agree with docs/deployment.md."""

import os
import string
from pathlib import Path

import pytest

from k8s.tests.rendered import OVERLAYS, Document, found, parsed
from markethall import __version__
from markethall.contexts import context_names, topology
from markethall.secret_keys import load_or_create_secrets
from markethall.settings import Settings, read_settings
from markethall.shared.security.access_tokens import generate_private_key
from scripts.check_manifests import findings
from scripts.check_manifests.manifests import COMPONENT, Manifests, Workload


def labelled(overlay: str, label: str, value: str) -> list[Document]:
    """Return the objects that `kubectl apply -l label=value` selects."""
    return [each for each in parsed(overlay) if each["metadata"]["labels"].get(label) == value]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_overlays_have_no_finding(overlay: str) -> None:
    assert findings(parsed(overlay)) == []


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_image_tag_is_project_version(overlay: str) -> None:
    images = {
        container["image"]
        for workload in Manifests(parsed(overlay)).workloads
        for container in workload.containers
    }

    assert images == {f"markethall:{__version__}"}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_secret_is_rendered(overlay: str) -> None:
    assert not [each for each in parsed(overlay) if each["kind"] == "Secret"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_objects_of_a_first_run_can_be_selected_by_their_task(overlay: str) -> None:
    """docs/deployment.md runs the migrations with `-l 'task != serve'` before the Deployments."""
    serving = {each["kind"] for each in labelled(overlay, "task", "serve")}
    routing = {each["kind"] for each in labelled(overlay, "task", "route")}
    others = {
        each["kind"]
        for each in parsed(overlay)
        if each["metadata"]["labels"].get("task") not in ("serve", "route")
    }

    assert serving == {"Deployment", "HorizontalPodAutoscaler", "PodDisruptionBudget"}
    assert routing == {"Service", "Ingress"}
    assert others == {
        "Namespace",
        "ServiceAccount",
        "ConfigMap",
        "NetworkPolicy",
        "PersistentVolumeClaim",
        "Job",
    }


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_services_are_created_before_the_pods_that_resolve_them(overlay: str) -> None:
    """A process that cannot resolve the name of a remote context does not start."""
    kinds = [each["kind"] for each in parsed(overlay)]

    last_service = max(index for index, kind in enumerate(kinds) if kind == "Service")
    assert last_service < kinds.index("Deployment")


@pytest.mark.parametrize("context", context_names())
def test_a_service_is_rolled_out_by_its_label(context: str) -> None:
    kinds = sorted(each["kind"] for each in labelled("split", COMPONENT, context))

    assert kinds == [
        "ConfigMap",
        "Deployment",
        "HorizontalPodAutoscaler",
        "Job",
        "PodDisruptionBudget",
        "Service",
    ]


def test_an_extracted_service_is_the_same_in_relocation_and_in_split() -> None:
    objects = labelled("relocation", COMPONENT, "inventory")

    assert objects == labelled("split", COMPONENT, "inventory")
    assert len(objects) == 6


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_overlay_has_the_same_services_and_paths(overlay: str) -> None:
    services = {each["metadata"]["name"] for each in parsed(overlay) if each["kind"] == "Service"}

    assert services == {f"markethall-{context}" for context in context_names()}
    assert found(overlay, "Ingress") == found("monolith", "Ingress")


@pytest.mark.parametrize("overlay", ["monolith", "relocation"])
def test_the_monolith_has_three_pods_and_scales_from_two_to_ten(overlay: str) -> None:
    scaler = found(overlay, "HorizontalPodAutoscaler")["spec"]

    assert found(overlay, "Deployment")["spec"]["replicas"] == 3
    assert (scaler["minReplicas"], scaler["maxReplicas"]) == (2, 10)
    assert scaler["metrics"][0]["resource"]["target"]["averageUtilization"] == 70


def test_relocation_changes_the_deployment_of_the_monolith_in_place() -> None:
    """Kubernetes rejects a new selector for an existing Deployment, so it must not change."""
    before, after = found("monolith", "Deployment"), found("relocation", "Deployment")

    assert before["spec"]["selector"] == after["spec"]["selector"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_application_accepts_the_settings_of_every_pod(
    overlay: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    manifests = Manifests(parsed(overlay))

    for workload in manifests.workloads:
        given = manifests.settings(workload) | secrets_of(workload)
        settings = settings_of(given, tmp_path / "home", monkeypatch)
        keys = load_or_create_secrets(settings)

        assert settings.environment == "production"
        assert sorted(settings.contexts) == sorted(manifests.served(workload))
        assert settings.drain_seconds == 0, "preStop waits already"
        assert bool(keys.access_token_private_key) == ("users" in settings.contexts)
        assert bool(keys.service_token_private_key) == (
            "MARKETHALL_SERVICE_TOKEN_PRIVATE_KEY" in given
        )
        assert not settings.data_directory.exists(), "a read-only pod cannot store a generated key"


def settings_of(given: dict[str, str], home: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Return the settings that the application reads if it has only these variables."""
    classes = [Settings, *(c for m in topology().manifests for c in m.settings_classes)]
    known = {f"MARKETHALL_{name.upper()}" for kind in classes for name in kind.model_fields}
    assert given.keys() <= known
    with monkeypatch.context() as environment:
        for name in os.environ.keys() & known:
            environment.delenv(name)
        for name, value in given.items():
            environment.setenv(name, value)
        environment.setenv("MARKETHALL_DATA_DIR", str(home))
        return read_settings()


def secrets_of(workload: Workload) -> dict[str, str]:
    """Return a valid value for each secret variable of the workload."""
    values = {
        "MARKETHALL_DATABASE_URL": "postgresql://markethall:secret@database/markethall",
        "MARKETHALL_REDIS_URL": "redis://redis:6379/0",
        "MARKETHALL_ADMIN_EMAIL": "admin@example.com",
        "MARKETHALL_ACCESS_TOKEN_PRIVATE_KEY": generate_private_key(),
        "MARKETHALL_SERVICE_TOKEN_PRIVATE_KEY": generate_private_key(),
    }
    return {
        each["name"]: values.get(each["name"], string.ascii_letters) for each in workload.variables
    }
