"""`markethall apart` as somebody runs it: one command, known by its port and by what it says."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2

from tests.e2e.halls import ADMIN, CONTEXTS, Hall, free_port
from tests.e2e.test_shutdown import alive, children

START_LIMIT = 120


@dataclass(frozen=True)
class Running:
    process: "subprocess.Popen[bytes]"
    port: int
    folder: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def hall(self) -> Hall:
        """All of it at one address."""
        return Hall(dict.fromkeys(CONTEXTS, self.url), (self.process.pid,), self.folder / "out.log")

    @property
    def said(self) -> str:
        """The banner and what came after it."""
        return (self.folder / "err.log").read_text()

    @property
    def lines(self) -> list[str]:
        """The logs of all."""
        return (self.folder / "out.log").read_text().splitlines()

    def pid_of(self, name: str) -> int:
        """As the banner says it."""
        found = re.search(rf"^  {name} +pid (\d+)", self.said, re.MULTILINE)
        assert found, self.said
        return int(found[1])

    @property
    def family(self) -> list[int]:
        """Itself, its services, its servers, and what these have started."""
        found = [self.process.pid]
        for pid in found:
            found += children(pid)
        return found


def survivors(pids: list[int]) -> list[int]:
    return [pid for pid in pids if alive(pid)]


def settings(folder: Path, **given: str) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if "MARKETHALL" not in name}
    ours = {
        "data_dir": str(folder / "data"),
        "bcrypt_cost": "4",
        "rate_limits": "off",
        "log_format": "json",
        "admin_email": ADMIN[0],
        "admin_password": ADMIN[1],
        # a busy machine takes its time
        "deadline": "30",
        "remote_timeout": "10",
        "database_timeout": "20",
        **given,
    }
    named = {f"MARKETHALL_{name.upper()}": value for name, value in ours.items()}
    return {**clean, **named, "PYTHONPATH": "src"}


@contextmanager
def started(folder: Path, port: int | None = None, **given: str) -> Iterator[Running]:
    """Begun, and nothing awaited; ended by its pid, if it has not ended before."""
    folder.mkdir(exist_ok=True)
    port = port or free_port()
    with (folder / "out.log").open("wb") as out, (folder / "err.log").open("wb") as err:
        process = subprocess.Popen(
            [sys.executable, "-m", "markethall", "apart", "--port", str(port)],
            env=settings(folder, **given),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
        )
    try:
        yield Running(process, port, folder)
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise


@contextmanager
def apart(folder: Path, **given: str) -> Iterator[Running]:
    """Ready, as its banner says."""
    with started(folder, None, **given) as running:
        deadline = time.monotonic() + START_LIMIT
        while "payments  " not in running.said:
            assert running.process.poll() is None, running.said
            assert time.monotonic() < deadline, running.said
            time.sleep(0.05)  # polls a process that is starting; no outcome hangs on the length
        assert httpx2.get(f"{running.url}/ready").status_code == 200
        yield running
