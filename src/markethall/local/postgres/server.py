"""Creates, starts and stops one Postgres cluster."""

import os
import re
import secrets
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import IO

from markethall.local.errors import EmbeddedBusy, EmbeddedError
from markethall.local.postgres.binaries import (
    PostgresBinaries,
    copy_of_wheel,
    major_of,
    postgres_for,
)
from markethall.local.postgres.data_dir_lock import (
    DataDirLock,
    end_orphans,
    wait_for_previous_server,
)
from markethall.local.postgres.os_user import chown, find_os_user, make_data_dir
from markethall.local.server_process import (
    OsUser,
    candidate_ports,
    open_private,
    run,
    serve,
)
from markethall.local.server_thread import EmbeddedServer, ServerThread
from markethall.settings import ROOT_DATA_DIRECTORY

_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",  # no Unix socket, because its path may be too long
    "shared_buffers": "64MB",
    "max_wal_size": "256MB",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
}
_UNSAFE_FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


class EmbeddedPostgres(EmbeddedServer):
    """A Postgres cluster in `data_dir/postgres` with the database `markethall`.

    The first start creates the cluster. With `durable=False` the server is faster, but a power
    failure may destroy the cluster. With `on_failure`, a server that ends by itself is restarted on
    the same port, see ServerThread. `report` is called with a line of text before each step that
    takes seconds.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        durable: bool = True,
        max_connections: int = 100,
        on_failure: Callable[[], None] | None = None,
        report: Callable[[str], None] = lambda _: None,
    ) -> None:
        super().__init__(on_failure)
        self._folder = data_dir.absolute()
        self._cluster = self._folder / "postgres"
        self._password = self._folder / "postgres.password"
        self._lock = DataDirLock(self._folder / "postgres.lock")
        self._durable = durable
        self._settings = {**_SETTINGS, "max_connections": str(max_connections)}
        if not durable:
            self._settings |= _UNSAFE_FAST
        self._report = report

    def stop(self) -> None:
        """Stop the server, and release the data directory; see EmbeddedServer."""
        try:
            super().stop()
        finally:
            self._lock.release()

    def running_url(self) -> str:
        """Return the URL of the server that another process has started in this data directory.

        Raises EmbeddedBusy if its port cannot be read yet.
        """
        try:
            port = int((self._cluster / "postmaster.pid").read_text().splitlines()[3])
            return self._url_at(port)
        except (OSError, IndexError, ValueError) as error:
            raise EmbeddedBusy(f"{self._folder} is in use, try again in a moment") from error

    def _start(self) -> None:
        try:
            # check first that Postgres is installed: in a container image without it, creating the
            # folder fails too, but only this check advises to set MARKETHALL_DATABASE_URL
            postgres_for(self._cluster)
            make_data_dir(self._folder)
            self._lock.acquire()
            self._start_with_lock()
        except OSError as error:
            self.stop()
            raise EmbeddedError(f"{self._folder} cannot hold a Postgres: {error}") from error
        except BaseException:
            self.stop()
            raise

    def _start_with_lock(self) -> None:
        wait_for_previous_server(self._cluster)
        binaries, user = self._choose_binaries_and_user()
        if not self._is_built():
            self._build(binaries, user)
        chown(self._cluster, user)
        self._thread = ServerThread(
            "Postgres",
            partial(self._launch, binaries, user),
            open_private(self._folder / "postgres.log"),
            # SIGINT means fast shutdown, SIGQUIT immediate shutdown
            (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL),
            self._on_failure,
        )
        self._thread.start()

    def _choose_binaries_and_user(self) -> tuple[PostgresBinaries, OsUser]:
        """Return programs, and a user that can run them. Raises EmbeddedError."""
        binaries = postgres_for(self._cluster)
        if user := find_os_user(binaries.postgres, self._cluster):
            return binaries, user
        if os.geteuid() == 0:
            make_data_dir(ROOT_DATA_DIRECTORY)
            copy = copy_of_wheel(binaries, ROOT_DATA_DIRECTORY, self._report)
            if copy and (user := find_os_user(copy.postgres, self._cluster)):
                return copy, user
        text = f"Postgres refuses root, and an unprivileged user cannot enter {self._folder}"
        advice = f"to a folder like {ROOT_DATA_DIRECTORY}, which every user can enter"
        raise EmbeddedError(
            f"{text}: start as an ordinary user, or set MARKETHALL_DATA_DIR {advice}"
        )

    def _url(self) -> str:
        return self._url_at(self._port)

    def _url_at(self, port: int | None) -> str:
        password = self._password.read_text().strip()
        return f"postgresql+asyncpg://markethall:{password}@127.0.0.1:{port}/markethall"

    def _launch(
        self, binaries: PostgresBinaries, user: OsUser, log: IO[bytes], stopping: threading.Event
    ) -> "subprocess.Popen[bytes]":
        if self._port:
            end_orphans(self._cluster)
            wait_for_previous_server(self._cluster)
        process, self._port = serve(
            lambda port: binaries.serve(self._cluster, {**self._settings, "port": str(port)}),
            lambda pid, port: _is_ready(self._cluster, pid, port),
            user,
            # a fast shutdown when this process dies, so that the next start needs no recovery
            ending=signal.SIGINT,
            log=log,
            ports=[self._port] if self._port else candidate_ports(self._previous_port()),
            stopping=stopping,
        )
        return process

    def _previous_port(self) -> int | None:
        """Return the port of the previous start, to reuse it: clients may still use its URL."""
        with suppress(OSError):
            if found := re.search(r'"port=(\d+)"', (self._cluster / "postmaster.opts").read_text()):
                return int(found[1])
        return None

    def _is_built(self) -> bool:
        if major_of(self._cluster) is None:
            if self._cluster.exists() and any(self._cluster.iterdir()):
                raise EmbeddedError(f"{self._cluster} is not a Postgres cluster: move it away")
            return False
        if not self._password.exists():
            advice = f"restore it, or delete {self._cluster} to start with an empty database"
            raise EmbeddedError(f"{self._password} is lost: {advice}")
        return True

    def _build(self, binaries: PostgresBinaries, user: OsUser) -> None:
        """Create the cluster under another name and rename it, so that it is never incomplete.

        If the process is killed, the next call removes the incomplete directory.
        """
        self._report(f"Creating the database in {self._folder} (first start, about 5 s)")
        for unfinished in self._folder.glob("postgres.building-*"):
            shutil.rmtree(unfinished, ignore_errors=True)
        site = Path(tempfile.mkdtemp(prefix="postgres.building-", dir=self._folder))
        try:
            self._build_in(site, binaries, user)
        finally:
            shutil.rmtree(site, ignore_errors=True)

    def _build_in(self, site: Path, binaries: PostgresBinaries, user: OsUser) -> None:
        cluster, secret = site / "cluster", site / "password"
        password = secrets.token_urlsafe(24)
        _write_secret(secret, password)
        chown(site, user)
        run(binaries.initdb(cluster, secret, durable=self._durable), user)
        run(binaries.single(cluster), user, stdin="CREATE DATABASE markethall;\n")
        _write_secret(self._password, password)
        cluster.rename(self._cluster)


def _write_secret(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    with open_private(path) as file:
        file.write(text.encode())
        file.flush()
        os.fsync(file.fileno())


def _is_ready(cluster: Path, pid: int, port: int) -> bool:
    """Tell whether the server is ready, by the status line of postmaster.pid, as `pg_ctl -w` does.

    A connection is not enough, because another Postgres may have taken the port.
    """
    try:
        lines = (cluster / "postmaster.pid").read_text().split("\n")
        # compares the port too, because in a container an old file may have the same process id
        return (lines[0], lines[3], lines[7].strip()) == (str(pid), str(port), "ready")
    except (FileNotFoundError, IndexError):
        return False
