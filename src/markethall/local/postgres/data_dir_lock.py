"""Who else uses the data directory."""

import fcntl
import os
import sys
import time
from pathlib import Path
from typing import IO

from markethall.embedded.errors import busy
from markethall.embedded.processes import POLL_SECONDS, open_private

PATIENCE_SECONDS = 5.0  # how long a server that lost its parent may take to shut down


class Lock:
    """Held by one living process at most: the kernel releases it on kill -9 too."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[bytes] | None = None

    def take(self) -> None:
        """Hold the lock until `release()`; EmbeddedBusy when somebody else holds it."""
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
        """Let the next one in; without effect when the lock is not held."""
        file, self._file = self._file, None
        if file is not None:
            file.close()


def wait_for_previous(cluster: Path) -> None:
    """Return when no process works in the cluster; EmbeddedBusy when that takes too long.

    The server of a killed process needs a moment to shut down.
    """
    pid_file = cluster / "postmaster.pid"
    if sys.platform != "linux" or not pid_file.exists():
        return
    deadline = time.monotonic() + PATIENCE_SECONDS
    while workers := _processes_in(cluster):
        if time.monotonic() > deadline:
            raise busy(str(cluster), str(min(workers)))
        time.sleep(POLL_SECONDS)
    # Postgres refuses to start while the number in the file is alive; as nobody works in the
    # cluster, that number was given to a stranger. A dead one is left: Postgres cleans up by it.
    if _is_alive(pid_file):
        pid_file.unlink(missing_ok=True)


def _processes_in(cluster: Path) -> list[int]:
    """All processes of a Postgres work in its data directory, so this finds exactly those."""
    here = cluster.resolve()
    processes = (path for path in Path("/proc").iterdir() if path.name.isdecimal())
    return [int(path.name) for path in processes if _works_at(path, here)]


def _works_at(process: Path, folder: Path) -> bool:
    try:
        return (process / "cwd").readlink() == folder
    except OSError:
        return False  # it ended, or it belongs to another user, who cannot enter our cluster


def _is_alive(pid_file: Path) -> bool:
    try:
        pid = int(pid_file.read_text().split("\n")[0])
    except (FileNotFoundError, ValueError):
        return False
    return Path(f"/proc/{pid}").exists()
