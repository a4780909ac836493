"""Test that a process does not import the libraries of features that it does not use."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

CREATE = """
import sys
from markethall import cli, server
from markethall.app import create_app
from markethall.settings import read_settings
create_app(read_settings())
print(*sys.modules)
"""


@pytest.mark.parametrize("library", ["redis", "alembic", "mako", "fpdf", "PIL"])
def test_monolith_without_redis_does_not_import(library: str, imported: frozenset[str]) -> None:
    assert library not in imported


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> frozenset[str]:
    """The modules of a process that has created the application with a database."""
    return modules_of(tmp_path_factory.mktemp("data"))


def test_process_with_redis_imports_its_client(tmp_path: Path) -> None:
    assert "redis" in modules_of(tmp_path, MARKETHALL_REDIS_URL="redis://localhost:1")


def modules_of(folder: Path, **settings: str) -> frozenset[str]:
    inherited = {name: text for name, text in os.environ.items() if "MARKETHALL" not in name}
    given = {"MARKETHALL_DATABASE_URL": "postgresql://x@localhost/x"} | settings
    process = subprocess.run(
        [sys.executable, "-c", CREATE],
        env=inherited | {"MARKETHALL_DATA_DIR": str(folder)} | given,
        capture_output=True,
        text=True,
        check=True,
    )
    return frozenset(process.stdout.split())
