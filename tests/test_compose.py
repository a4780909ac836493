"""The files for Docker Compose agree with the settings and with the paths of the contexts."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from markethall.contexts import topology
from markethall.settings import read_settings

_ROOT = Path(__file__).parent.parent
_COMPOSE = yaml.safe_load((_ROOT / "compose.yaml").read_text())
_SERVICES: dict[str, Any] = _COMPOSE["services"]
_CONTEXTS = sorted(topology().contexts)


def _environment(service: str) -> dict[str, str]:
    """Return the variables of a service, with the defaults for those of the user."""
    variables = _SERVICES[service]["environment"]
    return {name: re.sub(r"\$\{\w+:-(.*)\}", r"\1", text) for name, text in variables.items()}


@pytest.mark.parametrize("service", ["app", *_CONTEXTS])
def test_settings_of_services_are_valid(service: str, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = _environment(service)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    settings = read_settings()

    known = (_ROOT / "docs/configuration.md").read_text()
    assert [name for name in environment if f"`{name}`" not in known] == []
    expected = set(_CONTEXTS) if service == "app" else {service}
    assert settings.contexts == expected
    others = set(_CONTEXTS) - expected
    assert settings.context_urls == {other: f"http://{other}:8000" for other in others}


def test_split_profile_has_a_service_for_each_context() -> None:
    split = {name for name, service in _SERVICES.items() if "split" in service.get("profiles", ())}

    assert split == {*_CONTEXTS, "proxy"}
    assert sorted(_SERVICES["proxy"]["depends_on"]) == _CONTEXTS


def test_proxy_routes_each_path_to_its_context() -> None:
    routes = re.findall(
        r"^ +~\^/\((\S+?)\)\(/\|\$\) (\w+);$",
        (_ROOT / "compose/proxy.conf").read_text(),
        re.MULTILINE,
    )

    found = {context: set(paths.replace("\\", "").split("|")) for paths, context in routes}
    assert found == {
        manifest.name: set(manifest.path_prefixes) for manifest in topology().manifests
    }
