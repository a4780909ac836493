"""One Postgres cluster: made at first use, started, stopped."""

import os
import re
import secrets
import shutil
import signal
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

from markethall.embedded.accounts import account_for, give
from markethall.embedded.binaries import PostgresBinaries, major_of, postgres_for
from markethall.embedded.errors import EmbeddedBusy, EmbeddedError
from markethall.embedded.occupancy import Lock, wait_for_previous
from markethall.embedded.processes import (
    Account,
    end,
    open_log,
    open_private,
    require_main_thread,
    run,
    serve,
)

_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",  # a socket path may be too long, and nobody needs one
    "shared_buffers": "64MB",
    "max_wal_size": "256MB",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
}
_FORGETFUL = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


class EmbeddedPostgres:
    """One Postgres cluster in `data_dir/postgres` with one database, `markethall`.

    `durable=False` trades the safety of the data for speed: a power cut may destroy the cluster.
    As a context manager it gives the URL and stops at the end.
    """

    def __init__(self, data_dir: Path, *, durable: bool = True, max_connections: int = 100) -> None:
        self._folder = data_dir.absolute()
        self._cluster = self._folder / "postgres"
        self._password = self._folder / "postgres.password"
        self._lock = Lock(self._folder / "postgres.lock")
        self._durable = durable
        self._settings = {**_SETTINGS, "max_connections": str(max_connections)}
        if not durable:
            self._settings |= _FORGETFUL
        self._process: subprocess.Popen[bytes] | None = None
        self._url = ""

    @property
    def pid(self) -> int | None:
        """The process id of the server, None while it is not running for us."""
        return self._process.pid if self._process else None

    def start(self) -> str:
        """Start the server and return its SQLAlchemy URL; make the cluster at first use.

        Starting a started server returns the same URL. Raises EmbeddedMissing, EmbeddedBusy or
        EmbeddedError. Must be called in the main thread.
        """
        if self._process is None:
            require_main_thread()
            self._start()
        return self._url

    def stop(self) -> None:
        """Shut down at once but cleanly, and wait for the end; the second call does nothing."""
        process, self._process = self._process, None
        if process is not None:
            # fast shutdown, then immediate shutdown, then the axe
            end(process, signal.SIGINT, signal.SIGQUIT, signal.SIGKILL)
        self._lock.release()

    def running_url(self) -> str:
        """The URL of a server that another process of ours has started on this data directory.

        Raises EmbeddedBusy when its port cannot be read yet.
        """
        try:
            port = int((self._cluster / "postmaster.pid").read_text().splitlines()[3])
            return self._url_at(port)
        except (OSError, IndexError, ValueError) as error:
            raise EmbeddedBusy(f"{self._folder} is in use, try again in a moment") from error

    def __enter__(self) -> str:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _start(self) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._lock.take()
            self._start_alone()
        except OSError as error:
            self.stop()
            raise EmbeddedError(f"{self._folder} cannot hold a Postgres: {error}") from error
        except BaseException:
            self.stop()
            raise

    def _start_alone(self) -> None:
        wait_for_previous(self._cluster)
        binaries = postgres_for(self._cluster)
        account = account_for(binaries.postgres, self._cluster)
        if not self._is_built():
            self._build(binaries, account)
        give(self._cluster, account)
        port = self._launch(binaries, account)
        self._url = self._url_at(port)

    def _url_at(self, port: int) -> str:
        password = self._password.read_text().strip()
        return f"postgresql+asyncpg://markethall:{password}@127.0.0.1:{port}/markethall"

    def _launch(self, binaries: PostgresBinaries, account: Account) -> int:
        with open_log(self._folder / "postgres.log") as log:
            self._process, port = serve(
                lambda port: binaries.serve(self._cluster, {**self._settings, "port": str(port)}),
                lambda pid, port: _is_ready(self._cluster, pid, port),
                account,
                # Fast shutdown when we die, not the axe: the next start needs no recovery.
                ending=signal.SIGINT,
                log=log,
                port_before=self._port_before(),
            )
        return port

    def _port_before(self) -> int | None:
        """An address that somebody has written down stays true, as far as it is up to us."""
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
            advice = f"restore it, or delete {self._cluster} to begin anew"
            raise EmbeddedError(f"{self._password} is lost: {advice}")
        return True

    def _build(self, binaries: PostgresBinaries, account: Account) -> None:
        """Make the cluster elsewhere and rename it: it is there with its database, or not at all.

        A process killed half-way leaves only rubbish with a name of its own, removed here.
        """
        for rubbish in self._folder.glob("postgres.building-*"):
            shutil.rmtree(rubbish, ignore_errors=True)
        site = Path(tempfile.mkdtemp(prefix="postgres.building-", dir=self._folder))
        try:
            self._build_in(site, binaries, account)
        finally:
            shutil.rmtree(site, ignore_errors=True)

    def _build_in(self, site: Path, binaries: PostgresBinaries, account: Account) -> None:
        cluster, secret = site / "cluster", site / "password"
        password = secrets.token_urlsafe(24)
        _write_secret(secret, password)
        give(site, account)
        run(binaries.initdb(cluster, secret, durable=self._durable), account)
        run(binaries.single(cluster), account, typed="CREATE DATABASE markethall;\n")
        _write_secret(self._password, password)
        cluster.rename(self._cluster)


def _write_secret(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    with open_private(path) as file:
        file.write(text.encode())
        file.flush()
        os.fsync(file.fileno())


def _is_ready(cluster: Path, pid: int, port: int) -> bool:
    """What `pg_ctl -w` looks at: the status line of postmaster.pid.

    Better than connecting: who answers on a port just lost to somebody else may be his Postgres.
    """
    try:
        lines = (cluster / "postmaster.pid").read_text().split("\n")
        # The port too: in a container a stale file may carry the very same process id.
        return (lines[0], lines[3], lines[7].strip()) == (str(pid), str(port), "ready")
    except (FileNotFoundError, IndexError):
        return False
