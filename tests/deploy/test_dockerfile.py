"""Test the text of the Dockerfile, and run its health check."""

import json
import os
import re
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import NamedTuple

import pytest

from markethall import __version__

REPOSITORY = Path(__file__).parents[2]
COMPILERS = (
    "build-essential",
    "gcc",
    "g++",
    "clang",
    "make",
    "-dev",
    "cargo",
    "rustc",
    "apt-get",
    "apk ",
)


class Instruction(NamedTuple):
    name: str
    rest: str


def instructions() -> list[Instruction]:
    text = re.sub(r"^\s*#.*\n", "", (REPOSITORY / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", " ", text).splitlines()
    return [Instruction(*line.split(maxsplit=1)) for line in lines if line.strip()]


def stages() -> list[list[Instruction]]:
    """Return the instructions of each build stage; the first instruction is FROM."""
    all_instructions = instructions()
    starts = [
        index for index, instruction in enumerate(all_instructions) if instruction.name == "FROM"
    ]
    return [
        all_instructions[start:end]
        for start, end in zip(starts, [*starts[1:], len(all_instructions)], strict=True)
    ]


def stage(name: str) -> list[Instruction]:
    return next(each for each in stages() if each[0].rest.endswith(f" AS {name}"))


def image(name: str) -> list[Instruction]:
    """Return all instructions of an image: first those of its base stages, then its own."""
    own = stage(name)
    base = own[0].rest.split()[0]
    return [*([] if base == "${PYTHON_IMAGE}" else image(base)), *own]


def final(name: str) -> list[str]:
    return [instruction.rest for instruction in image("run") if instruction.name == name]


def runs(stage: list[Instruction]) -> str:
    return "\n".join(instruction.rest for instruction in stage if instruction.name == "RUN")


def health_check() -> list[str]:
    options, _, command = final("HEALTHCHECK")[0].partition("CMD ")
    assert "--timeout=" in options
    arguments: list[str] = json.loads(command)
    return arguments


def test_hadolint_reports_nothing() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")

    result = subprocess.run(
        [hadolint, REPOSITORY / "Dockerfile"], capture_output=True, check=False, text=True
    )

    assert (result.returncode, result.stdout) == (0, "")
    assert "hadolint ignore" not in (REPOSITORY / "Dockerfile").read_text()
    assert not list(REPOSITORY.glob(".hadolint.y*ml"))


def test_all_stages_use_same_configurable_slim_image() -> None:
    bases = {each[0].rest.split()[0] for each in stages()}

    assert instructions()[0] == Instruction("ARG", "PYTHON_IMAGE=python:3.13-slim")
    assert bases == {"${PYTHON_IMAGE}", "dependencies", "base"}


def test_default_target_is_the_image_that_serves() -> None:
    assert stages()[-1] == stage("run")


def test_revision_invalidates_no_layer() -> None:
    """An argument is part of the cache key of all instructions after it, so only LABEL follows."""
    names = [instruction.name for instruction in stage("run")]

    assert names == ["FROM", "ARG", "ARG", "LABEL"]
    assert next(each for each in instructions() if "REVISION" in each.rest) in stage("run")


def test_source_is_copied_after_the_dependencies_are_installed() -> None:
    assert [each.rest for each in stage("dependencies") if each.name == "COPY"] == [
        "requirements/ requirements/"
    ]
    assert "src/ src/" in [each.rest for each in stage("package") if each.name == "COPY"]


def test_relocate_target_adds_the_programs_of_postgres() -> None:
    """pg_dump and psql come from a Python wheel, so this target needs no system package."""
    (copied,) = [each.rest for each in stage("relocate") if each.name == "COPY"]

    assert copied == "--from=programs /opt/programs/opt/markethall /opt/markethall"
    assert "requirements/relocate.txt" in runs(stage("programs"))
    assert json.loads(
        next(each.rest for each in image("relocate") if each.name == "ENTRYPOINT")
    ) == ["markethall"]


def test_downloads_are_locked_by_hash() -> None:
    installs = [
        step
        for step in runs(instructions()).replace("\n", "&&").split("&&")
        if re.search(r"pip.* install ", step)
    ]

    fetching = [step for step in installs if "--no-index" not in step]

    assert len(fetching) == 3
    assert all("--require-hashes" in step and "--only-binary :all:" in step for step in fetching)


@pytest.mark.parametrize("locked", ["run", "build", "relocate"])
def test_locked_requirements_have_hashes(locked: str) -> None:
    lines = (REPOSITORY / "requirements" / f"{locked}.txt").read_text().splitlines()
    pinned = [
        index
        for index, line in enumerate(lines)
        if "==" in line and not line.startswith((" ", "#"))
    ]

    assert pinned
    assert all(lines[index + 1].strip().startswith("--hash=sha256:") for index in pinned)


def test_wheel_is_installed_without_dependencies() -> None:
    steps = runs(stage("package"))

    assert re.search(r"pip wheel --no-deps --no-build-isolation --no-index", steps)
    assert re.search(r"install --no-deps --no-index --root /opt/package dist/\*\.whl", steps)


@pytest.mark.parametrize("compiler", COMPILERS)
def test_no_compiler_is_installed(compiler: str) -> None:
    assert compiler not in runs(instructions())


def test_final_stage_only_copies_build_output() -> None:
    assert "pip" not in runs(image("run"))
    assert final("COPY") == [
        "--from=dependencies /opt/markethall /opt/markethall",
        "--from=package /opt/package/opt/markethall /opt/markethall",
    ]
    assert final("ADD") == []


def test_container_runs_as_dedicated_numeric_user() -> None:
    user, _, group = final("USER")[-1].partition(":")

    assert int(user) >= 10_000
    assert int(group) >= 10_000


def test_root_filesystem_can_be_read_only() -> None:
    environment = " ".join(final("ENV"))

    assert "PYTHONDONTWRITEBYTECODE=1" in environment
    assert all("compileall" in runs(stage(name)) for name in ("dependencies", "package", "base"))
    assert final("VOLUME") == []


@pytest.mark.parametrize("name", ["ENTRYPOINT", "CMD"])
def test_commands_use_exec_form(name: str) -> None:
    (command,) = final(name)

    assert all(isinstance(argument, str) for argument in json.loads(command))


def test_the_default_command_serves_on_the_exposed_port() -> None:
    (port,) = final("EXPOSE")

    assert json.loads(final("ENTRYPOINT")[0]) == ["markethall"]
    assert final("CMD") == ['["serve", "--host", "0.0.0.0"]']
    assert f"MARKETHALL_PORT={port}" in final("ENV")[-1]


def test_stop_signal_is_sigterm() -> None:
    assert final("STOPSIGNAL") == ["SIGTERM"]


def test_labels_follow_oci_and_the_project() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    labels = dict(re.findall(r'org\.opencontainers\.image\.(\w+)="([^"]*)"', final("LABEL")[0]))

    assert labels.keys() >= {"title", "description", "licenses", "version", "revision"}
    assert labels["licenses"] == project["license"]
    assert f"VERSION={__version__}" in final("ARG")


def test_build_context_is_an_allow_list() -> None:
    lines = (REPOSITORY / ".dockerignore").read_text().splitlines()
    allowed = {line.removeprefix("!") for line in lines if line.startswith("!")}
    copied = {
        source.rstrip("/")
        for instruction in instructions()
        if instruction.name == "COPY" and not instruction.rest.startswith("--from=")
        for source in instruction.rest.split()[:-1]
    }

    assert next(line for line in lines if not line.startswith("#")) == "*"
    assert allowed == copied


@contextmanager
def health_server(status: int) -> Iterator[int]:
    """Yield the port of a server that responds to /health with the status, else with 404."""

    class Health(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/health" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Do nothing, so that requests do not appear in the test output."""

    with HTTPServer(("127.0.0.1", 0), Health) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def health_check_exit_code(port: int) -> int:
    _, *arguments = health_check()
    environment = os.environ | {"MARKETHALL_PORT": str(port), "http_proxy": "http://192.0.2.1:9"}
    command = [sys.executable, *arguments]
    return subprocess.run(
        command, check=False, env=environment, stderr=subprocess.DEVNULL
    ).returncode


@pytest.mark.parametrize(("status", "expected"), [(200, 0), (503, 1), (404, 1)])
def test_health_check_follows_health_endpoint(status: int, expected: int) -> None:
    with health_server(status) as port:
        assert health_check_exit_code(port) == expected


def test_health_check_fails_without_response() -> None:
    with health_server(200) as port:
        pass

    assert health_check_exit_code(port) == 1


def test_health_check_uses_python_without_shell() -> None:
    python, option, snippet = health_check()

    assert (python, option) == ("python", "-c")
    assert re.findall(r"import ([\w., ]+);", snippet) == ["http.client, os, sys"]
