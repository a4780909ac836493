"""The overlays pass the check, and are what docs/deployment.md says of them."""

import os
import string
import tomllib
from pathlib import Path

import pytest
import yaml
from k8s.rendered import OVERLAYS, REPOSITORY, Document, Manifests, parsed, rendered

from markethall.contexts import context_names
from markethall.secret_keys import load_or_create_secrets
from markethall.settings import Settings, read_settings
from markethall.shared.security.access_tokens import generate_private_key
from scripts.check_manifests import findings, main
from scripts.check_manifests.hall import COMPONENT, Hall, Workload


def labelled(overlay: str, label: str, value: str) -> list[Document]:
    """What `kubectl apply -l label=value` would take of it."""
    return [each for each in parsed(overlay) if each["metadata"]["labels"].get(label) == value]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_overlays_have_no_finding(overlay: str) -> None:
    assert findings(parsed(overlay)) == []


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_image_tag_is_project_version(overlay: str) -> None:
    version = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["version"]

    images = {
        container["image"]
        for each in parsed(overlay)
        if each["kind"] in ("Deployment", "Job")
        for container in each["spec"]["template"]["spec"]["containers"]
    }

    assert images == {f"markethall:{version}"}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_secret_is_rendered(overlay: str) -> None:
    assert not [each for each in parsed(overlay) if each["kind"] == "Secret"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_first_run_can_exclude_serving_pods(overlay: str) -> None:
    """docs/deployment.md migrates with `-l 'task != serve'` before anything is served."""
    serving = {each["kind"] for each in labelled(overlay, "task", "serve")}
    routing = {each["kind"] for each in labelled(overlay, "task", "route")}
    others = {
        each["kind"]
        for each in parsed(overlay)
        if each["metadata"]["labels"].get("task") not in ("serve", "route")
    }

    assert serving == {"Deployment", "HorizontalPodAutoscaler", "PodDisruptionBudget"}
    assert routing == {"Service", "Ingress"}
    assert others == {"Namespace", "ServiceAccount", "ConfigMap", "NetworkPolicy", "Job"}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_services_are_applied_before_deployments(overlay: str) -> None:
    """A process that is told of a neighbour whose name nobody knows does not start."""
    kinds = [each["kind"] for each in parsed(overlay)]

    last_name = max(place for place, kind in enumerate(kinds) if kind == "Service")
    assert last_name < kinds.index("Deployment")


@pytest.mark.parametrize("context", context_names())
def test_context_deployment_is_selected_by_label(context: str) -> None:
    kinds = sorted(each["kind"] for each in labelled("apart", COMPONENT, context))

    assert kinds == [
        "ConfigMap",
        "Deployment",
        "HorizontalPodAutoscaler",
        "Job",
        "PodDisruptionBudget",
        "Service",
    ]


def test_extracted_context_is_same_during_and_after_split() -> None:
    moving = labelled("moving", COMPONENT, "inventory")

    assert moving == labelled("apart", COMPONENT, "inventory")
    assert len(moving) == 6


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_context_has_service_and_paths_in_every_overlay(overlay: str) -> None:
    manifests = Manifests(overlay)

    services = {each["metadata"]["name"] for each in manifests.all("Service")}

    assert services == {f"markethall-{context}" for context in context_names()}
    assert manifests.get("Ingress", "markethall") == Manifests("together").get(
        "Ingress", "markethall"
    )


@pytest.mark.parametrize("overlay", ["together", "moving"])
def test_monolith_runs_three_pods_and_scales_two_to_ten(overlay: str) -> None:
    manifests = Manifests(overlay)

    scaler = manifests.spec("HorizontalPodAutoscaler")

    assert manifests.spec("Deployment")["replicas"] == 3
    assert (scaler["minReplicas"], scaler["maxReplicas"]) == (2, 10)
    assert scaler["metrics"][0]["resource"]["target"]["averageUtilization"] == 70


def test_monolith_is_updated_during_extraction() -> None:
    """The selector of a Deployment cannot be changed, and its name is its identity."""
    before, after = Manifests("together"), Manifests("moving")

    assert before.spec("Deployment")["selector"] == after.spec("Deployment")["selector"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pod_settings_are_valid(
    overlay: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hall = Hall(parsed(overlay))

    for workload in hall.workloads:
        told = hall.settings(workload) | secrets_of(workload)
        settings = settings_of(told, tmp_path / "home", monkeypatch)
        keys = load_or_create_secrets(settings)

        assert settings.environment == "production"
        assert sorted(settings.contexts) == sorted(hall.served(workload))
        assert settings.drain_seconds == 0, "preStop pauses already"
        assert bool(keys.access_token_private_key) == ("users" in settings.contexts)
        assert bool(keys.service_token_private_key) == (
            "MARKETHALL_SERVICE_TOKEN_PRIVATE_KEY" in told
        )
        assert not settings.data_directory.exists(), "a read-only pod cannot keep a key of its own"


def settings_of(told: dict[str, str], home: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """As the application reads them, in an environment with nothing else of ours in it."""
    known = {f"MARKETHALL_{name.upper()}" for name in Settings.model_fields}
    assert told.keys() <= known
    with monkeypatch.context() as environment:
        for name in os.environ.keys() & known:
            environment.delenv(name)
        for name, value in told.items():
            environment.setenv(name, value)
        environment.setenv("MARKETHALL_DATA_DIR", str(home))
        return read_settings()


def secrets_of(workload: Workload) -> dict[str, str]:
    """Something fit for production in place of each secret."""
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


def test_command_prints_findings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
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


def test_command_accepts_every_overlay(tmp_path: Path) -> None:
    files = [tmp_path / f"{overlay}.yaml" for overlay in OVERLAYS]
    for overlay, file in zip(OVERLAYS, files, strict=True):
        file.write_text(rendered(overlay))

    assert main([str(file) for file in files]) == 0


def test_command_without_files_prints_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "RENDERED.yaml" in capsys.readouterr().err
