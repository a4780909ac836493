"""Prevents two servers from using the same data directory."""

import fcntl
import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import IO

import psutil

from markethall.local.errors import busy
from markethall.local.server_process import POLL_SECONDS, open_private

SHUTDOWN_TIMEOUT_SECONDS = 5.0  # for the shutdown of a server whose parent was killed


class DataDirLock:
    """A file lock on the data directory. The kernel releases it when the process ends."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[bytes] | None = None

    def acquire(self) -> None:
        """Take the lock. Raises EmbeddedBusy if another process has it."""
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
        """Release the lock; do nothing if it is not held."""
        file, self._file = self._file, None
        if file is not None:
            file.close()


def wait_for_previous_server(cluster: Path) -> None:
    """Wait until no server process uses the cluster. Raises EmbeddedBusy after a timeout.

    After a process was killed, its server needs a moment to shut down.
    """
    pid_file = cluster / "postmaster.pid"
    if not pid_file.exists():
        return
    deadline = time.monotonic() + SHUTDOWN_TIMEOUT_SECONDS
    while workers := _processes_in(cluster.resolve()):
        if time.monotonic() > deadline:
            raise busy(str(cluster), str(min(workers)))
        time.sleep(POLL_SECONDS)
    # Postgres does not start if the pid in this file belongs to a running process. No server
    # process is left, so that process is another program, and the file must be deleted. Otherwise
    # the file must stay, because Postgres uses it to find leftover shared memory.
    if _names_a_living_process(pid_file):
        pid_file.unlink(missing_ok=True)


def end_orphans(cluster: Path) -> None:
    """End the remaining processes of a server whose main process has ended.

    SIGQUIT ends them at once and without a checkpoint; the next start recovers from the write-ahead
    log.
    """
    for pid in _processes_in(cluster.resolve()):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGQUIT)


def _processes_in(cluster: Path) -> list[int]:
    """Return the ids of the server's processes: those whose working directory is the cluster.

    psutil reports no working directory for processes of other users. They are not servers of this
    cluster, because they cannot open it.
    """
    return [p.pid for p in psutil.process_iter(["cwd"]) if p.info["cwd"] == str(cluster)]


def _names_a_living_process(pid_file: Path) -> bool:
    try:
        return psutil.pid_exists(int(pid_file.read_text().split("\n")[0]))
    except (FileNotFoundError, ValueError):
        return False
