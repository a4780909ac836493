"""Test that the documents name only settings, commands, targets, files and metrics that exist."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import typer
from pydantic_settings import BaseSettings

from markethall.cli import cli
from markethall.contexts import topology
from markethall.settings import Settings
from scripts.monitoring.metric_table import list_metrics

ROOT: Final = Path(__file__).parents[1]
# the changelog contains names of removed things, and decisions contain names of rejected things
DOCUMENTS: Final = sorted(
    path
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "bench/README.md"]
    if path.name != "CHANGELOG.md"
)
FOLDERS: Final = (
    *("bench", "clients", "compose", "docs", "examples", "k8s", "migrations", "monitoring"),
    *("requirements", "scripts", "src", "tests"),
)
# these documents build, step by step, a package that is not in this repository
TUTORIALS: Final = frozenset({"writing-a-context.md", "writing-a-payment-provider.md"})
# variables of the command line, not of the settings
OTHER_VARIABLES: Final = frozenset(
    {
        *("MARKETHALL_ENV_FILE", "MARKETHALL_SECRETS_DIR"),
        *("MARKETHALL_HOST", "MARKETHALL_PORT"),
    }
)
# `make` writes this file, and git ignores it
GENERATED_FILES: Final = frozenset({"clients/openapi.json"})
TEST_VARIABLE: Final = "MARKETHALL_TEST_"
METRIC_NAMES: Final = {
    name for metric in list_metrics() for name in (metric.name, *metric.sample_names)
}

each_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
each_reference = pytest.mark.parametrize(
    "document",
    [path for path in DOCUMENTS if path.name not in TUTORIALS],
    ids=lambda path: path.name,
)


def setting_names() -> set[str]:
    manifests = topology().manifests
    classes: list[type[BaseSettings]] = [
        Settings,
        *(each for one in manifests for each in one.settings_classes),
    ]
    return {f"MARKETHALL_{name.upper()}" for each in classes for name in each.model_fields}


def code_of(document: Path) -> str:
    """Return the code spans and code blocks of the document, a line for each."""
    text = document.read_text()
    blocks = re.findall(r"^\s*```\w*\n(.*?)^\s*```", text, re.MULTILINE | re.DOTALL)
    spans = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    return "\n".join([*blocks, *spans])


@each_reference
def test_settings_exist(document: Path) -> None:
    named = set(re.findall(r"\bMARKETHALL_[A-Z0-9_]*[A-Z0-9]\b(?![_…*])", document.read_text()))
    known = setting_names() | OTHER_VARIABLES

    assert {name for name in named - known if not name.startswith(TEST_VARIABLE)} == set()


@each_document
def test_commands_exist(document: Path) -> None:
    commands = set(command_paths(typer.main.get_command(cli)))
    groups = {path.rpartition(" ")[0] for path in commands} - {""}
    found = re.findall(
        r"^(?:[\w/.]*bin/)?markethall +([a-z][\w-]*)(?: +([a-z][\w-]*))?",
        code_of(document),
        re.MULTILINE,
    )
    named = {f"{first} {second}" if first in groups else first for first, second in found}

    assert {name.strip() for name in named} - commands - groups == set()


def command_paths(command: Any, prefix: str = "") -> Iterator[str]:
    for name, each in getattr(command, "commands", {}).items():
        yield prefix + name
        yield from command_paths(each, f"{prefix}{name} ")


@each_document
def test_make_targets_exist(document: Path) -> None:
    targets = set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"^make ([a-z][\w-]*)", code_of(document), re.MULTILINE))

    assert named - targets == set()


def test_each_reduced_test_runs_in_full_by_a_make_target() -> None:
    commands = (ROOT / "Makefile").read_text().replace("\\\n", " ").splitlines()
    full_runs = [line for line in commands if "MARKETHALL_TEST_SCOPE=full" in line]
    paths = [ROOT / word for line in full_runs for word in line.split() if "/" in word]
    reduced = [
        path
        for path in (ROOT / "tests").rglob("test_*.py")
        if re.search(r"MARKETHALL_TEST_SCOPE\"|race_rounds\(", path.read_text())
    ]

    missing = [path for path in reduced if not {path, *path.parents} & set(paths)]
    assert (missing, bool(reduced)) == ([], True)


@each_reference
def test_files_exist(document: Path) -> None:
    path = re.compile(rf"(?<![\w/.~-])((?:{'|'.join(FOLDERS)})/[\w./-]*\w)")
    named: Iterable[str] = path.findall(code_of(document))

    assert [name for name in named if not exists(name)] == []


def exists(name: str) -> bool:
    return name in GENERATED_FILES or any(
        (folder / name).exists() for folder in (ROOT, ROOT / "src/markethall")
    )


@each_document
def test_metrics_exist(document: Path) -> None:
    named = set(re.findall(r"\bmarkethall_[a-z0-9_]+\b(?!…)", code_of(document)))
    counted = ("_total", "_seconds", "_open", "_info", "_available")

    assert {name for name in named if name.endswith(counted)} - METRIC_NAMES == set()
