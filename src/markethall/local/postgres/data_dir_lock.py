"""Keep two servers from using one data directory."""

import fcntl
import os
import time
from pathlib import Path
from typing import IO

import psutil

from markethall.local.errors import busy
from markethall.local.server_process import POLL_SECONDS, open_private

SHUTDOWN_TIMEOUT_SECONDS = 5.0  # for a server whose parent was killed


class DataDirLock:
    """A file lock on the data directory. The kernel releases it after kill -9 too."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[bytes] | None = None

    def acquire(self) -> None:
        """Raise EmbeddedBusy when another process holds the lock."""
        file = open_private(self._path)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().decode()
            file.close()
            raise busy(str(self._path.parent), holder) from None
        file.truncate(0)
        file.write(str(os.getpid()).encode())
        file.flush()
        self._file = file

    def release(self) -> None:
        """Do nothing when the lock is not held."""
        file, self._file = self._file, None
        if file is not None:
            file.close()


def wait_for_previous_server(cluster: Path) -> None:
    """Return when no process works in the cluster. Raises EmbeddedBusy after a timeout.

    The server of a killed process needs a moment to shut down.
    """
    pid_file = cluster / "postmaster.pid"
    if not pid_file.exists():
        return
    deadline = time.monotonic() + SHUTDOWN_TIMEOUT_SECONDS
    while workers := _processes_in(cluster.resolve()):
        if time.monotonic() > deadline:
            raise busy(str(cluster), str(min(workers)))
        time.sleep(POLL_SECONDS)
    # Postgres refuses to start while the pid in the file is alive. No process works in the
    # cluster, so another program has got that pid. A dead pid stays: Postgres cleans up by it.
    if _names_a_living_process(pid_file):
        pid_file.unlink(missing_ok=True)


def _processes_in(cluster: Path) -> list[int]:
    """Find the processes of the server: all of them work in its data directory.

    psutil reports no working directory for processes of other users, which cannot enter ours.
    """
    return [p.pid for p in psutil.process_iter(["cwd"]) if p.info["cwd"] == str(cluster)]


def _names_a_living_process(pid_file: Path) -> bool:
    try:
        return psutil.pid_exists(int(pid_file.read_text().split("\n")[0]))
    except (FileNotFoundError, ValueError):
        return False
