"""Tests the migrations on a real server: upgrade, compare with the code, downgrade, upgrade."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from markethall.local.postgres import EmbeddedPostgres


def main() -> None:
    given = os.environ.get("MARKETHALL_TEST_DATABASE_URL")
    if given:
        check(given)
        return
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        with EmbeddedPostgres(Path(folder) / "pg", durable=False) as url:
            check(url)


def check(url: str) -> None:
    alembic(url, "upgrade", "head")
    alembic(url, "check")
    alembic(url, "downgrade", "base")
    alembic(url, "-n", "inventory", "upgrade", "head")
    alembic(url, "upgrade", "head")
    alembic(url, "check")
    print("migrations: up, clean, down, up: ok")


def alembic(url: str, *arguments: str) -> None:
    command = [sys.executable, "-m", "alembic", *arguments]
    environment = {**os.environ, "MARKETHALL_DATABASE_URL": url}
    print("alembic", *arguments)
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
