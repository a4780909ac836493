"""Test that the clients in `clients/` are released together with the application."""

import json
import re
import tomllib
from pathlib import Path

from markethall import __version__
from markethall.app import create_app
from markethall.settings import read_settings

CLIENTS = Path(__file__).parents[1] / "clients"


def test_typescript_client_has_the_version_of_the_application() -> None:
    package = json.loads((CLIENTS / "typescript/package.json").read_text())
    lock = json.loads((CLIENTS / "typescript/package-lock.json").read_text())

    assert package["version"] == __version__
    assert lock["packages"][""]["version"] == __version__


def test_python_client_has_the_version_of_the_application() -> None:
    project = tomllib.loads((CLIENTS / "python/pyproject.toml").read_text())
    module = (CLIENTS / "python/src/markethall_client/__init__.py").read_text()

    assert project["project"]["version"] == __version__
    assert re.findall(r'^__version__ = "(.*)"$', module, re.MULTILINE) == [__version__]


def test_lock_file_has_hashes_and_no_addresses() -> None:
    lock = json.loads((CLIENTS / "typescript/package-lock.json").read_text())

    packages = {name: entry for name, entry in lock["packages"].items() if name}

    assert packages
    assert not [name for name, entry in packages.items() if "integrity" not in entry]
    assert not [name for name, entry in packages.items() if "resolved" in entry]


def test_schemas_are_the_same_in_requests_and_responses() -> None:
    """FastAPI divides a schema that differs into `Name-Input` and `Name-Output`.

    Generated clients would have two models of the same name. The usual cause is a constraint on
    `Text` that only one of the two schemas shows: use `str` with `Field(strict=True, pattern=…)`.
    """
    settings = read_settings(storage="memory", environment="development")
    document = create_app(settings).app.openapi()

    assert [name for name in document["components"]["schemas"] if "-" in name] == []
