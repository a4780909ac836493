"""Run `markethall local-cluster` as a process, and read its output."""

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
import psutil

from tests.e2e.servers import ADMIN, CONTEXTS, RunningServer, free_port
from tests.e2e.test_shutdown import is_alive

START_TIMEOUT_SECONDS = 120


@dataclass(frozen=True)
class ClusterProcess:
    process: "subprocess.Popen[bytes]"
    port: int
    folder: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def server(self) -> RunningServer:
        """The cluster as a RunningServer with one URL for all contexts."""
        return RunningServer(
            dict.fromkeys(CONTEXTS, self.url), (self.process.pid,), self.folder / "out.log"
        )

    @property
    def stderr(self) -> str:
        return (self.folder / "err.log").read_text()

    @property
    def log_lines(self) -> list[str]:
        return (self.folder / "out.log").read_text().splitlines()

    def pid_of(self, name: str) -> int:
        """Return the most recently printed pid of a service, or of the proxy."""
        found = re.findall(rf"^  {name} +pid (\d+)", self.stderr, re.MULTILINE)
        assert found, self.stderr
        return int(found[-1])

    @property
    def all_pids(self) -> list[int]:
        """The pids of the cluster process and of its children, at any depth."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        return [self.process.pid, *(child.pid for child in children)]


def remaining_processes(pids: list[int]) -> list[int]:
    return [pid for pid in pids if is_alive(pid)]


def environment(folder: Path, **overrides: str) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if "MARKETHALL" not in name}
    settings = {
        "data_dir": str(folder / "data"),
        "bcrypt_cost": "4",
        "rate_limits": "off",
        "log_format": "json",
        "admin_email": ADMIN[0],
        "admin_password": ADMIN[1],
        # long timeouts in seconds, because the machine may be busy
        "request_deadline_seconds": "30",
        "rpc_attempt_timeout_seconds": "10",
        "database_timeout": "20",
        **overrides,
    }
    variables = {f"MARKETHALL_{name.upper()}": value for name, value in settings.items()}
    return {**inherited, **variables, "PYTHONPATH": "src"}


@contextmanager
def started_cluster(
    folder: Path, port: int | None = None, **overrides: str
) -> Iterator[ClusterProcess]:
    """Run the cluster during the block, which may start before the services are ready."""
    folder.mkdir(exist_ok=True)
    port = port or free_port()
    with (folder / "out.log").open("wb") as out, (folder / "err.log").open("wb") as err:
        process = subprocess.Popen(
            [sys.executable, "-m", "markethall", "local-cluster", "--port", str(port)],
            env=environment(folder, **overrides),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
        )
    try:
        yield ClusterProcess(process, port, folder)
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise


@contextmanager
def ready_cluster(folder: Path, **overrides: str) -> Iterator[ClusterProcess]:
    """Run the cluster, and start the block when every service is ready."""
    with started_cluster(folder, None, **overrides) as cluster:
        printed, deadline = cluster.stderr, time.monotonic() + START_TIMEOUT_SECONDS
        while not all(f"  {context} " in cluster.stderr for context in CONTEXTS):
            assert cluster.process.poll() is None, cluster.stderr
            if cluster.stderr != printed:  # the start makes progress, so the timeout restarts
                printed = cluster.stderr
                deadline = time.monotonic() + START_TIMEOUT_SECONDS
            assert time.monotonic() < deadline, cluster.stderr
            time.sleep(0.05)
        assert httpx2.get(f"{cluster.url}/ready").status_code == 200
        yield cluster
