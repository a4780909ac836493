"""Test the background steps of `.ci/run` in a script that uses them in the same way."""

import os
import select
import subprocess
from collections.abc import Iterable
from pathlib import Path

FUNCTIONS = Path(__file__).parents[1] / ".ci" / "background_steps.sh"
SCRIPT_START = f'set -euo pipefail\nsource "{FUNCTIONS}"\n'
DEATH_SECONDS = 20


def test_output_of_a_finished_step_is_printed() -> None:
    result = run_script("greeting() { echo hello; }\nstart greeting\nfinish greeting\necho end")

    assert (result.returncode, result.stdout) == (0, "hello\nend\n")


def test_failed_step_ends_the_run_with_its_status() -> None:
    result = run_script(
        "failing() { echo hello; exit 7; }\nstart failing\nfinish failing\necho end"
    )

    assert (result.returncode, result.stdout) == (7, "hello\n\n== failed: failing\n")


def test_failed_run_ends_the_processes_that_a_step_has_started(tmp_path: Path) -> None:
    # `sleep` inherits the write end of the pipe, so the read end reaches its end when `sleep` ends
    reader, writer = os.pipe()
    os.mkfifo(tmp_path / "ready")

    result = run_script(
        f"""
        waiting() {{ echo begun >"{tmp_path}/ready"; sleep 60; echo never; }}
        start waiting
        read -r _ <"{tmp_path}/ready"
        exit 3
        """,
        inherited=[writer],
    )
    os.close(writer)

    assert result.returncode == 3
    with os.fdopen(reader) as pipe:
        assert select.select([pipe], [], [], DEATH_SECONDS) == ([pipe], [], [])


def run_script(steps: str, inherited: Iterable[int] = ()) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", SCRIPT_START + steps],
        capture_output=True,
        text=True,
        check=False,
        pass_fds=tuple(inherited),
    )
