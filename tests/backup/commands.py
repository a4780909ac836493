"""Runs the commands of docs/backup.md."""

import os
import re
import subprocess
from pathlib import Path

from markethall.relocation.schema_copy import find_pg_tools

DOCUMENT = Path(__file__).parents[2] / "docs" / "backup.md"


def run_block(marker: str, server_major: int, **variables: str) -> None:
    """Run the code block after the marker, with these environment variables."""
    block = re.search(rf"<!-- {marker}: -->\n```sh\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert block, marker
    folder = find_pg_tools(server_major, server_major).folder
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block[1]],
        env={**os.environ, "PATH": path, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
